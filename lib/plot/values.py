"""What trainings measured besides their loss, by step: rewards and divergence, or how well pairs of answers are told apart."""

import math
from pathlib import Path
from typing import Iterable, NamedTuple, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib.config.schema import PlotConfig
from lib.errors import UsageError
from lib.plot.style import LINE_STYLES, blank_figure, escape_mathtext, plain_axes
from lib.run.metrics import StepMetrics, read_metrics

_HELD_OUT = "val_"


class RunValues(NamedTuple):
    """A run's name and its metrics, which have other values than the loss."""

    name: str
    metrics: list[StepMetrics]

    def points(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of the lines that have the value `name`."""
        return [(line.step, line.values[name]) for line in self.metrics if name in line.values]


def read_values(folders: Iterable[Path]) -> list[RunValues]:
    """The values of runs; UsageError for a run that has none."""
    runs = [RunValues(folder.resolve().name, read_metrics(folder)) for folder in folders]
    for run in runs:
        if not any(line.values for line in run.metrics):
            raise UsageError(f"{run.name} measured nothing but its loss; `plot loss` draws it")
    return runs


def values_figure(runs: Sequence[RunValues], config: PlotConfig) -> Figure:
    """A panel for each value: a line for each run, by batch, and markers where what is held out was measured."""
    measured = [name for run in runs for line in run.metrics for name in line.values]
    names = list(dict.fromkeys(name.removeprefix(_HELD_OUT) for name in measured))
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = blank_figure(config, across=0.55 * columns if columns > 1 else 1, down=0.6 * rows if columns > 1 else 1)
    panels = list(figure.subplots(rows, columns, sharex=True, squeeze=False).flat)
    for axes, name in zip(panels, names, strict=False):
        for number, run in enumerate(runs):
            color, marker = LINE_STYLES[number % len(LINE_STYLES)]
            if batches := run.points(name):
                axes.plot(*zip(*batches, strict=True), color=color, linewidth=1, label=escape_mathtext(run.name))
            if held_out := run.points(_HELD_OUT + name):
                axes.plot(*zip(*held_out, strict=True), color=color, marker=marker, markersize=5, linestyle="dotted")
        axes.set_title(escape_mathtext(name), fontsize=11)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.tick_params(labelbottom=True)
        plain_axes(axes)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    panels[0].legend(fontsize=8)
    figure.supxlabel("optimizer steps; markers: what is held out", fontsize=9)
    return figure
