"""Figures through matplotlib, in one plain style, readable in grey and by the colour-blind.

The same input gives the same bytes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lib import artifact
from lib.config import PlotConfig
from lib.errors import UsageError

FORMATS = ("png", "svg")

#: Okabe and Ito's colours for all kinds of sight (2008), with a line style each for grey.
STYLES = (("#0072B2", "-"), ("#D55E00", "-"), ("#009E73", "-"), ("#CC79A7", "-"), ("#E69F00", "-"), ("#000000", "-"))
_BASELINE = "#666666"
_DASHES = ((0, (6, 3)), (0, (2, 2)), (0, (6, 2, 1, 2)), (0, (1, 1)), (0, (8, 2)), (0, (3, 5)))


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


def loss_figure(curves: list[Curve], config: PlotConfig) -> Figure:
    """Validation loss by step, the best one marked, and baselines as lines; of a single run the training loss as well."""
    figure = blank(config)
    axes = figure.add_subplot()
    alone = len(curves) == 1
    for curve, (colour, style) in zip(curves, STYLES * (1 + len(curves) // len(STYLES)), strict=False):
        trained = [(m["step"], m["train_loss"]) for m in curve.metrics if m["train_loss"] is not None]
        validated = [(m["step"], m["val_loss"]) for m in curve.metrics if m["val_loss"] is not None]
        best = min(validated[1:] or validated, key=lambda point: point[1])
        if alone:
            axes.plot(*zip(*trained, strict=True), color=colour, linewidth=0.8, alpha=0.5, label="training, by batch")
        label = "validation" if alone else f"{curve.name} {best[1]:.3f}"
        axes.plot(*zip(*validated, strict=True), color=colour, linestyle=style, marker="o", markersize=4, label=label)
        axes.plot(*best, marker="*", markersize=13, color=colour, markeredgecolor="black", linestyle="none")
        if alone:
            axes.annotate(f"{best[1]:.3f}", best, textcoords="offset points", xytext=(0, 9), ha="center", fontsize=9)
    for number, (name, loss) in enumerate(curves[0].baselines.items()):
        axes.axhline(loss, color=_BASELINE, linewidth=1.0, linestyle=_DASHES[number % len(_DASHES)], label=f"{name} {loss:.3f}")
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel("loss (nats a token)" if alone else "validation loss (nats a token)")
    axes.set_title(curves[0].name if alone else f"{len(curves)} runs")
    axes.grid(alpha=0.25)
    if alone:
        axes.legend(fontsize=8)
    else:
        figure.legend(fontsize=8, loc="outside right upper")
    return figure


def save(figure: Figure, path: Path, config: PlotConfig, provenance: dict[str, Any]) -> None:
    """Write `figure` whole, with its `provenance` in the file's metadata."""
    kind = format_of(path)
    note = artifact.canonical(provenance)
    metadata = {"Software": None, "Description": note} if kind == "png" else {"Date": None, "Description": note}
    with artifact.replacing(path) as beside, matplotlib.rc_context({"svg.hashsalt": "makegpt"}):
        figure.savefig(beside, format=kind, dpi=config.dpi, metadata=metadata)
