"""A classifier in one figure: loss and accuracy during the training, and the confusion matrix of its evaluation."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib.config.schema import PlotConfig
from lib.errors import UsageError
from lib.evaluate.classification import ClassEvaluation, read_class_evaluation
from lib.plot.style import LINE_STYLES, blank_figure, escape_mathtext, plain_axes
from lib.run.folder import finished_manifest, is_classifier
from lib.run.metrics import StepMetrics, read_metrics

_MOST_CLASSES = 20  # in a matrix whose numbers can be read


class ClassifierRun(NamedTuple):
    """What a figure shows of a classifier: its name, its metrics, its evaluation."""

    name: str
    metrics: list[StepMetrics]
    evaluation: ClassEvaluation


def read_classifier(folder: Path) -> ClassifierRun:
    """The classifier in `folder`, which must have been evaluated; UsageError if it is none, or has too many classes."""
    finished_manifest(folder)
    if not is_classifier(folder):
        raise UsageError(f"{folder} is no classifier; `plot loss {folder}` draws a model of texts")
    evaluation = read_class_evaluation(folder)
    if len(evaluation.classes) > _MOST_CLASSES:
        raise UsageError(f"{folder} has {len(evaluation.classes)} classes; a matrix of at most {_MOST_CLASSES} can be drawn")
    return ClassifierRun(folder.resolve().name, read_metrics(folder), evaluation)


def classes_figure(run: ClassifierRun, config: PlotConfig) -> Figure:
    """Three panels: loss and accuracy by step, and which class is taken for which."""
    figure = blank_figure(config, across=1.8)
    loss, accuracy, matrix = figure.subplots(1, 3)
    _curves(loss, run.metrics, "loss (nats/text)", [("train_loss", "training, by batch"), ("val_loss", "validation")])
    _curves(accuracy, run.metrics, "accuracy", [("accuracy", "training, by batch"), ("val_accuracy", "validation")])
    _matrix(matrix, run.evaluation)
    figure.suptitle(escape_mathtext(run.name), fontsize=12)
    return figure


def _curves(axes: Axes, metrics: list[StepMetrics], title: str, curves: list[tuple[str, str]]) -> None:
    """The batches as a thin line, the validations with markers."""
    color, marker = LINE_STYLES[0]
    styles: tuple[dict[str, Any], ...] = ({"linewidth": 0.8, "alpha": 0.5}, {"marker": marker, "markersize": 4})
    for (name, label), style in zip(curves, styles, strict=True):
        numbers = [(line.step, line.values.get(name, getattr(line, name, None))) for line in metrics]
        points = [(step, number) for step, number in numbers if number is not None]
        axes.plot(*zip(*points, strict=True), color=color, label=label, **style)
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel(title)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.legend(fontsize=8)
    plain_axes(axes)


def _matrix(axes: Axes, evaluation: ClassEvaluation) -> None:
    """A cell for each class and prediction: the number of texts, shaded by its fraction of the class."""
    counts = np.array(evaluation.confusion)
    fractions = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if fractions[row, column] > 0.5 else "black"
        axes.text(column, row, f"{count:,}", ha="center", va="center", color=color, fontsize=9)
    names = [escape_mathtext(name) for name in evaluation.classes]
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 4 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    low, high = evaluation.interval
    axes.set_title(f"{evaluation.split}: {evaluation.accuracy:.2%} ({low:.1%} to {high:.1%})", fontsize=10)
