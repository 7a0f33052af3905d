"""The study of depth and width: what is trained, what its results say, and that it resumes."""

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.artifact.record import to_json
from lib.config.params import load_params, resolve_config
from lib.data.dataset import Dataset
from lib.errors import UsageError
from lib.evaluate.results import EvaluationErrors
from lib.reproduce.checks import CHECKS
from lib.reproduce.references import load_references
from lib.study.findings import (
    FIRST_REPORTED,
    best_rates,
    depth_score,
    fit_parabola,
    mean_losses,
    result_lines,
    rows_of,
    split_by_significance,
    study_table,
    vs_best,
)
from lib.study.results import StudyRow, read_results
from lib.study.sweep import _evaluation, estimate_seconds, load_study, plan_study
from tests.compare import assert_same_figure
from tests.conftest import PROJECT, Here


def test_every_training_of_the_study_has_a_valid_config_and_a_name_of_its_own_unless_it_is_the_same() -> None:
    planned = plan_study()
    assert {one.experiment for one in planned} == {
        "the_four", "novel", "rates", "equal_size", "equal_width", "equal_compute", "regularization",
    }  # fmt: skip
    by_name: dict[Any, Any] = {}
    for one in planned:
        config = one.config()
        assert by_name.setdefault((one.dataset, one.name), (config.model, config.train)) == (config.model, config.train)
        assert len(one.name) < 200  # of 255; temporary names next to a run are longer
    assert len(by_name) == 4 + 1 + 20 + 10 + 9 + 9 + 24


def test_shapes_of_equal_size_have_blocks_of_equal_size_and_equal_compute_is_equal() -> None:
    from lib.model.registry import build_model, count_operations

    counted: dict[str, list[float]] = {"equal_size": [], "equal_compute": []}
    for one in plan_study():
        if one.experiment in counted and one.changes["train.seed"] == "1":
            config = resolve_config(
                load_params(), one.config_name, [*(f"{k}={v}" for k, v in one.changes.items()), "model.vocab_size=65"]
            )
            built = build_model(config.model, "meta")
            blocks = sum(weight.numel() for name, weight in built.named_parameters() if not built.is_embedding(name))
            counted[one.experiment].append(
                blocks if one.experiment == "equal_size" else count_operations(built) * config.train.max_steps
            )
    for values, within in ((counted["equal_size"], 0.02), (counted["equal_compute"], 0.01)):
        assert len(values) in (4, 5)
        assert max(values) / min(values) < 1 + 2 * within


def test_a_budget_shortens_every_training_by_the_same_share_and_always_in_the_same_way() -> None:
    whole, short = plan_study(), plan_study(budget=900)
    kept = [one for one in whole if not one.long_only and one.config().train.seed <= 2]
    assert {one.experiment for one in whole} - {one.experiment for one in short} == {"rates"}
    assert estimate_seconds(short) < 900 / 2 < estimate_seconds(whole)
    assert short == plan_study(budget=900)
    shares = [s.config().train.max_steps / w.config().train.max_steps for s, w in zip(short, kept, strict=True)]
    assert min(shares) > 0.8 * max(shares), "but for whole steps"
    assert plan_study(budget=1e9) == kept


def test_a_budget_that_leaves_no_steps_is_refused() -> None:
    with pytest.raises(UsageError, match=r"too short for 43 trainings; use \d+m or more"):
        plan_study(budget=60)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("one:\n  dataset: hamlet\n  runs: []\n", "one must have changes, dataset, runs"),
        ("one:\n  dataset: hamlet\n  changes: {}\n  runs: 3\n", "runs must be a list"),
        ("one:\n  dataset: hamlet\n  changes: {}\n  runs: [{config: debug}]\n", "its step_seconds"),
        ("one:\n  paired: yes\n  dataset: hamlet\n  changes: {}\n  runs: []\n", "paired is true or false, not 'yes'"),
        (
            "one:\n  dataset: hamlet\n  changes: {}\n  runs: [{config: debug, step_seconds: x, run_seconds: 1}]\n",
            "its step_seconds",
        ),
    ],
)
def test_a_study_that_is_none_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(UsageError, match=complaint):
        load_study(tmp_path / "study.yaml")


