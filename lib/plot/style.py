"""Figures through matplotlib, in one plain style, readable in gray and by the color-blind.

The same input gives the same bytes: an SVG on every processor, a PNG on one.
"""

import io
from pathlib import Path
from typing import Any, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from lib.artifact.files import check_writable
from lib.artifact.io import canonical_json, write_bytes
from lib.config.schema import PlotConfig
from lib.errors import UsageError
from lib.plot.svg import normalize_svg

FIGURE_FORMATS = ("png", "svg")

#: Okabe and Ito's colors for all kinds of sight (2008), with a marker each for gray.
LINE_STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "v"), ("#E69F00", "D"), ("#000000", "x"))
#: The longest side of a PNG that matplotlib draws, and the number of pixels that take 1 GB of memory.
_MAX_SIDE, _MAX_PIXELS = (1 << 16) - 1, 1 << 28

#: For what is not a run: baselines, and notes outside the axes.
GRAY = "#595959"


def figure_format(path: Path) -> str:
    """The format given by the suffix of `path`, png or svg; png for a pipe without a suffix."""
    suffix = path.suffix.lstrip(".").lower()
    if not suffix and check_writable(path) is None:
        return "png"
    if suffix not in FIGURE_FORMATS:
        raise UsageError(f"{path}: unknown format; the name must end in .png or .svg")
    return suffix


def blank_figure(config: PlotConfig, across: float = 1, down: float = 1) -> Figure:
    """An empty figure of the configured size, times `across` and `down`."""
    figure = Figure(figsize=(across * config.width, down * config.height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def escape_mathtext(text: str) -> str:
    """`text` as a figure can show it: no formula between dollars; a character that the font lacks becomes its code."""
    glyphs = get_font(findfont(FontProperties())).get_charmap()
    characters = (c if ord(c) in glyphs and c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(characters).replace("$", r"\$")


def strip_common_suffix(names: Sequence[str]) -> tuple[list[str], str]:
    """Names of runs, `config-dataset`, without a dataset that all share, and that dataset in words: "" or " on hamlet"."""
    parts = [name.partition("-") for name in names]  # no config has a "-" in its name
    datasets = {dataset for _, _, dataset in parts}
    if len(names) < 2 or len(datasets) != 1 or not all(config and dataset for config, _, dataset in parts):
        return list(names), ""
    return [config for config, _, _ in parts], f" on {min(datasets)}"


def format_count(number: float, _: Any = None) -> str:
    """A count in short form: 250, 1.5k, 92k, 2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def light_grid(axes: Axes) -> None:
    """The faint grid of every figure that has one."""
    axes.grid(alpha=0.25)


def plain_axes(axes: Axes) -> None:
    """A faint grid, and no frame on the sides without a scale."""
    light_grid(axes)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def spread_labels(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """`positions`, lowest first, moved as little as possible so that they are `gap` apart and between `low` and `high`.

    Neighbors that would touch are placed around their common mean (isotonic regression by pooling, Barlow et al. 1972). If
    there is no room for all, the gap is smaller.
    """
    gap = min(gap, (high - low) / max(1, len(positions) - 1))
    pools: list[tuple[float, int]] = []  # mean position of each pool's first label, and how many labels it has
    for number, position in enumerate(positions):
        mean, count = position - number * gap, 1
        while pools and pools[-1][0] > mean:
            lower_mean, lower_count = pools.pop()
            mean = (mean * count + lower_mean * lower_count) / (count + lower_count)
            count += lower_count
        pools.append((mean, count))
    firsts = [mean for mean, count in pools for _ in range(count)]
    ceiling = high - (len(positions) - 1) * gap
    return [float(min(max(first, low), ceiling) + number * gap) for number, first in enumerate(firsts)]


def edge_labels(axes: Axes, labels: Sequence[tuple[float, str]], size: float = 8) -> None:
    """Write each text to the right of the axes at its height, with a thin line to that height if the text had to move."""
    assert isinstance(axes.figure, Figure)
    axes.figure.draw_without_rendering()  # lays the figure out: the height of the axes is known now
    frame = axes.get_window_extent()
    points = 72 / axes.figure.dpi
    labels = sorted(labels)
    heights = [(axes.transData.transform((0, y))[1] - frame.y0) * points for y, _ in labels]
    moved = spread_labels(heights, 1.25 * size, 0, frame.height * points)
    for (y, text), height, new_height in zip(labels, heights, moved, strict=True):
        axes.annotate(
            escape_mathtext(text),
            (1, y),
            xycoords=axes.get_yaxis_transform(),
            xytext=(14, new_height - height),
            textcoords="offset points",
            va="center",
            fontsize=size,
            color=GRAY,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": GRAY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)},
        )


def save_figure(figure: Figure, path: Path, config: PlotConfig, provenance: dict[str, Any]) -> None:
    """Write `figure` atomically, with its `provenance` in the file's metadata."""
    kind = figure_format(path)
    note = (
        canonical_json(provenance).encode("utf-8", "backslashreplace").decode()
    )  # the name of a folder may be invalid Unicode
    metadata = {"Software": None, "Description": note} if kind == "png" else {"Date": None, "Description": note}
    width, height = (round(inches * config.dpi) for inches in figure.get_size_inches())
    picture = f"{path}: an image of {width:,} × {height:,} pixels"
    if kind == "png" and (max(width, height) > _MAX_SIDE or width * height > _MAX_PIXELS):
        raise UsageError(f"{picture} is too large; give a smaller --width, --height or --dpi, or an .svg")
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "makegpt"}):
        try:
            figure.savefig(buffer, format=kind, dpi=config.dpi, metadata=metadata)
        except RuntimeError:  # FreeType draws no letter that is smaller than a pixel
            raise UsageError(f"{picture} is too small for its letters; give a larger --width, --height or --dpi") from None
    content = buffer.getvalue()
    write_bytes(path, normalize_svg(content.decode()).encode() if kind == "svg" else content)
