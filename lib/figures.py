"""Figures through matplotlib, in one plain style, readable in grey and by the colour-blind.

The same input gives the same bytes.
"""

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from lib import artifact
from lib.config import PlotConfig
from lib.errors import UsageError

FORMATS = ("png", "svg")

#: Okabe and Ito's colours for all kinds of sight (2008), with a marker each for grey.
STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "v"), ("#E69F00", "D"), ("#000000", "x"))
_BASELINE = "#666666"
_DASHES = ((0, (6, 3)), (0, (2, 2)), (0, (6, 2, 1, 2)), (0, (1, 1)), (0, (8, 2)), (0, (3, 5)), (0, (10, 2, 1, 2)))


@dataclass(frozen=True)
class Curve:
    """What one run's loss figure shows: its name, its metrics, its baselines (name -> loss) where it was evaluated."""

    name: str
    metrics: list[dict[str, Any]]
    baselines: dict[str, float]


def format_of(path: Path) -> str:
    """The format that the ending of `path` asks for, png or svg; UsageError for any other."""
    ending = path.suffix.lstrip(".").lower()
    if ending not in FORMATS:
        raise UsageError(f"{path}: the ending tells the format; .png and .svg are known")
    return ending


def blank(config: PlotConfig) -> Figure:
    """An empty figure of the size asked for."""
    figure = Figure(figsize=(config.width, config.height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(text: str) -> str:
    """`text` as a figure can show it: no formula between dollars, and by its code what the font has no sign for."""
    signs = get_font(findfont(FontProperties())).get_charmap()
    shown = (c if ord(c) in signs and c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(shown).replace("$", r"\$")


def loss_figure(curves: list[Curve], config: PlotConfig, legend_below: bool = False) -> Figure:
    """Validation loss by step, the best one marked, and baselines as lines, unless the runs have different ones.

    Of a single run the training loss is shown as well; of several the legend stands beside, or below.
    """
    figure = blank(config)
    axes = figure.add_subplot()
    alone = len(curves) == 1
    for curve, (colour, marker) in zip(curves, STYLES * (1 + len(curves) // len(STYLES)), strict=False):
        trained = [(m["step"], m["train_loss"]) for m in curve.metrics if m["train_loss"] is not None]
        validated = [(m["step"], m["val_loss"]) for m in curve.metrics if m["val_loss"] is not None]
        best = min(validated[1:] or validated, key=lambda point: point[1])
        if alone:
            axes.plot(*zip(*trained, strict=True), color=colour, linewidth=0.8, alpha=0.5, label="training, by batch")
        label = "validation" if alone else f"{plain(curve.name)} {best[1]:.3f}"
        axes.plot(*zip(*validated, strict=True), color=colour, marker=marker, markersize=4, label=label)
        axes.plot(*best, marker="*", markersize=13, color=colour, markeredgecolor="black", linestyle="none")
        if alone:
            axes.annotate(f"{best[1]:.3f}", best, textcoords="offset points", xytext=(0, 9), ha="center", fontsize=9)
    shared = curves[0].baselines if all(curve.baselines == curves[0].baselines for curve in curves) else {}
    for number, (name, loss) in enumerate(shared.items()):
        axes.axhline(loss, color=_BASELINE, linewidth=1.0, linestyle=_DASHES[number % len(_DASHES)], label=f"{name} {loss:.3f}")
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel("loss (nats a token)" if alone else "validation loss (nats a token)")
    axes.set_title(plain(curves[0].name) if alone else f"{len(curves)} runs")
    axes.grid(alpha=0.25)
    if alone:
        axes.legend(fontsize=8)
    else:
        figure.legend(fontsize=8, loc="outside lower left" if legend_below else "outside right upper")
    return figure


def position_figure(bands: list[dict[str, Any]], config: PlotConfig) -> Figure:
    """The mean loss by where in its window a token stands; `bands`: positions `from` and `to`, from 1 on, and `loss`."""
    figure = blank(config)
    axes = figure.add_subplot()
    colour, marker = STYLES[0]
    for band in bands:
        axes.plot([band["from"], band["to"]], [band["loss"]] * 2, color=colour, linewidth=3, alpha=0.5, solid_capstyle="butt")
    centres = [(band["from"] * band["to"]) ** 0.5 for band in bands]
    axes.plot(centres, [band["loss"] for band in bands], color=colour, marker=marker, markersize=4)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel("position in the window")
    axes.set_ylabel("loss (nats a token)")
    axes.grid(alpha=0.25)
    return figure


_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"

#: The colours of a figure as a page names them, which has a light and a dark version of each.
_PAGES = {colour.lower(): f"var(--line-{number})" for number, (colour, _) in enumerate(STYLES, 1)} | {
    "#000000": "currentColor",
    "#ffffff": "var(--paper)",
    "#cccccc": "var(--rule)",
    "#b0b0b0": "var(--quiet)",
    _BASELINE: "var(--quiet)",
}


def inline(figure: Figure, name: str, description: str) -> str:
    """`figure` as SVG to stand inside a page: text as text, in the page's colours, with ids that begin with `name`."""
    drawn = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "makegpt", "svg.fonttype": "none"}):
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(drawn.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{_SVG}metadata" or (child.tag == f"{_SVG}defs" and child.find(f"{_SVG}style") is not None):
                parent.remove(child)
    for part in root.iter():
        part.tag = part.tag.removeprefix(_SVG)
        if link := part.attrib.pop(_XLINK, None):
            part.set("href", f"#{name}-{link[1:]}")
        for key, value in part.attrib.items():
            if key == "id":
                part.set(key, f"{name}-{value}")
            elif key == "style":
                part.set(key, re.sub(r"#[0-9a-f]{6}", lambda found: _PAGES.get(found[0], found[0]), value))
            elif value.startswith("url(#"):
                part.set(key, f"url(#{name}-{value[5:]}")
    root.attrib = {"viewBox": root.attrib["viewBox"], "class": "chart", "role": "img", "aria-label": description}
    return ElementTree.tostring(root, encoding="unicode")


def save(figure: Figure, path: Path, config: PlotConfig, provenance: dict[str, Any]) -> None:
    """Write `figure` whole, with its `provenance` in the file's metadata."""
    kind = format_of(path)
    note = artifact.canonical(provenance)
    metadata = {"Software": None, "Description": note} if kind == "png" else {"Date": None, "Description": note}
    with artifact.replacing(path) as beside, matplotlib.rc_context({"svg.hashsalt": "makegpt"}):
        figure.savefig(beside, format=kind, dpi=config.dpi, metadata=metadata)