def row(experiment: str, layers: int, width: int, seed: int, loss: float, **more: Any) -> StudyRow:
    values: dict[str, Any] = {
        "config": "decoder", "dataset": "tiny_shakespeare", "learning_rate": 5e-3, "drop_rate": 0.0, "weight_decay": 0.1,
        "parameters": 600_000, "in_blocks": 590_000, "in_embeddings": 10_000, "steps": 400, "tokens": 409_600, "best_step": 400,
        "operations": 1e15, "curve": ((0, 4.2), (400, loss + 0.5)), "bits_per_byte": loss / 0.69, "top_1": 0.5,
        "standard_error": EvaluationErrors(loss=0.02, perplexity=None, bits_per_byte=None, top_1=None, top_5=None),
        "baselines": {"bigram": 2.48}, "seconds": 10.0, "threads": 1, "versions": {}, "date": "2026-01-01",
        "model_sha256": "0" * 64,
    }  # fmt: skip
    return StudyRow(experiment=experiment, layers=layers, width=width, seed=seed, loss=loss, **values | more)


ABOUT: dict[str, Any] = {"dates": [], "commits": [], "processors": [], "versions": {}}

SHAPES = {1: 224, 2: 160, 4: 112, 8: 80, 12: 64}


def of_depths(losses: dict[int, float], noise: float = 0.003) -> list[StudyRow]:
    """Rows of all experiments of depth, three seeds each, around these losses."""
    spread = (-noise, 0.0, noise)
    return [
        row(name, layers, SHAPES[layers] if name == "equal_size" else 112, seed, loss + spread[(seed + layers) % 3])
        for name in ("equal_size", "equal_width", "equal_compute")
        for layers, loss in losses.items()
        for seed in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    ("losses", "best", "level"),
    [
        ({1: 1.9, 2: 1.8, 4: 1.75, 8: 1.8, 12: 1.9}, {4}, set()),
        ({1: 1.7, 2: 1.75, 4: 1.8, 8: 1.85, 12: 1.9}, {1}, set()),
        ({1: 1.9, 2: 1.85, 4: 1.8, 8: 1.75, 12: 1.7}, {12}, set()),
        ({1: 1.8, 2: 1.8, 4: 1.9, 8: 1.8, 12: 1.8}, {1, 2, 8, 12}, {1, 2, 8, 12}),
        ({1: 1.8, 2: 1.8, 4: 1.8, 8: 1.8, 12: 1.8}, {1, 2, 4, 8, 12}, {1, 2, 4, 8, 12}),
    ],
)
def test_the_column_says_which_depths_are_significantly_worse_than_the_best(
    losses: dict[int, float], best: set[int], level: set[int]
) -> None:
    cells = depth_cells(of_depths(losses))
    (winner,) = [layers for layers, cell in cells.items() if cell == "best"]
    assert winner in best
    assert {layers for layers, cell in cells.items() if cell.endswith(" (n.s.)")} == level - {winner}
    worse = [cell for layers, cell in cells.items() if layers not in level | {winner}]
    assert all(cell.startswith("+0.") and " ± 0.00" in cell and "(" not in cell for cell in worse)


def depth_cells(rows: list[StudyRow]) -> dict[int, str]:
    """The column `vs best` of the experiment at equal size, by layers."""
    size = rows_of(rows, "equal_size")
    return {size[place].layers: cell for place, cell in vs_best(size).items()}


def test_the_best_is_named_and_how_much_worse_the_others_are() -> None:
    cells = depth_cells(of_depths({1: 1.9, 2: 1.8, 4: 1.801}))
    assert cells[2] == "best"
    assert cells[4].endswith(" (n.s.)")
    assert cells[1].startswith("+0.100 ± 0.00")


def test_what_a_seed_does_to_all_alike_is_no_error() -> None:
    """Weight decay 0.1 and 3, as they came out once: the seeds differ by more than the two do, and in both alike."""
    losses = {0.1: (5.9237, 5.9027, 5.8906), 3.0: (5.9089, 5.876, 5.8723)}
    rows = [
        row("regularization", 2, 128, seed, loss, weight_decay=decay)
        for decay, three in losses.items()
        for seed, loss in enumerate(three, 1)
    ]
    few, many = mean_losses(rows, lambda row: row.weight_decay)
    differences = np.subtract(*losses.values())
    assert few.error
    assert many.error
    assert np.hypot(few.error, many.error) == pytest.approx(differences.std(ddof=1) / np.sqrt(3)), "that of the pairs"
    assert split_by_significance([few, many])[2] == [few]


