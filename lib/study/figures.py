"""The study's figures, drawn from its results alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.artifact.record import to_json
from lib.config.schema import PlotConfig
from lib.plot.style import FIGURE_FORMATS, LINE_STYLES, blank_figure, light_grid, save_figure
from lib.study.findings import (
    DEPTH,
    FIRST_REPORTED,
    Mean,
    depth_score,
    depth_to_width,
    fit_parabola,
    mean_losses,
    rows_of,
)
from lib.study.results import StudyRow, read_results, results_digest


def depth_figure(rows: Sequence[StudyRow], config: PlotConfig) -> Figure:
    """Loss against depth: of equal size, over depth to width, with its fit and band; and of equal width."""
    figure = blank_figure(config)
    size, width = figure.subplots(1, 2)
    _equal_size(size, rows_of(rows, "equal_size"))
    kinds = (("equal_width", "the same tokens"), ("equal_compute", "the same arithmetic"))
    for (name, label), style in zip(kinds, LINE_STYLES, strict=False):
        rows_shown = rows_of(rows, name)
        _points(width, mean_losses(rows_shown, lambda row: row.layers), style, label)
    width.set_xscale("log", base=2)
    width.set_xlabel(f"layers, each {rows_of(rows, 'equal_width')[0].width} wide")
    width.set_xticks(*_ticks(row.layers for row in rows_of(rows, "equal_width")))
    width.set_title("equal width\n", fontsize=10)
    for axes in (size, width):
        light_grid(axes)
        axes.minorticks_off()
        axes.legend(fontsize=8)
    return figure


def _equal_size(axes: Axes, rows: list[StudyRow]) -> None:
    fit = fit_parabola(rows, depth_to_width)
    color, marker = LINE_STYLES[0]
    axes.fill_between(fit.x, fit.low, fit.high, color=color, alpha=0.15, linewidth=0, label="95 % band of a parabola")
    axes.plot(fit.x, fit.loss, color=color, linewidth=1)
    seeds = [depth_to_width(row) for row in rows], [row.loss for row in rows]
    axes.plot(*seeds, ".", color="#444444", markersize=4, label="one seed")
    _points(axes, mean_losses(rows, depth_to_width), (color, marker), "mean of the seeds", line=False)
    axes.set_xscale("log", base=2)
    shapes = sorted({(depth_to_width(row), f"{row.layers}×{row.width}") for row in rows})
    axes.set_xticks([at for at, _ in shapes], [name for _, name in shapes], fontsize=8)
    axes.set_xlabel("layers × width, from wide to deep")
    axes.set_ylabel("validation loss (nats/character)")
    score, error = depth_score(rows)
    known = "" if error is None else f" ± {error:.3f}"
    axes.set_title(f"equal size\ndepth score {score:+.3f}{known}", fontsize=10)


def _points(axes: Axes, means: list[Mean], style: tuple[str, str], label: str, line: bool = True) -> None:
    axes.errorbar(
        [mean.x for mean in means],
        [mean.loss for mean in means],
        yerr=None if means[0].error is None else [2 * (mean.error or 0.0) for mean in means],
        color=style[0],
        marker=style[1],
        markersize=5,
        capsize=3,
        linewidth=1.2,
        linestyle="-" if line else "none",
        label=label if means[0].error is None else f"{label} (± two errors)",
    )


def _ticks(values: Any) -> tuple[list[Any], list[str]]:
    means = sorted(set(values))
    return means, [f"{value:g}" for value in means]


def four_figure(rows: Sequence[StudyRow], config: PlotConfig) -> Figure:
    """Validation losses of the four configs by tokens seen, the best of each, the bigram counts; what was first reported."""
    figure = blank_figure(config)
    axes = figure.add_subplot()
    four = rows_of(rows, "the_four")
    bigram = four[0].baselines["bigram"]
    for row, (color, marker) in zip(four, LINE_STYLES, strict=False):
        a_step = row.tokens / row.steps
        seen, losses = [step * a_step for step, _ in row.curve], [loss for _, loss in row.curve]
        before = FIRST_REPORTED.get(row.config)
        label = f"{row.config} {row.loss:.3f}" + (f" (first reported: {before:.2f})" if before else "")
        axes.plot(seen, losses, color=color, marker=marker, markersize=4, label=label)
        best: dict[str, Any] = {"marker": "*", "markersize": 12, "markeredgecolor": "black", "linestyle": "none"}
        axes.plot(row.best_step * a_step, row.loss, color=color, **best)
    axes.axhline(bigram, color="#666666", linewidth=1, linestyle=(0, (6, 3)), label=f"counted bigram {bigram:.3f}")
    axes.set_ylim(bottom=min(bigram, *(row.loss for row in four)) - 0.2)
    axes.set_xlabel("tokens seen")
    axes.set_ylabel("validation loss (nats/token)")
    light_grid(axes)
    axes.legend(fontsize=8)
    return figure


def regularisation_figure(rows: Sequence[StudyRow], config: PlotConfig) -> Figure:
    """Loss against dropout and against weight decay: at the best step, and at the last, when the text is memorized."""
    figure = blank_figure(config)
    rows_shown = rows_of(rows, "regularization")
    dropped, by_decay = figure.subplots(1, 2, sharey=True)
    _regularised(dropped, [row for row in rows_shown if row.weight_decay == 0.1], "drop_rate")
    _regularised(by_decay, [row for row in rows_shown if row.drop_rate == 0], "weight_decay")
    dropped.set_xlabel("dropout")
    dropped.set_ylabel("validation loss (nats/token)")
    by_decay.set_xlabel("weight decay")
    by_decay.set_xscale("symlog", linthresh=0.1)
    by_decay.set_xticks(*_ticks(row.weight_decay for row in rows_shown))
    by_decay.minorticks_off()
    by_decay.legend(fontsize=8)
    return figure


def _regularised(axes: Axes, rows: list[StudyRow], key: str) -> None:
    ends = [replace(row, loss=row.curve[-1][1]) for row in rows]
    _points(axes, mean_losses(rows, lambda row: getattr(row, key)), LINE_STYLES[0], "at the best step")
    _points(axes, mean_losses(ends, lambda row: getattr(row, key)), LINE_STYLES[1], "at the last step")
    light_grid(axes)


#: Each figure of the study by name, with the experiments it shows.
STUDY_FIGURES: dict[str, tuple[Callable[[Sequence[StudyRow], PlotConfig], Figure], set[str]]] = {
    "depth": (depth_figure, DEPTH),
    "the_four": (four_figure, {"the_four"}),
    "regularization": (regularisation_figure, {"regularization"}),
}


def write_study_figures(path: Path, folder: Path, config: PlotConfig) -> None:
    """All figures of the results in the file `path` as PNG and SVG in `folder`; its hash and origin are in their metadata.

    They show validation losses: what was evaluated on another split has none.
    """
    results, digest = read_results(path), results_digest(path)
    experiments_done = {row.experiment for row in results.runs} - {row.experiment for row in results.runs if row.split != "val"}
    for name, (draw, experiments) in STUDY_FIGURES.items():
        provenance = {"kind": name, "results": digest, **to_json(results.about)}
        for kind in FIGURE_FORMATS if experiments <= experiments_done else ():
            save_figure(draw(results.runs, config), folder / f"{name}.{kind}", config, provenance)
