"""What the study's results say: means of seeds, their differences and errors, the depth score, the fit, the table."""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Sequence

import numpy as np

from lib.evaluate.metrics import Lead, significant
from lib.study.results import StudyResults, StudyRow

#: Validation losses as first reported for the four configs: untuned, trained unequally, on data and for steps not known.
FIRST_REPORTED = {"gpt_real": 5.45, "gpt_demo": 8.76, "gpt_deep": 8.11, "gpt_balanced": 9.81}


#: The experiments that the question of depth and width is answered by.
DEPTH = {"equal_size", "equal_width", "equal_compute"}


def rows_of(rows: Iterable[StudyRow], experiment: str) -> list[StudyRow]:
    """The rows of one experiment."""
    return [row for row in rows if row.experiment == experiment]


@dataclass(frozen=True)
class Mean:
    """The mean loss of the seeds that were trained alike: `x` is what they share, `error` the standard error, for comparing.

    `freedom`: the degrees of freedom that the error was estimated with.
    """

    x: float
    loss: float
    error: float | None
    seeds: int
    freedom: int


def mean_losses(rows: Iterable[StudyRow], x: Callable[[StudyRow], float]) -> list[Mean]:
    """The mean loss at each `x`, in order.

    A seed gives all its runs the same batches, and those of one shape the same initial weights. So the errors are from what is
    left of the losses next to the means of the x and of the seeds, pooled (randomized blocks, Fisher 1935); None if
    nothing is left to tell them by.
    """
    rows = list(rows)
    groups: dict[float, list[float]] = defaultdict(list)
    for row in rows:
        groups[x(row)].append(row.loss)
    spread, freedom = _left([row.loss for row in rows], [x(row) for row in rows], [row.seed for row in rows])
    return [
        Mean(at, float(np.mean(losses)), None if spread is None else spread / math.sqrt(len(losses)), len(losses), freedom)
        for at, losses in sorted(groups.items())
    ]


def _left(losses: Sequence[float], *factors: Sequence[float]) -> tuple[float | None, int]:
    """The standard deviation of losses next to the effects of factors, a value of each a loss, and its degrees of freedom.

    None and 0 where the factors explain all.
    """
    design = np.hstack([np.equal.outer(values, sorted(set(values))) for values in factors]).astype(float)
    left = np.array(losses) - design @ (np.linalg.pinv(design) @ np.array(losses))
    free = len(losses) - int(np.linalg.matrix_rank(design))
    return math.sqrt(left @ left / free) if free else None, free


def depth_to_width(row: StudyRow) -> float:
    """Layers a unit of width: how deep for how wide."""
    return float(row.layers / row.width)


@dataclass(frozen=True)
class Fit:
    """A parabola through losses over log2 x, with a band that holds it 95 times in 100."""

    x: np.ndarray
    loss: np.ndarray
    low: np.ndarray
    high: np.ndarray
    lowest: tuple[float, float]  # between which x the parabola is lowest, 95 times in 100


def fit_parabola(rows: Sequence[StudyRow], x: Callable[[StudyRow], float], points: int = 101, draws: int = 4000) -> Fit:
    """Fit a parabola to the losses over log2 x; the band is from residuals resampled (Efron 1979), with a fixed seed."""
    at = np.log2([x(row) for row in rows])
    losses = np.array([row.loss for row in rows])
    grid = np.linspace(at.min(), at.max(), points)
    design, wide = np.vander(at, 3), np.vander(grid, 3)
    solve = np.linalg.pinv(design)
    curve = design @ (solve @ losses)
    residuals = (losses - curve) * math.sqrt(len(losses) / max(1, len(losses) - 3))
    drawn = curve + np.random.default_rng(1).choice(residuals, (draws, len(losses)))
    curves = wide @ (solve @ drawn.T)  # (points, draws)
    low, high = np.percentile(curves, [2.5, 97.5], axis=1)
    first, last = np.percentile(grid[curves.argmin(axis=0)], [2.5, 97.5])
    return Fit(2**grid, wide @ (solve @ losses), low, high, (float(2**first), float(2**last)))


