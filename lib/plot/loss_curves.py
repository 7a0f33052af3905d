"""Loss curves of runs, by step and by tokens, with their baselines."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lib.config.schema import PlotConfig
from lib.evaluate.results import PositionBand
from lib.evaluate.run_view import RunView
from lib.plot.style import (
    GRAY,
    LINE_STYLES,
    blank_figure,
    edge_labels,
    escape_mathtext,
    format_count,
    light_grid,
    plain_axes,
    strip_common_suffix,
)
from lib.run.metrics import StepMetrics, read_metrics


@dataclass(frozen=True)
class Curve:
    """What a figure shows of one run: its name, its metrics and, if it was evaluated, its baselines (name -> loss).

    Losses in nats/token can be compared only if `tokenizer`, the hash of a vocabulary, and the text are the same.
    `text`: the hash of the scored text, if the run was evaluated on its validation split; `dataset`: that of its dataset.
    `note`: why there are no baselines, if it was evaluated on another split.
    """

    name: str
    metrics: list[StepMetrics]
    baselines: dict[str, float]
    tokenizer: str | None = None
    text: str | None = None
    dataset: str | None = None
    note: str | None = None

    def points(self, loss: str, by: str) -> list[tuple[float, float]]:
        """(steps or tokens, loss) of the lines that have one; `loss`: "train_loss" or "val_loss", `by`: "step" or "tokens"."""
        pairs = ((getattr(line, by), getattr(line, loss)) for line in self.metrics)
        return [(x, value) for x, value in pairs if value is not None]

    def best(self, by: str) -> tuple[float, float]:
        """The lowest validation loss; the one before the first step counts only if there is no other."""
        points = self.points("val_loss", by)
        return min(points[1:] or points, key=lambda point: point[1])

    @property
    def tokens_per_step(self) -> float | None:
        """Tokens per optimizer step; None before the first step."""
        last = self.metrics[-1]
        return last.tokens / last.step if last.step else None


def read_curves(folders: Iterable[Path]) -> list[Curve]:
    """The curves of runs; with baselines if a run has been evaluated on its own validation split."""
    curves = []
    for run in map(RunView, folders):
        evaluation = run.validation  # that of another text has other baselines
        losses = {name: score.loss for name, score in evaluation.baselines.items()} if evaluation else {}
        text = evaluation.text_sha256 if evaluation else None
        identity = (run.metadata.get("tokenizer"), text, run.metadata.get("dataset"))
        curves.append(Curve(run.name, read_metrics(run.folder), losses, *identity, note=missing_baselines(run)))
    return curves


def missing_baselines(run: RunView) -> str | None:
    """Why the baselines of an evaluated run are not drawn next to its validation losses, with its loss; else None."""
    if run.other_split is None:
        return None
    loss = run.required_evaluation().loss
    return f"Baselines are left out: the run was evaluated on {run.other_split}, where its loss is {loss:.3f} nats/token."


def loss_figure(curves: Sequence[Curve], config: PlotConfig) -> Figure:
    """Training and validation loss of all runs in one figure, by step and by tokens, the best marked, baselines as lines.

    If all have the same number of tokens per step, one panel has both scales; else there is a panel for each. Baselines that
    differ between runs are left to `panels_figure`, and the figure says so.
    """
    tokens_per_step = {curve.tokens_per_step for curve in curves}
    scales = ["step"] if len(tokens_per_step) == 1 or None in tokens_per_step else ["step", "tokens"]
    figure = blank_figure(config, across=1 + 0.4 * (len(scales) - 1))
    panels = figure.subplots(1, len(scales), sharey=True, squeeze=False)[0]
    for axes, by in zip(panels, scales, strict=True):
        _draw(axes, curves, by)
        _scale(axes, by, tokens_per_step if len(scales) == 1 else set())
    shared, different = _shared([curve.baselines for curve in curves])
    for axes in panels:
        _baselines(axes, shared, curves)
    panels[0].set_ylabel("loss (nats/token)")
    panels[-1].legend(fontsize=8, loc="upper right", framealpha=0.9)
    title = (
        curves[0].name if len(curves) == 1 else f"{len(curves)} runs{strip_common_suffix([curve.name for curve in curves])[1]}"
    )
    figure.suptitle(escape_mathtext(title), fontsize=12)
    if remark := _remark(curves):
        _note(figure, remark)
    elif different:
        names = ", ".join(different)
        _note(figure, f"Not the same for all of these runs, so not drawn: {names}; with --panels each run has its own.")
    elif note := _missing_notes(curves):
        _note(figure, note)
    _labels(panels[-1], shared, curves)
    return figure


def panels_figure(curves: Sequence[Curve], config: PlotConfig) -> Figure:
    """One panel per run, side by side with the same axes, each with its own baselines."""
    columns = math.ceil(math.sqrt(len(curves)))
    rows = math.ceil(len(curves) / columns)
    figure = blank_figure(config, across=0.75 * columns if columns > 1 else 1, down=0.8 * rows if columns > 1 else 1)
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for axes, curve in zip(panels, curves, strict=False):
        _draw(axes, [curve], "step")
        axes.set_title(escape_mathtext(curve.name), fontsize=11)
        axes.tick_params(labelbottom=True, labelleft=True)  # a figure may be cut into its panels
        axes.legend(fontsize=8, loc="upper right")
    for axes, curve in zip(panels, curves, strict=False):
        _scale(axes, "step", {curve.tokens_per_step})
        _baselines(axes, curve.baselines, curves)
        axes.set_ylabel("loss (nats/token)")
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    if remark := _remark(curves) or _missing_notes(curves):
        _note(figure, remark)
    for axes, curve in zip(panels, curves, strict=False):  # last, when the layout and the common limits are known
        _labels(axes, curve.baselines, curves)
    return figure


def _draw(axes: Axes, curves: Sequence[Curve], by: str) -> None:
    """The curves themselves; the training loss thin, since it belongs to single batches."""
    alone = len(curves) == 1
    names, _ = strip_common_suffix([curve.name for curve in curves])
    for number, (name, curve) in enumerate(zip(names, curves, strict=True)):
        color, marker = LINE_STYLES[number % len(LINE_STYLES)]
        if batches := curve.points("train_loss", by):
            label = "training, by batch" if alone else None
            axes.plot(*zip(*batches, strict=True), color=color, linewidth=0.8, alpha=0.5 if alone else 0.3, label=label)
        x, best = curve.best(by)
        label = "validation" if alone else f"{escape_mathtext(name)}: {best:.3f} at step {curve.best('step')[0]:,}"
        validations = zip(*curve.points("val_loss", by), strict=True)
        axes.plot(*validations, color=color, marker=marker, markersize=4, label=label)
        label = f"best: {best:.3f} at step {curve.best('step')[0]:,}" if alone else None
        axes.plot(x, best, marker="*", markersize=13, color=color, markeredgecolor="black", linestyle="none", label=label)
    if not alone:
        axes.plot([], [], color=GRAY, linewidth=0.8, alpha=0.7, label="thin: training, by batch; star: best")
    plain_axes(axes)


def _scale(axes: Axes, by: str, tokens_per_step: set[float | None]) -> None:
    """Steps or tokens below; tokens above too if `tokens_per_step` holds a single number."""
    axes.set_xlabel("optimizer steps" if by == "step" else "tokens read")
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(format_count))
    (factor,) = tokens_per_step if len(tokens_per_step) == 1 else (None,)
    if factor:
        above = axes.secondary_xaxis("top", functions=(_times(factor), _times(1 / factor)))
        above.xaxis.set_major_locator(MaxNLocator(7))
        above.xaxis.set_major_formatter(FuncFormatter(format_count))
        above.set_xlabel("tokens read", fontsize=9, color=GRAY)
        above.tick_params(labelsize=8, colors=GRAY)
        above.spines["top"].set_color(GRAY)


def _times(factor: float) -> Callable[[Any], Any]:
    return lambda numbers: numbers * factor


def _baselines(axes: Axes, baselines: dict[str, float], curves: Sequence[Curve]) -> None:
    """Baselines as lines, the axes high enough for them; a baseline above all curves has no line."""
    inside = [loss for loss in baselines.values() if loss <= _top(curves)]
    low, high = axes.get_ylim()
    axes.set_ylim(min([low, *(0.98 * loss for loss in inside)]), max([high, *inside]))
    for loss in inside:
        axes.axhline(loss, color=GRAY, linewidth=0.8, linestyle=(0, (5, 3)), zorder=1)


def _labels(axes: Axes, baselines: dict[str, float], curves: Sequence[Curve]) -> None:
    """The names of baselines to the right of the axes, with an arrow if one is above all curves; the limits are final now."""
    _, high = axes.get_ylim()
    labels = [(min(loss, high), _label(name, loss, loss <= _top(curves))) for name, loss in baselines.items()]
    edge_labels(axes, labels)


def _top(curves: Sequence[Curve]) -> float:
    """The highest loss that is still drawn as a line."""
    losses = [loss for curve in curves for line in curve.metrics for loss in (line.train_loss, line.val_loss)]
    return 1.03 * max(loss for loss in losses if loss is not None)


def _label(name: str, loss: float, inside: bool) -> str:
    return f"{name} {loss:.3f}" if inside else f"↑ {name} {loss:.3f}"


def _shared(per_run: Sequence[dict[str, float]]) -> tuple[dict[str, float], list[str]]:
    """The baselines that are equal for all runs that have them, and the names of the others."""
    names = dict.fromkeys(name for baselines in per_run for name in baselines)
    values = {name: [baselines[name] for baselines in per_run if name in baselines] for name in names}
    shared = {name: losses[0] for name, losses in values.items() if all(math.isclose(loss, losses[0]) for loss in losses)}
    return shared, [name for name in names if name not in shared]


def _remark(curves: Sequence[Curve]) -> str | None:
    """Why the heights of the curves cannot be compared; None if they can."""
    texts = {curve.text for curve in curves}
    if len({curve.tokenizer for curve in curves}) > 1 or len(texts - {None}) > 1:
        return "These runs have different texts or different tokens: compare the shapes of the curves, not their heights."
    if None in texts and len({curve.dataset for curve in curves}) > 1:
        return "These runs have different datasets; evaluate them on their validation splits before you compare heights."
    return None


def _missing_notes(curves: Sequence[Curve]) -> str | None:
    """Why baselines are missing; None if none are."""
    notes = [curve.note for curve in curves if curve.note]
    if len(curves) == 1 or not notes:
        return notes[0] if notes else None
    names = ", ".join(curve.name for curve in curves if curve.note)
    return f"Without baselines, since not evaluated on their validation splits: {names}."


def _note(figure: Figure, text: str) -> None:
    figure.supxlabel(text, fontsize=8, color=GRAY)


def position_figure(bands: Sequence[PositionBand], config: PlotConfig) -> Figure:
    """The mean loss by position in the window."""
    figure = blank_figure(config)
    axes = figure.add_subplot()
    color, marker = LINE_STYLES[0]
    for band in bands:
        axes.plot([band.first, band.last], [band.loss] * 2, color=color, linewidth=3, alpha=0.5, solid_capstyle="butt")
    centers = [(band.first * band.last) ** 0.5 for band in bands]
    axes.plot(centers, [band.loss for band in bands], color=color, marker=marker, markersize=4)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel("position in the window")
    axes.set_ylabel("loss (nats/token)")
    light_grid(axes)
    return figure
