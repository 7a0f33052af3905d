"""What the pipeline shows: comparisons and figures, through their commands."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lib import Model
from lib.artifact.io import read_json, write_json
from lib.artifact.manifest import MANIFEST, write_manifest
from lib.config.params import load_params, resolve_config
from lib.errors import MakegptError
from lib.evaluate.comparison import ComparisonRow, comparison_rows, comparison_table
from lib.model.attention import build_attention
from lib.plot import lens
from lib.plot.kinds import KINDS, Request
from lib.plot.lens import read_lens, visible
from lib.plot.loss_curves import read_curves
from lib.plot.style import escape_mathtext, save_figure
from lib.run.folder import EVALUATION_FILE, IMPORT_STAGE, finished_manifest
from lib.run.metrics import training_seconds
from lib.run.provenance import figure_provenance
from tests.conftest import FEW, PROJECT, TINY, Here, Stage

#: The kinds that can be drawn without a run.
DESCRIBED = [kind.name for kind in KINDS.values() if kind.takes.least == 0]


@pytest.fixture(scope="module")
def evaluated(small: Path, tmp_path_factory: pytest.TempPathFactory, stage: Stage) -> Path:
    """A folder with one run twice, evaluated, under two names."""
    folder = tmp_path_factory.mktemp("evaluated")
    shutil.copytree(small / "run", folder / "one")
    stage("evaluate", folder / "one", small / "dataset", "-o", folder / "one" / "evaluation.json", *FEW)
    shutil.copytree(folder / "one", folder / "two")
    return folder


def test_compare_puts_runs_and_each_baseline_once_the_best_first(evaluated: Path, stage: Stage) -> None:
    rows = [json.loads(line) for line in stage("compare", evaluated / "one", evaluated / "two", "--json").stdout.splitlines()]
    names = [row["name"] for row in rows]
    counted = ["unigram", "bigram", "add-one bigram", "trigram", "4-gram", "5-gram", "6-gram", "7-gram"]
    assert sorted(names) == sorted(["one", "two", "uniform", "gzip", "xz", *(f"{name} (counts)" for name in counted)])
    losses = [row["loss"] for row in rows]
    assert losses == sorted(losses)
    evaluation = json.loads((evaluated / "one" / "evaluation.json").read_text())
    (one,) = [row for row in rows if row["name"] == "one"]
    assert (one["loss"], one["parameters"], one["split"]) == (evaluation["loss"], 42_688, "val")
    timings = [json.loads(line) for line in (evaluated / "one" / "timings.jsonl").read_text().splitlines()]
    assert one["seconds"] == pytest.approx(sum(line["seconds"] for line in timings))


def test_the_table_has_a_head_a_line_a_row_and_dashes_where_nothing_is_known(evaluated: Path, stage: Stage) -> None:
    head, *lines = stage("compare", evaluated / "one").stdout.splitlines()
    tokens = json.loads((evaluated / "one" / "evaluation.json").read_text())["tokens"]
    assert " ".join(head.split()) == f"val split, {tokens} tokens parameters nats/token perplexity bits/byte seconds vs model"
    (one,) = [line for line in lines if line.startswith("one ")]
    assert one.split()[1] == "42,688"
    (uniform,) = [line for line in lines if line.startswith("uniform")]
    assert uniform.split()[:6] == ["uniform", "-", "5.545", "256.0", "8.000", "-"]
    assert float(uniform.split()[6]) == pytest.approx(5.545 - float(one.split()[2]), abs=2e-3)
    end = head.index("  vs model")
    table = [head, *lines[: lines.index("")]]
    assert {line[end : end + 2] for line in table} == {"  "}, "columns are aligned"
    assert " " not in {line[end - 1] for line in table}
    assert lines[-1].startswith("vs model: loss minus the model's, nats/token, ± standard error")


def test_a_run_without_timings_or_bytes_has_dashes() -> None:
    row = ComparisonRow("run", "val", 10, 10, "a", 1.5, None, None, 1000)
    assert comparison_table([row])[1].split() == ["run", "1,000", "1.500", "-", "-", "-", "-"]


def test_runs_scored_on_other_tokens_stand_apart_with_their_own_baselines() -> None:
    words = [
        ComparisonRow("words", "val", 10, 40, "a", 5.0, None, 1.8),
        ComparisonRow("uniform", "val", 10, 40, "a", 9.0, None, 3.2),
    ]
    letters = [
        ComparisonRow("letters", "val", 40, 40, "a", 1.2, None, 1.7),
        ComparisonRow("uniform", "val", 40, 40, "a", 4.2, None, 6.0),
    ]
    lines = comparison_table(words + letters)
    assert [line.split("  ")[0].strip() for line in lines] == [
        "val split, 10 tokens", "words", "uniform", "", "val split, 40 tokens", "letters", "uniform",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def two_texts(tmp_path_factory: pytest.TempPathFactory, stage: Stage) -> tuple[Path, Path]:
    """Two evaluated runs, of two texts of one size that the tokenizer cuts into the same number of tokens."""
    folder = tmp_path_factory.mktemp("texts")
    for name, word in (("one", "to be or "), ("two", "not to be")):
        (folder / f"{name}.txt").write_text(word * 300)
        stage("tokenize", folder / f"{name}.txt", "-o", folder / f"{name}.tokens", "--config", "debug")
        stage("build-dataset", folder / f"{name}.tokens", "-o", folder / f"{name}.dataset", "--config", "debug")
        stage("train", folder / f"{name}.dataset", "-o", folder / name, "--config", "debug", *TINY)
        stage("evaluate", folder / name, "-o", folder / name / "evaluation.json", "--passages", 0, "--overlap", 0)
    return folder / "one", folder / "two"


def test_runs_of_other_texts_stand_apart_though_their_sizes_are_the_same(
    two_texts: tuple[Path, Path], here: Here, tmp_path: Path
) -> None:
    lines = here("compare", *two_texts).out.splitlines()
    heads = [line for line in lines if line.startswith("val split, 269 tokens of text ")]
    assert len(set(heads)) == 2
    *blocks, legend = "\n".join(lines).split("\n\n")
    assert legend.startswith("vs model: loss minus the model's")
    assert legend.endswith("too short to tell: at least 512 tokens are needed")
    for block in blocks:
        names = [line.split("  ")[0] for line in block.splitlines()[1:]]
        assert len(names) == len(set(names)), "a baseline is of one text"
        assert len({"one", "two"} & set(names)) == 1
    here("report", *two_texts, "-o", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("; the best first</caption>") == 2 + 2, "a table a text, and one in each run's own chapter"
    here("plot", "ladder", *two_texts, "-o", tmp_path / "ladder.svg")
    assert "do not compare across panels" in (tmp_path / "ladder.svg").read_text(encoding="utf-8")
    here("plot", "loss", *two_texts, "-o", tmp_path / "loss.svg")
    assert "different texts or different tokens" in (tmp_path / "loss.svg").read_text(encoding="utf-8")
    here("plot", "loss", "--panels", *two_texts, "-o", tmp_path / "panels.svg")
    assert "different texts or different tokens" in (tmp_path / "panels.svg").read_text(encoding="utf-8")


def test_an_evaluation_names_the_text_that_it_is_about(two_texts: tuple[Path, Path]) -> None:
    expected = [hashlib.sha256(text[-269:].encode()).hexdigest() for text in ("to be or " * 300, "not to be" * 300)]
    assert [json.loads((run / "evaluation.json").read_text())["text_sha256"] for run in two_texts] == expected


def _evaluated_anew(folder: Path, target: Path, **changes: object) -> Path:
    """A copy of an evaluated run, its evaluation changed."""
    shutil.copytree(folder, target)
    evaluation = read_json(target / EVALUATION_FILE)
    write_json(target / EVALUATION_FILE, evaluation | changes)
    return target


def test_baselines_counted_on_different_training_texts_are_told_apart(
    two_texts: tuple[Path, Path], here: Here, tmp_path: Path
) -> None:
    one = two_texts[0]
    baselines = read_json(one / EVALUATION_FILE)["baselines"]
    other = baselines | {"bigram": baselines["bigram"] | {"loss": baselines["bigram"]["loss"] + 0.5}}
    names = [row.name for row in comparison_rows([one, _evaluated_anew(one, tmp_path / "other", baselines=other)])]
    assert {"bigram (counts), one", "bigram (counts), other", "trigram (counts)", "one", "other"} <= set(names)
    assert len(names) == len(set(names))


def test_runs_of_one_text_in_different_vocabularies_stand_apart(two_texts: tuple[Path, Path], tmp_path: Path) -> None:
    one = two_texts[0]
    shutil.copytree(one, tmp_path / "other")
    manifest = read_json(one / MANIFEST)
    write_json(tmp_path / "other" / MANIFEST, manifest | {"metadata": manifest["metadata"] | {"tokenizer": "0" * 64}})
    rows = comparison_rows([one, tmp_path / "other"])
    heads = [line for line in comparison_table(rows) if line.startswith("val split")]
    assert len({head.split("  ")[0] for head in heads}) == 2


def test_baselines_of_another_text_are_not_drawn_beside_the_curves(two_texts: tuple[Path, Path], tmp_path: Path) -> None:
    one = two_texts[0]
    assert read_curves([one])[0].baselines
    for number, changes in enumerate(({"split": "train"}, {"dataset": "0" * 64})):
        (curve,) = read_curves([_evaluated_anew(one, tmp_path / str(number), **changes)])
        assert (curve.baselines, curve.text) == ({}, None)


def test_an_evaluation_of_a_text_is_not_called_damaged(two_texts: tuple[Path, Path], here: Here, tmp_path: Path) -> None:
    shutil.copytree(two_texts[0], tmp_path / "run")
    (tmp_path / "text.txt").write_text("to be or not to be")
    here("evaluate", tmp_path / "run", "--text", tmp_path / "text.txt", "-o", tmp_path / "run" / EVALUATION_FILE)
    told = here("compare", tmp_path / "run", code=1).err
    assert "is about a separate text; runs are compared on a split" in told


@pytest.mark.parametrize("content", ["", "{}\n", "not json\n", '{"seconds": NaN}\n', '{"seconds": 1e999}\n', "[1]\n"])
def test_timings_that_tell_nothing_are_a_dash(tmp_path: Path, content: str) -> None:
    (tmp_path / "timings.jsonl").write_text(content)
    assert training_seconds(tmp_path) is None


@pytest.mark.parametrize("damage", [{"baselines": []}, {"baselines": {"uniform": {}}}, {"baselines": {"uniform": 3}}])
def test_a_damaged_evaluation_is_named(evaluated: Path, tmp_path: Path, damage: dict[str, object], stage: Stage) -> None:
    shutil.copytree(evaluated / "one", tmp_path / "run")
    path = tmp_path / "run" / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    assert "evaluation.json is damaged: baselines" in stage("compare", tmp_path / "run", code=1).stderr


def test_a_run_that_was_not_evaluated_is_refused(small: Path, stage: Stage) -> None:
    assert "evaluation.json" in stage("compare", small / "run", code=1).stderr


@pytest.mark.parametrize("kind", DESCRIBED)
@pytest.mark.parametrize("name", ["gpt_modern", "single_head", "single_block"])
def test_what_a_config_describes_is_drawn(kind: str, name: str, tmp_path: Path) -> None:
    changes = ["model.vocab_size=97", "model.context_length=16", "train.max_steps=9"]
    config = resolve_config(load_params(PROJECT / "params.yaml"), name, changes)
    save_figure(
        KINDS[kind].draw(Request(config=config)), tmp_path / "figure.svg", config.plot, figure_provenance(kind, (), config)
    )
    assert b"<svg" in (tmp_path / "figure.svg").read_bytes()


def test_the_model_is_drawn_with_the_shapes_and_counts_of_every_part() -> None:
    config = resolve_config(load_params(PROJECT / "params.yaml"), "gpt2_small", [])
    (axes,) = KINDS["model"].draw(Request(config=config)).axes
    told = [text.get_text() for text in axes.texts]
    for name, weights, holds in [
        ("tok_emb", "50,257 × 768", "38,597,376"),
        ("attention", "W_qkv 2,304 × 768 + 2,304,  out_proj 768 × 768 + 768", "2,362,368"),
        ("feed_forward", "expand 3,072 × 768 + 3,072,  contract 768 × 3,072 + 768", "4,722,432"),
        ("out_head", "tok_emb once more", "0"),
    ]:
        assert told[(at := told.index(name)) + 1 : at + 3] == [weights, holds]
    assert {
        "× 12",
        "ids (B, T)",
        "(B, T, C)",
        "(B, T, V): logits",
        "q (B, H, T, D),  k, v (B, H, T, D),  weights (B, H, T, T)",
    } <= set(told)
    assert "q (B, H, T, D),  k, v (B, H, T, D),  weights (B, H, T, T)" in told
    assert axes.get_title() == "124,439,808 parameters"


def test_a_run_and_a_config_are_drawn_side_by_side(evaluated: Path, here: Here, tmp_path: Path) -> None:
    here("plot", "model", evaluated / "one", "gpt_modern", "-o", tmp_path / "figure.svg")
    drawn = (tmp_path / "figure.svg").read_text()
    for told in ("one: 42,688 parameters", "gpt_modern: 48,040,320 parameters", "k, v (B, G, T, D), rotary"):
        assert told in drawn


def test_the_mask_is_drawn_as_the_model_has_it() -> None:
    config = resolve_config(load_params(PROJECT / "params.yaml"), None, ["model.context_length=6", "model.window=2"])
    (axes,) = KINDS["mask"].draw(Request(config=config)).axes
    attention = build_attention(config.model)
    assert (axes.images[0].get_array() == attention.mask.numpy()).all()


def test_attention_is_drawn_for_every_layer_and_head(evaluated: Path, stage: Stage, tmp_path: Path) -> None:
    stage("plot", "attention", evaluated / "one", "--prompt", "to be", "-o", tmp_path / "figure.svg")
    drawn = (tmp_path / "figure.svg").read_text()
    for layer in (0, 1):
        for head in (0, 1):
            assert f"<!-- layer {layer}, head {head} -->" in drawn
    assert "<!-- layer 2" not in drawn


def test_the_lens_has_a_cell_for_every_layer_and_token_and_the_models_own_prediction_on_top(
    evaluated: Path, stage: Stage, tmp_path: Path
) -> None:
    seen = read_lens(evaluated / "one", "to be")
    assert [view.layer for view in seen.places[0]] == [0, 1, 2]
    model = Model.from_run(evaluated / "one", device="cpu")
    assert seen.places[-1][-1].top[0] == model.analyze("to be").next.alternatives[0]
    stage("plot", "lens", evaluated / "one", "--prompt", "to be", "-o", tmp_path / "figure.svg")
    drawn = (tmp_path / "figure.svg").read_text()
    cells = [visible(view.top[0].text, 80) for views in seen.places for view in views]
    for token in (*cells, *map(escape_mathtext, "to␣be"), "embeddings", "block 1", "the model"):
        assert f"<!-- {token} -->" in drawn


def test_a_token_is_drawn_with_its_spaces_in_the_room_that_it_has() -> None:
    assert [visible(token, 6) for token in (" a b", "\n", "\\xf0", " capital", "x")] == ["␣a␣b", "\\n", "\\xf0", "␣capi…", "x"]
    assert visible("abc", 1) == "a"


def test_a_lens_of_more_tokens_than_a_figure_has_room_for_is_refused(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lens, "_MOST_TOKENS", 5)
    assert len(read_lens(evaluated / "one", "to be").places) == 5
    with pytest.raises(MakegptError, match=r"--prompt has 6 tokens, and a lens of more than 5 is too wide to draw"):
        read_lens(evaluated / "one", "to be,")


@pytest.mark.parametrize("kind", ["bigram", "multi_head"])
def test_a_lens_is_refused_for_a_model_without_blocks(small: Path, stage: Stage, tmp_path: Path, kind: str) -> None:
    words = ["--config", kind, "--set", "model.context_length=32", *TINY]
    stage("train", small / "dataset", "-o", tmp_path / "run", *words)
    done = stage("plot", "lens", tmp_path / "run", "--prompt", "to be", "-o", tmp_path / "figure.svg", code=2)
    assert f"the model is a {kind}, which has no blocks for a lens to look between" in done.stderr


def test_what_the_font_or_the_formulas_would_choke_on_is_drawn(evaluated: Path, stage: Stage, tmp_path: Path) -> None:
    shutil.copytree(evaluated / "one", tmp_path / "costs $$")
    done = stage("plot", "attention", tmp_path / "costs $$", "--prompt", "a $$ b \\ 中\n\t", "-o", tmp_path / "figure.svg")
    assert done.stderr == ""
    done = stage("plot", "loss", tmp_path / "costs $$", evaluated / "two", "-o", tmp_path / "figure.svg")
    assert done.stderr == ""


def test_a_prompt_longer_than_the_context_is_refused(evaluated: Path, stage: Stage, tmp_path: Path) -> None:
    done = stage("plot", "attention", evaluated / "one", "--prompt", "x" * 40, "-o", tmp_path / "figure.svg", code=1)
    assert "40 tokens are more than the model's context of 32" in done.stderr


@pytest.mark.parametrize(("kind", "words"), [("attention", ["--prompt", "to be"]), ("ladder", [])])
def test_an_imported_run_is_summed_up(evaluated: Path, tmp_path: Path, here: Here, kind: str, words: list[str]) -> None:
    shutil.copytree(evaluated / "one", folder := tmp_path / "my run")
    manifest = finished_manifest(folder)
    metadata = {key: manifest.metadata[key] for key in ("parameters", "tokenizer")}
    imported = replace(manifest, stage=IMPORT_STAGE, parameters={}, inputs={}, metadata=metadata, sessions=())
    write_manifest(folder, imported)
    told = here("plot", kind, folder, *words, "--summary", "-o", tmp_path / "figure.svg").err
    assert told.startswith("my run: 42,688 parameters, imported\n")
    assert f"generate '{folder}' 'To be" in told
    assert "train.max_steps" not in told


def test_a_run_named_by_a_dot_is_summed_up_by_its_name_and_a_figure_in_it_is_told(
    evaluated: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(evaluated / "one", tmp_path / "one")
    monkeypatch.chdir(tmp_path / "one")
    told = here("plot", "loss", ".", "--summary", "-o", "loss.png").err
    assert told.startswith("one: 42,688 parameters, 12 steps, weights of step ")
    assert "evaluation.json, loss.png, metrics.jsonl)" in told


def test_no_figure_is_written_where_the_summary_cannot_be(small: Path, tmp_path: Path, here: Here) -> None:
    told = here("plot", "loss", small / "run", "--summary", "-o", tmp_path / "figure.svg", code=1).err
    assert "has not been evaluated; run `evaluate" in told
    assert not (tmp_path / "figure.svg").exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["loss"], "plot loss needs a trained run; name its folder"),
        (["attention", "a", "b"], "plot attention takes one run; remove b"),
        (["mask", "a"], "plot mask takes no run; use --config and --set; remove a"),
        (["ladder", "a", "--panels"], "--panels is for plot loss; plot ladder does not have it"),
        (["loss", "a", "--text", "b"], "--text is for plot tokens; plot loss does not have it"),
        (["gradients", "--summary"], "--summary is for plot loss, ladder, attention or lens; plot gradients does not have it"),
        (["mask"], "plot mask needs an output file; give -o FILE.png or -o FILE.svg"),
    ],
)
def test_a_kind_refuses_what_it_does_not_take(here: Here, words: list[str], complaint: str) -> None:
    assert complaint in here("plot", *words, code=2).err


def test_the_help_has_a_line_for_every_kind(here: Here) -> None:
    told = here("plot", "--help").out
    for kind in KINDS.values():
        line = next(line for line in told.splitlines() if line.split()[:1] == [kind.name])
        assert kind.takes.metavar in line
        assert line.endswith(kind.help)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--summary"], "--summary is for plot loss, ladder, attention or lens; plot tokens does not have it"),
        (["--text", "text", "--prompt", "to be"], "give --text or --prompt, not both"),
    ],
)
def test_an_option_that_plot_tokens_would_ignore_is_refused(small: Path, here: Here, words: list[str], complaint: str) -> None:
    assert complaint in here("plot", "tokens", small / "run", *words, code=2).err