def depth_score(rows: Sequence[StudyRow]) -> tuple[float, float | None]:
    """By how many nats/token the loss falls with each doubling of the depth, on a straight line through the means.

    And its standard error, from how far they are from the line; None if there are but two of them.
    """
    means = mean_losses(rows, lambda row: row.layers)
    at = np.log2([mean.x for mean in means])
    losses = np.array([mean.loss for mean in means])
    centred = at - at.mean()
    slope = centred @ losses / (centred @ centred)
    left = losses - losses.mean() - slope * centred
    free = len(means) - 2
    return -float(slope), math.sqrt(left @ left / free / (centred @ centred)) if free > 0 else None


def split_by_significance(means: list[Mean]) -> tuple[Mean, list[Mean], list[Mean]]:
    """The best mean, those that are not significantly worse, and those that are."""
    best = min(means, key=lambda mean: mean.loss)
    others = [mean for mean in means if mean is not best]
    level = [mean for mean in others if not _behind(mean, best).significant]
    return best, level, [mean for mean in others if mean not in level]


def _behind(mean: Mean, best: Mean) -> Lead:
    """By how much a mean is worse than the best, with the standard error of that."""
    errors = [error for error in (mean.error, best.error) if error is not None]
    difference, error = mean.loss - best.loss, math.hypot(*errors) if errors else None
    return Lead(difference, error, best.freedom + 1, significant(difference, error, best.freedom))


def depth_lines(rows: Sequence[StudyRow]) -> list[str]:
    """The depth score and the lowest point of the fitted curve, as a table; nothing without the experiments on depth."""
    if not {row.experiment for row in rows} >= DEPTH:
        return []
    size = rows_of(rows, "equal_size")
    score, error = depth_score(size)
    low, high = fit_parabola(size, depth_to_width).lowest
    tried = [depth_to_width(row) for row in size]
    edges = [name for name, at, edge in (("widest", low, min(tried)), ("deepest", high, max(tried))) if math.isclose(at, edge)]
    beyond = f" (its end is the {' and the '.join(edges)} shape that was tried)" if edges else ""
    return [
        "| at equal size | value |",
        "|---|---:|",
        f"| depth score: nats/token gained by doubling the depth, ± standard error | {score:+.4f}{_plus_minus(error, 4)} |",
        f"| layers per unit of width where the fitted curve is lowest, 95% interval | {low:.4f} to {high:.4f}{beyond} |",
    ]


def _plus_minus(error: float | None, digits: int = 3) -> str:
    return "" if error is None else f" ± {error:.{digits}f}"


def best_rates(rows: Iterable[StudyRow]) -> dict[int, float]:
    """The learning rate with the lowest loss for each number of layers, of the rows of `rates`."""
    best: dict[int, StudyRow] = {}
    for row in rows_of(rows, "rates"):
        if row.layers not in best or row.loss < best[row.layers].loss:
            best[row.layers] = row
    return {layers: row.learning_rate for layers, row in sorted(best.items())}


def vs_best(rows: Sequence[StudyRow]) -> dict[int, str]:
    """By the place of its first seed: each way to train compared with the best of its experiment, ± standard error.

    Depths are compared with depths at the same setting, dropout with dropout and weight decay with weight decay; runs of one
    seed by their paired difference on the same text, if they have one.
    """
    cells: dict[int, str] = {}
    for experiment in dict.fromkeys(row.experiment for row in rows):
        for group, x in _groups(rows_of(rows, experiment)):
            means = mean_losses(group, x)
            best = min(means, key=lambda mean: mean.loss)
            for mean in means if len(means) > 1 else ():
                first = next(row for row in group if x(row) == mean.x)
                cell = "best" if mean is best else _vs(mean, best, first)
                known = cells.get(id(first))
                cells[id(first)] = cell if known in (None, cell) else f"{known}; {cell}"
    return {place: cells[id(row)] for place, row in enumerate(rows) if id(row) in cells}


