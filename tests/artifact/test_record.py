"""Dataclasses as JSON: what is written is read back, and what does not fit is named."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lib.artifact.jsonl import append_line, read_lines
from lib.artifact.record import Count, RecordError, from_json, to_json


@dataclass(frozen=True)
class Point:
    step: Count
    loss: float | None
    scale: tuple[float, Count] | None = None
    curve: tuple[tuple[Count, float], ...] = ()
    values: dict[str, float] = field(default_factory=dict)


POINTS = [Point(1, None), Point(2, 0.5, (2.0, 7), ((0, 1.5), (1, 1.0)), {"b": 1.0})]


def test_null_and_what_is_empty_are_written_unless_they_are_the_default() -> None:
    assert to_json(POINTS[0]) == {"step": 1, "loss": None}
    assert to_json(POINTS[1]) == {
        "step": 2,
        "loss": 0.5,
        "scale": [2.0, 7],
        "curve": [[0, 1.5], [1, 1.0]],
        "values": {"b": 1.0},
    }


def test_lines_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    for point in POINTS:
        append_line(tmp_path / "points.jsonl", point)
    assert read_lines(tmp_path / "points.jsonl", Point) == POINTS


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"step": -1}, "step must be a whole number of at least 0"),
        ({"step": True}, "step must be a whole number"),
        ({"scale": [1.0]}, "scale must be a list of 2"),
        ({"scale": [1.0, 2, 3]}, "scale must be a list of 2"),
        ({"scale": [1.0, 2.5]}, "scale.1 must be a whole number"),
        ({"curve": [[0, 1.0], [1, "low"]]}, "curve.1.1 must be a number"),
    ],
)
def test_the_field_that_does_not_fit_is_named(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecordError) as raised:
        from_json(Point, {"step": 1, "loss": None} | changes)
    assert str(raised.value) == problem


@pytest.mark.parametrize(
    ("line", "problem"),
    [("{}", "line 2: step is missing"), ("[", "line 2: not valid JSON"), ("3", "line 2: must be an object")],
)
def test_the_line_that_does_not_fit_is_named(tmp_path: Path, line: str, problem: str) -> None:
    (tmp_path / "points.jsonl").write_text(f'{{"step": 1, "loss": 1}}\n{line}\n')
    with pytest.raises(ValueError, match=problem):
        read_lines(tmp_path / "points.jsonl", Point)