def test_one_seed_proves_nothing() -> None:
    rows = [row for row in of_depths({1: 1.9, 2: 1.901, 4: 1.9011}, noise=0) if row.seed == 1]
    size = rows_of(rows, "equal_size")
    assert {mean.error for mean in mean_losses(size, lambda row: row.layers)} == {None}
    assert depth_cells(rows) == {1: "best", 2: "+0.001 (one seed)", 4: "+0.001 (one seed)"}
    score, error = depth_score(size[:2])
    assert (score, error) == (pytest.approx(-0.001), None)


def test_the_depth_score_is_what_a_doubling_gains() -> None:
    score, error = depth_score(of_depths({1: 1.9, 2: 1.85, 4: 1.8, 8: 1.75}, noise=0.001))
    assert score == pytest.approx(0.05, abs=0.002)
    assert 0 < error < 0.005


def test_the_fit_goes_through_a_parabola_and_its_band_holds_the_truth_as_often_as_it_says() -> None:
    at = np.repeat([0.01, 0.02, 0.05, 0.1, 0.2], 3)
    truth = 1.8 + 0.02 * (np.log2(at) + 4) ** 2
    rows = [
        row("equal_size", 1, 100, seed, loss, learning_rate=x) for seed, (x, loss) in enumerate(zip(at, truth, strict=True))
    ]
    exact = fit_parabola(rows, lambda row: row.learning_rate)
    assert exact.loss == pytest.approx(1.8 + 0.02 * (np.log2(exact.x) + 4) ** 2)
    assert exact.high - exact.low == pytest.approx(0, abs=1e-9)
    assert exact.lowest == pytest.approx((2**-4, 2**-4), rel=0.05)
    held = []
    generator = np.random.default_rng(5)
    for _ in range(60):
        noisy = [replace(row, loss=row.loss + generator.normal(0, 0.01)) for row in rows]
        found = fit_parabola(noisy, lambda row: row.learning_rate, draws=400)
        held.append(np.mean((found.low <= exact.loss) & (exact.loss <= found.high)))
    assert 0.85 < np.mean(held) < 0.99


def test_the_table_has_a_line_a_way_to_train_with_the_mean_and_the_spread_of_its_seeds() -> None:
    head, rule, first, *others = study_table(of_depths({1: 1.9, 2: 1.8}))
    assert head.count("|") == rule.count("|") == first.count("|")
    assert len(others) == 5
    assert "| 1 | 224 | 3 | 1.900 | 0.002 | +0.100 ± 0.003 |" in first


STUDY = """
the_four:
  paired: true
  dataset: play
  changes: {model.emb_dim: 16, train.max_steps: 4, train.eval_interval: 2, train.batch_size: 2}
  runs:
    - {config: debug, model.n_layers: [1, 2], step_seconds: 0.01, run_seconds: 1}
"""