def _groups(rows: list[StudyRow]) -> list[tuple[list[StudyRow], Callable[[StudyRow], float]]]:
    """The rows of an experiment that are compared with each other, and by what they differ."""
    match rows[0].experiment:
        case "rates":
            layers = sorted({row.layers for row in rows})
            return [([row for row in rows if row.layers == n], lambda row: float(row.learning_rate)) for n in layers]
        case "regularization":
            return [
                ([row for row in rows if row.weight_decay == 0.1], lambda row: float(row.drop_rate)),
                ([row for row in rows if row.drop_rate == 0], lambda row: float(row.weight_decay)),
            ]
        case name if name in DEPTH:
            return [(rows, lambda row: float(row.layers))]
    return [(rows, lambda row: float(row.loss))]


def _vs(mean: Mean, best: Mean, row: StudyRow) -> str:
    if row.behind_best:
        return str(row.behind_best)
    if best.error is None:
        return f"{mean.loss - best.loss:+.3f} (one seed)"
    return str(_behind(mean, best))


_COLUMNS = (
    "experiment", "config", "parameters", "in blocks", "in embeddings", "layers", "width", "seeds", "loss", "±", "vs best",
    "bits/byte", "tokens seen", "seconds",
)  # fmt: skip


def study_table(rows: Sequence[StudyRow]) -> list[str]:
    """One line of Markdown for each way to train: the mean of its seeds.

    ± is its standard error: over the seeds, or over the blocks of text if there is one seed. `vs best`: the loss minus that
    of the best in the experiment, ± the standard error of that difference, which is paired by seed or by text.
    """
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{'---|' * 2}{'---:|' * (len(_COLUMNS) - 2)}"]
    groups: dict[tuple[Any, ...], list[StudyRow]] = defaultdict(list)
    compared = vs_best(rows)
    place = {id(row): number for number, row in enumerate(rows)}
    for row in rows:
        groups[tuple(getattr(row, key) for key in _ALIKE)].append(row)
    for alike in groups.values():
        first, losses = alike[0], [row.loss for row in alike]
        error = first.standard_error.loss if len(alike) == 1 else float(np.std(losses, ddof=1)) / math.sqrt(len(alike))
        cells = (
            first.experiment, _config(first), f"{first.parameters:,}", f"{first.in_blocks:,}",
            f"{first.in_embeddings:,}", str(first.layers), str(first.width), str(len(alike)),
            f"{np.mean(losses):.3f}", "-" if error is None else f"{error:.3f}",
            compared.get(place[id(first)], "-"),
            _mean([row.bits_per_byte for row in alike], ".3f"), f"{first.tokens:,}",
            _mean([row.seconds for row in alike], ",.0f"),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _mean(values: Iterable[float | None], form: str) -> str:
    """The mean of the values that are known; a dash if none is."""
    known = [value for value in values if value is not None]
    return f"{np.mean(known):{form}}" if known else "-"


_ALIKE = ("experiment", "config", "layers", "width", "learning_rate", "drop_rate", "weight_decay", "steps")


def _config(row: StudyRow) -> str:
    """The config, with what the experiment varies besides the shape."""
    match row.experiment:
        case "rates":
            return f"{row.config}, rate {row.learning_rate:g}"
        case "regularization":
            return f"{row.config}, dropout {row.drop_rate:g}, decay {row.weight_decay:g}"
    return str(row.config)


def result_lines(results: StudyResults) -> list[str]:
    """The origin of the results and their tables, as Markdown."""
    rows, about = results.runs, results.about
    versions = ", ".join(f"{name} {' or '.join(values)}" for name, values in about.versions.items())
    counts = sorted({row.threads for row in rows})
    threads = f"{' or '.join(map(str, counts))} thread{'' if counts == [1] else 's'}"
    commits = ", ".join(commit[:7] + commit[40:] for commit in about.commits)
    processors = " or ".join(about.processors)
    dates = " to ".join(dict.fromkeys(about.dates[:1] + about.dates[-1:]))
    splits = dict.fromkeys(f"{row.experiment} on {row.split}" for row in rows if row.split != "val")
    return [
        f"The trainings are of {dates}, on {processors}, {threads} each, {versions}, by commit {commits}.",
        *([f"Not evaluated on the validation split: {', '.join(splits)}."] if splits else []),
        "",
        *depth_lines(rows),
        "",
        *study_table(rows),
    ]
