"""Tables of numbers, boxes and arrows, for the pictures of the book. Lengths are in cells; y grows downwards."""

from typing import Sequence

import matplotlib.colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from lib.config.schema import PlotConfig
from lib.plot.style import GRAY, LINE_STYLES, blank_figure, escape_mathtext

BLUE, ORANGE, GREEN, PINK, YELLOW, BLACK = (color for color, _ in LINE_STYLES)
WHITE = "#FFFFFF"
#: Of numbers and words, in points.
SIZE = 9.0


def canvas(plot: PlotConfig, width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of the configured width, filled by empty axes of `width` × `height` cells; cells are square."""
    figure = blank_figure(plot, down=plot.width * height / width / plot.height)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    return figure, axes


def tint(color: str, fraction: float) -> str:
    """`color` mixed with white: 0 is white, 1 the color. Rounded, so that no last bit of `fraction` shows."""
    red, green, blue = matplotlib.colors.to_rgb(color)
    fraction = round(fraction, 2)
    mixed = (1 - fraction * (1 - red), 1 - fraction * (1 - green), 1 - fraction * (1 - blue))
    return matplotlib.colors.to_hex(mixed)


#: Fills that keep black text readable.
PALE = [tint(color, 0.3) for color in (BLUE, ORANGE, GREEN, PINK, YELLOW)]


def write(axes: Axes, x: float, y: float, text: str, *, color: str = BLACK, ha: str = "center", bold: bool = False) -> None:
    """A text around (x, y)."""
    weight = "bold" if bold else "normal"
    axes.text(x, y, escape_mathtext(text), ha=ha, va="center", color=color, fontsize=SIZE, fontweight=weight)


def cell(
    axes: Axes,
    x: float,
    y: float,
    text: str = "",
    *,
    face: str = WHITE,
    width: float = 1,
    height: float = 1,
    bold: bool = False,
) -> None:
    """A box with its upper left corner at (x, y)."""
    axes.add_patch(Rectangle((x, y), width, height, facecolor=face, edgecolor=GRAY, linewidth=0.8))
    dark = sum(matplotlib.colors.to_rgb(face)) < 1.5
    write(axes, x + width / 2, y + height / 2, text, color=WHITE if dark else BLACK, bold=bold)


def number(value: float) -> str:
    """A number as a picture shows it, with at most two digits after the point: 2, 0.5, −1.41."""
    return f"{value:.2f}".rstrip("0").rstrip(".").replace("-", "−")


def table(
    axes: Axes, x: float, y: float, values: Tensor, *, faces: Sequence[str] = (WHITE,), width: float = 1, name: str = ""
) -> None:
    """A matrix of numbers with its upper left corner at (x, y), a color per row, and its name below it."""
    for row, numbers in enumerate(values.tolist()):
        for column, value in enumerate(numbers):
            cell(axes, x + column * width, y + row, number(value), face=faces[row % len(faces)], width=width)
    write(axes, x + values.shape[1] * width / 2, y + len(values) + 0.45, name, color=GRAY)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], *, color: str = GRAY) -> None:
    """An arrow from `start` to `end`."""
    style = {"arrowstyle": "-|>", "color": color, "shrinkA": 0, "shrinkB": 0, "linewidth": 1.0}
    axes.annotate("", end, start, arrowprops=style)