@pytest.fixture
def tiny_study(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a study of two trainings, and the dataset that they need."""
    (tmp_path / "study.yaml").write_text(STUDY)
    shutil.copytree(small / "tokens", tmp_path / "artifacts" / "datasets" / "tokens")
    shutil.copytree(small / "dataset", tmp_path / "artifacts" / "datasets" / "play.bytes.32")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_study_trains_evaluates_and_tells_and_a_second_time_does_nothing(tiny_study: Path, here: Here) -> None:
    first = here("study", "--study", "study.yaml", "-o", "out")
    results = (tiny_study / "out" / "results.json").read_bytes()
    one, two = json.loads(results)["runs"]
    assert (one["layers"], two["layers"], one["width"], one["steps"], one["tokens"]) == (1, 2, 16, 4, 256)
    assert one["in_blocks"] + one["in_embeddings"] == one["parameters"]
    optional = {"memorization", "behind_best"}
    names = [field.name for field in fields(StudyRow) if field.name not in optional]
    assert [[name for name in row if name not in optional] for row in (one, two)] == [names, names], "null is kept"
    assert one["loss"] == pytest.approx(min(loss for step, loss in one["curve"] if step), rel=1e-5)
    runs = sorted((tiny_study / "artifacts" / "study" / "play").iterdir())
    assert [run.name for run in runs] == [
        f"debug,emb_dim=16,n_layers={n},batch_size=2,eval_interval=2,max_steps=4" for n in (1, 2)
    ]
    assert "| the_four | debug |" in first.out
    (behind,) = [each["behind_best"] for each in (one, two) if "behind_best" in each]
    assert list(behind) == ["loss", "standard_error", "blocks", "significant"]
    assert behind["loss"] == pytest.approx(abs(one["loss"] - two["loss"]), rel=1e-4)
    assert {path.name for path in (tiny_study / "out").iterdir()} == {"results.json", "the_four.png", "the_four.svg"}
    (runs[1] / "model.safetensors").unlink()  # as if it had been killed just before the end
    again = here("study", "--study", "study.yaml", "-o", "out")
    assert again.out == first.out
    assert (tiny_study / "out" / "results.json").read_bytes() == results


def test_a_study_on_the_test_split_says_so_and_has_a_table_without_figures(tiny_study: Path, here: Here) -> None:
    plan = tiny_study / "study.yaml"
    plan.write_text(STUDY.replace("train.max_steps: 4", "train.max_steps: 4, evaluate.split: test"))
    assert "play.bytes.32 has no test split" in here("study", "--study", plan, "-o", "out", code=1).err
    assert not (tiny_study / "artifacts" / "study").exists(), "refused before anything is trained"
    datasets = tiny_study / "artifacts" / "datasets"
    here("build-dataset", datasets / "tokens", "-o", datasets / "play.bytes.32", "--config", "debug", "--test-fraction", 0.1)
    output = here("study", "--study", plan, "-o", "out").out
    assert "Not evaluated on the validation split: the_four on test." in output
    rows = json.loads((tiny_study / "out" / "results.json").read_bytes())["runs"]
    assert [row["split"] for row in rows] == ["test", "test"]
    (paired,) = [row["behind_best"]["loss"] for row in rows if "behind_best" in row]
    assert paired == pytest.approx(abs(rows[0]["loss"] - rows[1]["loss"]), rel=1e-4)
    assert {path.name for path in (tiny_study / "out").iterdir()} == {"results.json"}


def test_a_study_takes_no_evaluation_of_another_text(copied: Path, here: Here) -> None:
    few = ["evaluate.passages=0", "evaluate.overlap=0"]
    config, data, path = (
        resolve_config(load_params(), "debug", few),
        Dataset(copied / "dataset"),
        copied / "run" / "evaluation.json",
    )
    here("evaluate", copied / "run", "-o", path, "--config", "debug", "--set", few[0], "--set", few[1])
    found = json.loads(path.read_text())
    assert to_json(_evaluation(copied / "run", data, config)) == found
    for changes in ({"dataset": "0" * 64}, {"split": "train"}):
        path.write_text(json.dumps(found | changes))
        assert _evaluation(copied / "run", data, config) is None


def test_the_losses_first_reported_are_those_that_are_referred_to() -> None:
    reference = load_references(CHECKS)["depth-and-width"]
    assert tuple(FIRST_REPORTED.values()) == reference.expected


def test_a_study_without_its_dataset_says_how_to_make_it(tiny_study: Path, here: Here) -> None:
    shutil.rmtree(tiny_study / "artifacts" / "datasets")
    assert (
        "`make build-dataset CONFIG=debug DATASET=play` makes it"
        in here("study", "--study", "study.yaml", "-o", "out", code=1).err
    )


def test_the_committed_page_says_what_the_committed_results_say() -> None:
    page = (PROJECT / "docs" / "depth_and_width.md").read_text(encoding="utf-8")
    for line in result_lines(read_results(PROJECT / "docs" / "study" / "results.json")):
        assert line in page, line


def test_the_committed_figures_are_those_of_the_committed_results(here: Here, tmp_path: Path) -> None:
    here("study", "--results", PROJECT / "docs" / "study" / "results.json", "-o", tmp_path)
    for path in sorted(tmp_path.glob("*.*")):
        assert_same_figure(path, PROJECT / "docs" / "study" / path.name)
    assert len(list(tmp_path.glob("*.png"))) == len(list(tmp_path.glob("*.svg"))) == 3


def test_each_shape_was_trained_at_the_rate_that_was_best_for_it() -> None:
    rows = read_results(PROJECT / "docs" / "study" / "results.json").runs
    used = {row.layers: row.learning_rate for row in rows_of(rows, "equal_size")}
    assert used == best_rates(rows)


def test_results_that_are_none_are_refused(here: Here, tmp_path: Path) -> None:
    for content, problem in (
        ({"runs": []}, "about is missing"),
        ({"about": ABOUT, "runs": []}, "runs is empty"),
        ({"about": ABOUT, "runs": [{"experiment": "rates"}]}, "runs.0.config is missing"),
    ):
        (tmp_path / "results.json").write_text(json.dumps(content))
        error = here("study", "--results", tmp_path / "results.json", "-o", tmp_path / "out", code=1).err
        assert f"holds no results of a study: {problem}; `study -o DIR` writes them" in error
