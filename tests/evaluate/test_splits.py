"""The test split in an evaluation: what is scored, what is counted, and what is said of it everywhere else."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lib.artifact.io import read_json
from lib.config.params import load_params, resolve_config
from lib.data.dataset import Dataset
from lib.evaluate.results import read_evaluation
from lib.evaluate.windows import total_nats
from lib.ngrams.counts import NGrams
from lib.ngrams.kneser_ney import KneserNey
from lib.plot.loss_curves import loss_figure, panels_figure, read_curves
from lib.report.page import report_page
from lib.report.summary import run_summary
from lib.run.folder import EVALUATION_FILE, load_run
from tests.conftest import TEXT, TINY, Here, Stage

CPU = torch.device("cpu")
FEW = ["--passages", 2, "--ngram-order", 3, "--set", "evaluate.overlap=0"]


@pytest.fixture(scope="module")
def tested(small: Path, tmp_path_factory: pytest.TempPathFactory, stage: Stage) -> Path:
    """A dataset/ with a test split over the tokens of `small`, and a run/ that was evaluated on it."""
    folder = tmp_path_factory.mktemp("tested")
    fractions = ["--val-fraction", 0.1, "--test-fraction", 0.25]
    stage("build-dataset", small / "tokens", "-o", folder / "dataset", "--config", "debug", *fractions)
    stage("train", folder / "dataset", "-o", folder / "run", "--config", "debug", *TINY)
    stage("evaluate", folder / "run", "--split", "test", "-o", folder / "run" / EVALUATION_FILE, *FEW)
    return folder


def test_the_test_split_is_scored_against_counts_of_the_training_split_alone(tested: Path) -> None:
    dataset, evaluation = Dataset(tested / "dataset"), read_evaluation(tested / "run")
    n = len(TEXT.encode())
    assert [dataset.train_tokens, dataset.val_tokens, dataset.test_tokens] == [2593, 399, 998]
    assert dataset.split("test") == (n - 998, n)
    assert (evaluation.split, evaluation.tokens, evaluation.bytes) == ("test", 997, 997)
    model = load_run(tested / "run", CPU).model
    nats = total_nats(model, dataset.tokens, n - 998, n, CPU)
    assert evaluation.loss == pytest.approx(nats / 997, rel=1e-6)
    counts = KneserNey(NGrams(dataset.tokens, [(0, dataset.train_tokens)], 3, 256))
    counted = sum(float(block["trigram"].sum()) for block in counts.nats(dataset.tokens, n - 997, n))
    assert evaluation.baselines["trigram"].loss == pytest.approx(counted / 997)
    assert evaluation.ngram_training_tokens
    assert evaluation.ngram_training_tokens.total == dataset.train_tokens


def test_what_is_copied_is_compared_with_the_split_that_is_evaluated(tested: Path, here: Here) -> None:
    memorization = {
        split: json.loads(here("evaluate", tested / "run", "--split", split, *FEW).out)["memorization"]
        for split in ("train", "val", "test")
    }
    assert [list(found)[2:] for found in memorization.values()] == [["validation"], ["validation"], ["test"]]
    assert memorization["test"]["test"]["passage"] in TEXT
    assert memorization["test"]["samples"] == memorization["val"]["samples"]


def test_two_runs_are_compared_on_the_test_split(tested: Path, here: Here) -> None:
    pair = json.loads(here("evaluate", tested / "run", "--split", "test", "--against", tested / "run").out)
    assert (pair["tokens"], pair["difference"]["loss"]) == (997, 0)
    lines = here("evaluate", tested / "run", "--split", "test", "--per-token").out.splitlines()
    assert len(lines) == 997
    loss = read_evaluation(tested / "run").loss
    assert -sum(json.loads(line)["logprob"] for line in lines) / 997 == pytest.approx(loss, rel=1e-4)


def test_a_dataset_without_a_test_split_is_refused_with_what_to_run(small: Path, here: Here) -> None:
    message = here("evaluate", small / "run", "--split", "test", code=1).err
    assert f"{small}/dataset has no test split; build a dataset that has one, `build-dataset TOKENS -o DATASET" in message
    assert "--context-length 32 --val-fraction 0.2 --test-fraction 0.1`, and train on it" in message


def test_tokens_of_a_held_out_split_that_the_run_was_trained_on_are_counted(
    small: Path, tested: Path, here: Here, tmp_path: Path
) -> None:
    def notices(run: Path, *words: Any) -> list[str]:
        errors = here("evaluate", run, *words, "--passages", 0, "--ngram-order", 1).err
        return [line for line in errors.splitlines() if "was trained on" in line]

    dataset = tested / "dataset"  # of 3,990 tokens, the run of `small` was trained on the first 3,192
    (notice,) = notices(small / "run", dataset, "--split", "test")
    assert notice.endswith("run was trained on 200 of the 998 tokens of this split")
    (notice,) = notices(small / "run", dataset, "--split", "val")
    assert notice.endswith("run was trained on 399 of the 399 tokens of this split")
    assert notices(small / "run", dataset, "--split", "train") == []
    assert notices(tested / "run", "--split", "test") == []
    assert notices(tested / "run", small / "dataset", "--split", "val") == [], "its own training split ends before that one"
    shutil.copytree(small / "run", tmp_path / "run")
    (notice,) = notices(tmp_path / "run", dataset, "--split", "test")
    assert notice.endswith("run was trained on another dataset of the same text, which may hold tokens of this split")


def test_runs_evaluated_on_different_splits_are_in_tables_of_their_own(tested: Path, here: Here, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(tested / "run", again)
    here("evaluate", again, tested / "dataset", "-o", again / EVALUATION_FILE, *FEW)
    rows = here("compare", tested / "run", again).out
    assert rows.index("test split, 997 tokens") < rows.index("val split, 398 tokens")
    assert "\ntest split, 997 tokens " in run_summary(tested / "run", tmp_path / "loss.png")


def test_curves_say_why_they_have_no_baselines(tested: Path) -> None:
    (curve,) = read_curves([tested / "run"])
    loss = read_evaluation(tested / "run").loss
    reason = f"Baselines are left out: the run was evaluated on its test split, where its loss is {loss:.3f} nats/token."
    assert (curve.baselines, curve.text, curve.note) == ({}, None, reason)
    plot = resolve_config(load_params()).plot
    assert loss_figure([curve], plot).get_supxlabel() == reason
    assert panels_figure([curve], plot).get_supxlabel() == reason
    several = "Without baselines, since not evaluated on their validation splits: run, run."
    assert loss_figure([curve, curve], plot).get_supxlabel() == several
    page = report_page([tested / "run"])
    assert reason in page
    assert "test text, for comparison" in page
    assert "test split, 997 tokens, 997 bytes; the best first" in page


def test_a_dataset_says_how_many_tokens_it_holds_out_for_test(small: Path, tested: Path, here: Here, tmp_path: Path) -> None:
    assert "\ntest_tokens: 998\n" in here("inspect", tested / "dataset").out
    said = here("build-dataset", small / "tokens", "-o", tmp_path / "d", "--config", "debug", "--test-fraction", 0.1).err
    assert said.endswith("399 validation tokens, 399 test tokens\n")
    assert read_json(tmp_path / "d" / "dataset.json")["test_tokens"] == 399
