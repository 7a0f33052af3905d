"""Figures through matplotlib, in one plain style, readable in grey and by the colour-blind.

The same input gives the same bytes.
"""

import io
from pathlib import Path
from typing import Any, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from lib import artifact, files
from lib.config import PlotConfig
from lib.errors import UsageError

FORMATS = ("png", "svg")

#: Okabe and Ito's colours for all kinds of sight (2008), with a marker each for grey.
STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "v"), ("#E69F00", "D"), ("#000000", "x"))
#: What is not a run: baselines, and what stands beside a figure.
QUIET = "#595959"


def format_of(path: Path) -> str:
    """The format that the ending of `path` asks for, png or svg, png for a pipe without one; UsageError for any other."""
    ending = path.suffix.lstrip(".").lower()
    if not ending and files.check(path) is None:
        return "png"
    if ending not in FORMATS:
        raise UsageError(f"{path}: the ending tells the format; .png and .svg are known")
    return ending


def blank(config: PlotConfig, across: float = 1, down: float = 1) -> Figure:
    """An empty figure of the size asked for, or of so many times that size."""
    figure = Figure(figsize=(across * config.width, down * config.height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(text: str) -> str:
    """`text` as a figure can show it: no formula between dollars, and by its code what the font has no sign for."""
    signs = get_font(findfont(FontProperties())).get_charmap()
    shown = (c if ord(c) in signs and c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(shown).replace("$", r"\$")


def brief(names: Sequence[str]) -> tuple[list[str], str]:
    """Names of runs, `config-dataset`, less a dataset that all of several share, and that as words: "" or " on hamlet"."""
    parts = [name.partition("-") for name in names]  # no config has a "-" in its name
    datasets = {dataset for _, _, dataset in parts}
    if len(names) < 2 or len(datasets) != 1 or not all(config and dataset for config, _, dataset in parts):
        return list(names), ""
    return [config for config, _, _ in parts], f" on {min(datasets)}"


def short(number: float, _: Any = None) -> str:
    """A count in few letters: 250, 1.5k, 92k, 2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def quiet_grid(axes: Axes) -> None:
    """The grid of every figure that has one: seen where it is looked for, and not before."""
    axes.grid(alpha=0.25)


def plain_axes(axes: Axes) -> None:
    """A quiet grid, and no frame where there is no scale."""
    quiet_grid(axes)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """`wanted` places, lowest first, moved as little as may be so that they are `gap` apart between `low` and `high`.

    Neighbours that would touch stand around their common mean (isotonic regression by pooling, Barlow et al. 1972); where
    there is no room for all the gap is smaller.
    """
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    pools: list[tuple[float, int]] = []  # mean place of each pool's first label, how many it has
    for number, place in enumerate(wanted):
        mean, count = place - number * gap, 1
        while pools and pools[-1][0] > mean:
            before, several = pools.pop()
            mean, count = (mean * count + before * several) / (count + several), count + several
        pools.append((mean, count))
    firsts = [mean for mean, count in pools for _ in range(count)]
    ceiling = high - (len(wanted) - 1) * gap
    return [float(min(max(first, low), ceiling) + number * gap) for number, first in enumerate(firsts)]


def edge_labels(axes: Axes, labels: Sequence[tuple[float, str]], size: float = 8) -> None:
    """Write each text beside the height it belongs to, right of the axes, a thin line between where it had to move."""
    assert isinstance(axes.figure, Figure)
    axes.figure.draw_without_rendering()  # lays the figure out: the axes' height is known from here on
    frame = axes.get_window_extent()
    points = 72 / axes.figure.dpi
    labels = sorted(labels)
    at = [(axes.transData.transform((0, y))[1] - frame.y0) * points for y, _ in labels]
    for (y, text), here, there in zip(labels, at, spread(at, 1.25 * size, 0, frame.height * points), strict=True):
        axes.annotate(
            plain(text),
            (1, y),
            xycoords=axes.get_yaxis_transform(),
            xytext=(14, there - here),
            textcoords="offset points",
            va="center",
            fontsize=size,
            color=QUIET,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": QUIET, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)},
        )


def save(figure: Figure, path: Path, config: PlotConfig, provenance: dict[str, Any]) -> None:
    """Write `figure` whole, with its `provenance` in the file's metadata."""
    kind = format_of(path)
    note = artifact.canonical(provenance).encode("utf-8", "backslashreplace").decode()  # a folder's name may be no Unicode
    metadata = {"Software": None, "Description": note} if kind == "png" else {"Date": None, "Description": note}
    drawn = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "makegpt"}):
        figure.savefig(drawn, format=kind, dpi=config.dpi, metadata=metadata)
    artifact.write_bytes(path, drawn.getvalue())
