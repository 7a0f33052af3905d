"""An objective may have other numbers than its loss: they are means over the whole batch, and get into metrics.jsonl."""

from pathlib import Path
from typing import Any

import pytest

from lib.data.dataset import Dataset
from lib.run.metrics import read_metrics
from lib.train import tasks
from lib.train.next_token import NextToken
from lib.train.objective import BatchLoss, Validation
from lib.train.trainer import Trainer
from tests.train.test_loop import CPU, config, train, trainer


class Counted(NextToken):
    """Also counts the rows of each batch, and says what it was validated on."""

    def loss(self, step: int, rows: range) -> BatchLoss:
        return BatchLoss(super().loss(step, rows).loss, {"rows": float(len(rows)), "first": float(min(rows) == 0)})

    def validate(self) -> Validation:
        return Validation(super().validate().loss, {"rows": 7.0})


def counted_trainer(small: Path, **changes: Any) -> Trainer:
    return Trainer(Counted(trainer(small).model, Dataset(small / "dataset"), config(**changes).train, CPU))


@pytest.mark.parametrize("pieces", [1, 2, 4])
def test_values_are_means_over_the_terms_of_the_whole_batch_however_it_is_cut(small: Path, pieces: int) -> None:
    counted = counted_trainer(small, grad_accum_steps=pieces)
    terms = counted.objective.terms(0)
    assert counted.train_step().values == {"rows": pytest.approx(4 / terms), "first": pytest.approx(1 / terms)}


def test_values_are_lines_of_the_metrics(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tasks._OBJECTIVES, "text", Counted)
    train(tmp_path / "run", small, config(max_steps=4, eval_interval=4))
    lines = read_metrics(tmp_path / "run")
    assert [sorted(line.values) for line in lines] == [["val_rows"], *[["first", "rows"]] * 3, ["first", "rows", "val_rows"]]
    assert lines[-1].values["val_rows"] == 7.0


def test_a_training_without_other_values_writes_none(small: Path) -> None:
    assert b"values" not in (small / "run" / "metrics.jsonl").read_bytes()
