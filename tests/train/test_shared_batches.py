"""Pairs and questions, divided between two processes: they do what one process does with the same two pieces."""

from pathlib import Path

import pytest

from lib.run.metrics import read_metrics
from tests.conftest import Here
from tests.device.test_distributed import train_forked
from tests.train.answers import SETTINGS, base_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.mark.parametrize(("task", "data"), [("dpo", "pairs"), ("grpo", "right")])
def test_two_processes_do_what_two_pieces_do(task: str, data: str, folder: Path, here: Here) -> None:
    words = ["--init-from", base_run(folder, here), "--task", task, *SETTINGS, "--set", "train.answer_tokens=6"]
    words += ["--set", "train.max_steps=3", "--set", "train.eval_interval=0"]
    processes = train_forked(2, folder / data, folder / f"{task}-two", *map(str, words))
    assert [code for code, _ in processes] == [0, 0], processes
    here("train", folder / data, "-o", folder / f"{task}-pieces", *words, "--set", "train.grad_accum_steps=2")
    two, pieces = (read_metrics(folder / f"{task}-{name}") for name in ("two", "pieces"))
    assert len(two) == len(pieces) == 4
    for ours, theirs in zip(two, pieces, strict=True):
        losses = [[line.train_loss or 0.0, line.val_loss or 0.0] for line in (ours, theirs)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4, abs=1e-6)
        assert ours.values == pytest.approx(theirs.values, rel=1e-3, abs=1e-5)
