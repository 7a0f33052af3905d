"""`make spam`: from labeled texts, and maybe pretrained weights, to a classifier, its evaluation and its figure."""

from pathlib import Path

import pytest

from lib.pipeline.steps import build_pipeline
from tests.pipeline.test_make import make, project
from tests.train.test_classes import labeled_csv

CONFIG = """
  tiny:
    extends: debug
    build-dataset: {val_fraction: 0.2, test_fraction: 0.2, balance: true}
    train: {task: classify, max_steps: 4, eval_interval: 2}
    evaluate: {split: test}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with labeled texts and the config above."""
    folder = project(tmp_path_factory.mktemp("spam") / "project")
    (folder / "texts.csv").write_text(labeled_csv(40))
    params = (folder / "params.yaml").read_text(encoding="utf-8").replace("configs:\n", f"configs:{CONFIG}", 1)
    (folder / "params.yaml").write_text(params, encoding="utf-8")
    return folder


def stages_of(folder: Path, change: str = "") -> list[str]:
    """The stages that `make -n` or make runs up to the figure."""
    done = make(folder, "plot", CONFIG="tiny", TEXT="texts.csv", SET=change)
    lines = [line for line in done.stdout.splitlines() if line.startswith(".venv/bin/")]
    return [line.split()[0].removeprefix(".venv/bin/") for line in lines]


def test_every_stage_runs_once_and_a_change_runs_what_depends_on_it(folder: Path) -> None:
    assert stages_of(folder) == ["tokenize", "build-dataset", "train", "evaluate", "plot"]
    (run,) = (folder / "artifacts" / "runs").iterdir()
    assert {"model.safetensors", "evaluation.json", "classes.png"} <= {entry.name for entry in run.iterdir()}
    assert len(list((folder / "artifacts" / "plots").iterdir())) == 1
    assert stages_of(folder) == []
    assert make(folder, "spam", CONFIG="tiny", TEXT="texts.csv").stdout == ""
    assert stages_of(folder, "evaluate.split=val") == ["evaluate", "plot"]
    assert stages_of(folder, "build-dataset.seed=7") == ["build-dataset", "train", "evaluate", "plot"]


def test_spam_begins_with_pretrained_weights_and_its_small_twin_does_not() -> None:
    spam, small = (build_pipeline(name, "sms_spam", "", "") for name in ("spam", "spam_small"))
    assert spam.base is not None
    assert spam.base.name == "smollm2"
    assert small.base is None
    assert "tokenize.tokenizer" in small.step("tokenize").parameters
    assert "tokenize.tokenizer" not in spam.step("tokenize").parameters
    assert [step.stage for step in spam.steps] == ["tokenize", "build-dataset", "train", "evaluate", "plot"]


def test_other_datasets_do_not_depend_on_what_is_for_labeled_texts() -> None:
    assert "build-dataset.balance" not in build_pipeline("debug", "hamlet", "", "").step("build-dataset").parameters
