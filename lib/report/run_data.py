"""A run as a report sees it, and what all sections of a report are made with."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Sequence, TypeVar

from markupsafe import Markup
from matplotlib.figure import Figure

from lib.artifact.manifest import MANIFEST
from lib.artifact.record import Count, RecordError, from_json
from lib.errors import MakegptError
from lib.evaluate.run_view import RunView
from lib.report.html import visible_text
from lib.report.svg import inline_svg

T = TypeVar("T")

MAX_LINES = 12  # of samples and of metrics


@dataclass(frozen=True)
class _TrainSection:
    max_steps: Count


@dataclass(frozen=True)
class _Parameters:
    """What the sections need from the parameters of a training."""

    train: _TrainSection


@dataclass(frozen=True)
class RunData(RunView):
    """A finished run in a report, where its `id` is unique."""

    id: str

    @cached_property
    def max_steps(self) -> int:
        """The steps of its training; MakegptError if its manifest does not say, as that of an imported run."""
        try:
            return from_json(_Parameters, self.manifest.parameters, "parameters").train.max_steps
        except RecordError as error:
            raise MakegptError(f"{self.folder / MANIFEST} is damaged: {error}; train the run again") from None


def read_run_data(folder: Path, number: int) -> RunData:
    """The finished run in `folder`, the one of this `number` in a report; MakegptError if one of its files is damaged."""
    run = RunData(folder, f"run-{number}")
    # read now: a damaged file must not end half a page
    _ = run.imported or run.max_steps, run.evaluation, run.metrics, run.samples
    return run


@dataclass(frozen=True)
class Missing:
    """Something that a report would show and does not have, with the command that makes it."""

    text: str
    command: str = ""


@dataclass(frozen=True)
class Chart:
    """A figure to stand inside a page."""

    svg: Markup
    caption: str


def draw_chart(figure: Figure, id: str, caption: str, description: str | None = None) -> Chart:
    """`figure` with its caption; `description`, by default the caption, is for readers who cannot see it."""
    return Chart(Markup(inline_svg(figure, id, visible_text(description or caption))), caption)


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], marked: Sequence[str] = ()) -> dict[str, Any]:
    """The arguments of the template's table: the first column names each row; rows named in `marked` stand out."""
    return {"caption": caption, "head": head, "rows": rows, "marked": marked}


def format_number(value: float | None, form: str, error: float | None = None) -> str:
    """A number with its standard error if that is known; a dash for None."""
    if value is None:
        return "–"
    return f"{value:{form}}" + (f" ± {error:{form}}" if error is not None else "")


def thin_lines(lines: list[T]) -> list[T]:
    """At most `MAX_LINES` of the lines, evenly spaced, with the first and the last."""
    if len(lines) <= MAX_LINES:
        return lines
    return [lines[round(number * (len(lines) - 1) / (MAX_LINES - 1))] for number in range(MAX_LINES)]
