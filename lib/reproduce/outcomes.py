"""Published numbers compared with our own measurements: the outcome of each row, and a table of them."""

import time
from dataclasses import asdict, dataclass
from typing import Any, Iterable, Iterator

from lib.reproduce.checks import CHECKS, CheckContext, MissingInput
from lib.reproduce.references import Reference, Value

PASS, FAIL, NOT_CHECKED = "pass", "FAIL", "not checked"

_WIDEST = 47  # characters of a value: eight numbers of five; longer ones are cut


@dataclass(frozen=True)
class Outcome:
    """The outcome of a row, measured in `seconds`. If it was not measured, `measured` is None and `reason` says why."""

    reference: Reference
    measured: tuple[Value, ...] | None
    reason: str | None
    seconds: float

    @property
    def result(self) -> str:
        """PASS, FAIL or NOT_CHECKED."""
        if self.measured is None:
            return NOT_CHECKED
        return PASS if self.reference.agrees(self.measured) else FAIL

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        row = {key: value for key, value in asdict(self.reference).items() if key not in ("decimals", "not_checked")}
        return row | {"measured": self.measured, "result": self.result, "reason": self.reason, "seconds": self.seconds}


def measure_references(rows: Iterable[Reference], context: CheckContext) -> Iterator[Outcome]:
    """Measure the rows one by one."""
    for row in rows:
        start = time.monotonic()
        measured, reason = None, row.not_checked
        if row.check is not None:
            try:
                measured = tuple(CHECKS[row.check](context, **row.arguments))
            except MissingInput as error:
                reason = str(error)
        yield Outcome(row, measured, reason, time.monotonic() - start)


def outcome_table(outcomes: list[Outcome]) -> list[str]:
    """A table of the measured rows, then the rows that were not measured, with the reasons."""
    head = ("", "row", "expected", "measured", "tolerance", "source")
    cells = [
        (
            outcome.result,
            row.name,
            format_value(row.expected, row),
            format_value(outcome.measured, row),
            f"{row.tolerance:g}" if row.tolerance else "exact",
            row.source,
        )
        for outcome in outcomes
        if outcome.measured is not None
        for row in [outcome.reference]
    ]
    widths = [max(len(line[column]) for line in [head, *cells]) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in [head, *cells]]
    unmeasured = [outcome for outcome in outcomes if outcome.measured is None]
    width = max((len(outcome.reference.name) for outcome in unmeasured), default=0)
    lines = lines if cells else []
    lines += ["", "not checked:"] if unmeasured and cells else ["not checked:"] if unmeasured else []
    return lines + [f"  {outcome.reference.name:<{width}}  {outcome.reason}" for outcome in unmeasured]


def format_value(values: tuple[Value, ...], row: Reference) -> str:
    """Values with as many decimals as the published ones; long ones are cut."""
    if len(values) == 1 and isinstance(values[0], int):
        return f"{values[0]:,}"
    text = " ".join(_number(value, row.decimals) if isinstance(value, float) else str(value) for value in values).strip()
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


def _number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}" if decimals or value >= 0.5 else f"{value:.1g}"
