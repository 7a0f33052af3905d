"""The figure of the model ladder: bits/byte against parameters, with the baselines."""

import math
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox

from lib.config.schema import PlotConfig
from lib.errors import MakegptError
from lib.evaluate.comparison import ComparisonRow, comparison_headings, comparison_rows
from lib.plot.style import (
    GRAY,
    LINE_STYLES,
    blank_figure,
    edge_labels,
    escape_mathtext,
    format_count,
    plain_axes,
    strip_common_suffix,
)

#: Where a point's label may be: its offset in points and its alignment. The first free place is taken.
_PLACES = ((8, 0, "left", "center"), (-8, 0, "right", "center"), (0, 8, "center", "bottom"), (0, -8, "center", "top"))


def read_ladder(folders: Iterable[Path]) -> list[ComparisonRow]:
    """The rows of evaluated runs and of their baselines; MakegptError if the tokens of one have no bytes."""
    rows = comparison_rows(folders)
    for row in rows:
        if row.bits_per_byte is None:
            raise MakegptError(
                f"{row.name} was evaluated on {row.tokens} tokens that stand for no text, so it has no bits/byte"
            )
    return rows


def ladder_figure(rows: Sequence[ComparisonRow], config: PlotConfig) -> Figure:
    """Bits/byte against parameters, fewer bits are better; one panel for each scored text.

    `rows` in the order of `comparison_rows`: those of one text together.
    """
    texts = [list(rows) for _, rows in groupby(rows, key=lambda row: row.scored_on)]
    figure = blank_figure(config, across=1 if len(texts) == 1 else 0.75 * len(texts))
    headings = comparison_headings([rows[0] for rows in texts])
    for axes, text_rows, heading in zip(figure.subplots(1, len(texts), squeeze=False)[0], texts, headings, strict=True):
        _panel(axes, text_rows, heading)
    if len(texts) > 1:
        figure.supxlabel(
            "Each panel has another text, or other tokens of it: do not compare across panels.", fontsize=8, color=GRAY
        )
    return figure


@dataclass(frozen=True)
class _Point:
    name: str
    parameters: int
    bits: float


def _panel(axes: Axes, rows: list[ComparisonRow], heading: str) -> None:
    runs = [row for row in rows if row.parameters is not None]
    names, text = strip_common_suffix([run.name for run in runs])
    points = [_Point(name, run.parameters or 1, run.bits_per_byte or 0.0) for name, run in zip(names, runs, strict=True)]
    points.sort(key=lambda point: (point.parameters, point.bits))
    for number, point in enumerate(points):
        color, marker = LINE_STYLES[number % len(LINE_STYLES)]
        hollow = number // len(LINE_STYLES) % 2  # a second round of the same markers
        axes.plot(
            point.parameters,
            point.bits,
            color=color,
            marker=marker,
            markersize=9,
            markerfacecolor="white" if hollow else color,
            linestyle="none",
        )
    baselines = [(row.bits_per_byte or 0.0, row.name) for row in rows if row.parameters is None]
    for bits, _ in baselines:
        axes.axhline(bits, color=GRAY, linewidth=0.8, linestyle=(0, (5, 3)), zorder=1)
    _scale(axes, [point.parameters for point in points])
    axes.margins(y=0.06)
    plain_axes(axes)
    axes.set_xlabel("parameters")
    axes.set_ylabel("bits/byte (fewer are better)")
    title = f"{heading}, {rows[0].bytes:,} bytes"
    axes.set_title(escape_mathtext(f"{text.removeprefix(' on ')}: {title}" if text else title), fontsize=11)
    edge_labels(axes, [(bits, f"{name} {bits:.3f}") for bits, name in baselines])
    _label(axes, points)


def _scale(axes: Axes, parameters: list[int]) -> None:
    """A logarithmic scale that spans at least a factor of twenty, so that models of similar size are close to each other."""
    low, high = min(parameters), max(parameters)
    margin = max(0.5 * math.log10(20 / (high / low)), 0.12 * math.log10(high / low), 0.3)
    axes.set_xscale("log")
    axes.set_xlim(low * 10**-margin, high * 10**margin)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 100 else (1.0,)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(format_count))


def _label(axes: Axes, points: list[_Point]) -> None:
    """Label each point where the label covers no other label and no other point."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()  # lays the figure out: the transforms are final now
    centers = [axes.transData.transform((point.parameters, point.bits)) for point in points]
    radius = 7 * figure.dpi / 72
    taken = [Bbox.from_bounds(x - radius, y - radius, 2 * radius, 2 * radius) for x, y in centers]
    for point, own in zip(points, taken[:], strict=True):
        others = [box for box in taken if box is not own]
        for x, y, side, edge in _PLACES:
            label = axes.annotate(
                f"{escape_mathtext(point.name)}\n{point.bits:.3f}",
                (point.parameters, point.bits),
                xytext=(x, y),
                textcoords="offset points",
                ha=side,
                va=edge,
                fontsize=8,
                linespacing=1.1,
                bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
            )
            box = label.get_window_extent()
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
            if inside and not any(box.overlaps(other) for other in others):
                break
            if (x, y, side, edge) != _PLACES[-1]:
                label.remove()
        taken.append(box)
