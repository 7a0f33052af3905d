"""Evaluated runs beside each other and beside their baselines, as rows and as a table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable

from lib import run


@dataclass(frozen=True)
class Row:
    """A run or a baseline, and how well it predicts: loss in nats a token, seconds of training."""

    name: str
    split: str
    loss: float
    perplexity: float | None
    bits_per_byte: float | None
    parameters: int | None = None  # None for a baseline
    seconds: float | None = None


def rows(folders: Iterable[Path]) -> list[Row]:
    """The evaluated runs in `folders` and, each once, the baselines they were evaluated beside; the best first.

    The order is by bits a byte, which do not depend on what a token is; by loss where the bytes of a text are not known.
    """
    found: dict[Row, None] = {}
    for folder in folders:
        facts = run.finished_manifest(folder)["facts"]
        evaluation = run.read_evaluation(folder)
        split = evaluation["split"]
        found[_row(folder.resolve().name, split, evaluation, facts["parameters"], run.seconds(folder))] = None
        for name, scores in evaluation["baselines"].items():
            found[_row(name if name == "uniform" else f"counted {name}", split, scores)] = None
    return sorted(found, key=lambda row: row.loss if row.bits_per_byte is None else row.bits_per_byte)


def _row(name: str, split: str, scores: dict[str, Any], parameters: int | None = None, seconds: float | None = None) -> Row:
    return Row(name, split, scores["loss"], scores["perplexity"], scores["bits_per_byte"], parameters, seconds)


def table(rows: list[Row]) -> list[str]:
    """The rows as lines of text under a head; a dash where there is no number."""
    splits = {row.split for row in rows}
    head = f"{rows[0].split} split" if len(splits) == 1 else "several splits"
    width = max(len(name) for name in (head, *(row.name for row in rows)))
    lines = [f"{head:<{width}}  parameters  nats a token  perplexity  bits a byte  seconds"]
    for row in rows:
        columns = (
            (row.parameters, 12, ","),
            (row.loss, 14, ".3f"),
            (row.perplexity, 12, ",.1f"),
            (row.bits_per_byte, 13, ".3f"),
            (row.seconds, 9, ",.0f"),
        )
        cells = (f"{'-' if value is None else format(value, form):>{size}}" for value, size, form in columns)
        lines.append(f"{row.name:<{width}}" + "".join(cells))
    return lines
