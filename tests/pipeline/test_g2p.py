"""`make g2p`: from a pronunciation dictionary to an encoder-decoder, its evaluation and its figure."""

from pathlib import Path

import pytest

from lib.pipeline.steps import build_pipeline
from tests.evaluate.test_translation import DICTIONARY
from tests.pipeline.test_make import make, project

CONFIG = """
  tiny:
    extends: g2p
    model: {emb_dim: 16, n_layers: 1}
    train: {max_steps: 4, eval_interval: 2, sample_interval: null, batch_size: 8}
    plot: {prompt: took}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with a dictionary and the config above."""
    folder = project(tmp_path_factory.mktemp("g2p") / "project")
    (folder / "words.dict").write_text(DICTIONARY)
    params = (folder / "params.yaml").read_text(encoding="utf-8").replace("configs:\n", f"configs:{CONFIG}", 1)
    (folder / "params.yaml").write_text(params, encoding="utf-8")
    return folder


def stages_of(folder: Path, change: str = "") -> list[str]:
    """The stages that make runs up to the figure."""
    done = make(folder, "plot", CONFIG="tiny", TEXT="words.dict", SET=change)
    lines = [line for line in done.stdout.splitlines() if line.startswith(".venv/bin/")]
    return [line.split()[0].removeprefix(".venv/bin/") for line in lines]


def test_every_stage_runs_once_and_a_change_runs_what_depends_on_it(folder: Path) -> None:
    assert stages_of(folder) == ["tokenize", "build-dataset", "train", "evaluate", "plot"]
    (run,) = (folder / "artifacts" / "runs").iterdir()
    assert {"model.safetensors", "evaluation.json", "attention.png"} <= {entry.name for entry in run.iterdir()}
    assert stages_of(folder) == []
    assert stages_of(folder, "evaluate.split=val") == ["evaluate", "plot"]
    assert stages_of(folder, "build-dataset.val_fraction=0.1") == ["build-dataset", "train", "evaluate", "plot"]


def test_words_and_reversed_strings_are_parallel_texts() -> None:
    for config, dataset in (("g2p", "cmudict"), ("reverse_text", "reverse")):
        pipeline = build_pipeline(config, dataset, "", "")
        assert pipeline.layout == "parallel"
        assert pipeline.conversations is None
        assert "build-dataset.balance" not in pipeline.step("build-dataset").parameters
        assert [step.stage for step in pipeline.steps] == ["tokenize", "build-dataset", "train", "evaluate", "plot"]
    assert build_pipeline("exercises", "reverse", "", "").conversations == "messages"
