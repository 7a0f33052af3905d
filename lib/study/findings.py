"""What the study's results say: who won, by how much, with which error, and which conclusion survives."""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Sequence

import numpy as np

from lib.evaluate.metrics import significant

StudyRow = dict[str, Any]

#: Validation losses as first reported for the four configs: untuned, trained unequally, on data and for steps not known.
FIRST_REPORTED = {"gpt_real": 5.45, "gpt_demo": 8.76, "gpt_deep": 8.11, "gpt_balanced": 9.81}


#: The experiments that the question of depth and width is answered by.
DEPTH = {"equal_size", "equal_width", "equal_compute"}


def rows_of(rows: Iterable[StudyRow], experiment: str) -> list[StudyRow]:
    """The rows of one experiment."""
    return [row for row in rows if row["experiment"] == experiment]


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

    A seed gives all its runs the same batches, and those of one shape the same first weights. So the errors are from what is
    left of the losses beside the means of the x and of the seeds, pooled (randomized blocks, Fisher 1935); None where
    nothing is left to tell them by.
    """
    rows = list(rows)
    groups: dict[float, list[float]] = defaultdict(list)
    for row in rows:
        groups[x(row)].append(row["loss"])
    spread, freedom = _left([row["loss"] for row in rows], [x(row) for row in rows], [row["seed"] for row in rows])
    return [
        Mean(at, float(np.mean(losses)), None if spread is None else spread / math.sqrt(len(losses)), len(losses), freedom)
        for at, losses in sorted(groups.items())
    ]


def _left(losses: Sequence[float], *factors: Sequence[float]) -> tuple[float | None, int]:
    """The standard deviation of losses beside the effects of factors, a value of each a loss, and its degrees of freedom.

    None and 0 where the factors explain all.
    """
    design = np.hstack([np.equal.outer(values, sorted(set(values))) for values in factors]).astype(float)
    left = np.array(losses) - design @ (np.linalg.pinv(design) @ np.array(losses))
    free = len(losses) - int(np.linalg.matrix_rank(design))
    return math.sqrt(left @ left / free) if free else None, free


def depth_to_width(row: StudyRow) -> float:
    """Layers a unit of width: how deep for how wide."""
    return float(row["layers"] / row["width"])


@dataclass(frozen=True)
class Fit:
    """A parabola through losses over log2 x, with a band that holds it 95 times in 100."""

    x: np.ndarray
    loss: np.ndarray
    low: np.ndarray
    high: np.ndarray
    lowest: tuple[float, float]  # between which x the parabola is lowest, 95 times in 100


def fit_parabola(rows: Sequence[StudyRow], x: Callable[[StudyRow], float], points: int = 101, draws: int = 4000) -> Fit:
    """Fit a parabola to the losses over log2 x; the band is from residuals drawn anew (Efron 1979), with a seed of its own."""
    at = np.log2([x(row) for row in rows])
    losses = np.array([row["loss"] for row in rows])
    shown = np.linspace(at.min(), at.max(), points)
    design, wide = np.vander(at, 3), np.vander(shown, 3)
    solve = np.linalg.pinv(design)
    curve = design @ (solve @ losses)
    residuals = (losses - curve) * math.sqrt(len(losses) / max(1, len(losses) - 3))
    drawn = curve + np.random.default_rng(1).choice(residuals, (draws, len(losses)))
    curves = wide @ (solve @ drawn.T)  # (points, draws)
    low, high = np.percentile(curves, [2.5, 97.5], axis=1)
    first, last = np.percentile(shown[curves.argmin(axis=0)], [2.5, 97.5])
    return Fit(2**shown, wide @ (solve @ losses), low, high, (float(2**first), float(2**last)))


def depth_score(rows: Sequence[StudyRow]) -> tuple[float, float | None]:
    """By how many nats/token the loss falls with each doubling of the depth, on a straight line through the means.

    And its standard error, from how far they are from the line; None where there are but two of them.
    """
    found = mean_losses(rows, lambda row: row["layers"])
    at = np.log2([mean.x for mean in found])
    losses = np.array([mean.loss for mean in found])
    centred = at - at.mean()
    slope = centred @ losses / (centred @ centred)
    left = losses - losses.mean() - slope * centred
    free = len(found) - 2
    return -float(slope), math.sqrt(left @ left / free / (centred @ centred)) if free > 0 else None


def split_by_significance(found: list[Mean]) -> tuple[Mean, list[Mean], list[Mean]]:
    """The best mean, those that are not significantly worse, and those that are."""
    best = min(found, key=lambda mean: mean.loss)
    others = [mean for mean in found if mean is not best]
    level = [mean for mean in others if not _behind(mean, best)["significant"]]
    return best, level, [mean for mean in others if mean not in level]


def _behind(mean: Mean, best: Mean) -> dict[str, Any]:
    """By how much a mean is behind the best, the standard error of that, and whether it is significant."""
    known = [each.error for each in (mean, best) if each.error is not None]
    apart, error = mean.loss - best.loss, math.hypot(*known) if known else None
    return {"loss": apart, "standard_error": error, "significant": significant(apart, error, best.freedom)}


def join_names(names: Sequence[str]) -> str:
    """Names in a sentence: "a", "a and b", "a, b and c"."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _by(found: dict[str, Any]) -> str:
    """A difference and its error, in words."""
    return f"{found['loss']:.3f}" + ("" if found["standard_error"] is None else f" ± {found['standard_error']:.3f}")


def _layers(found: Iterable[Mean]) -> str:
    return join_names([f"{mean.x:.0f}" for mean in sorted(found, key=lambda mean: mean.x)])


def depth_sentence(rows: Sequence[StudyRow], what: str) -> str:
    """Which depths did best in an experiment, and by how much the others are behind; `what` says what was held equal."""
    best, tied, worse = split_by_significance(mean_losses(rows, lambda row: row["layers"]))
    winner = f"{_layers([best])} layers {'do' if best.x > 1 else 'does'} best ({best.loss:.3f})".replace("1 layers", "1 layer")
    if best.error is None:
        return f"{what}: {winner.replace('best', 'best by the mean')}; one seed a shape is too little to tell."
    if tied:
        winner += f", {_layers(tied)} not significantly worse"
    behind = ", ".join(f"{mean.x:.0f} by {_by(_behind(mean, best))}" for mean in worse)
    return f"{what}: {winner}" + (f"; behind are {behind}." if worse else ".")


def conclusion_lines(rows: Sequence[StudyRow]) -> list[str]:
    """What the study says of depth and width, a sentence an experiment, the conclusion last; nothing where it did not ask."""
    if not {row["experiment"] for row in rows} >= DEPTH:
        return []
    size, width, compute = (rows_of(rows, name) for name in ("equal_size", "equal_width", "equal_compute"))
    rates = [f"{rate:g} for {layers}" for layers, rate in best_rates(rows).items()]
    found = [
        *([f"Learning rates, by layers, the best of one seed: {', '.join(rates)}."] if rates else []),
        depth_sentence(size, "At equal size and equal tokens"),
        depth_sentence(width, "At equal width and equal tokens"),
        depth_sentence(compute, "At equal width and equal arithmetic"),
    ]
    score, error = depth_score(size)
    gain = "gains" if score > 0 else "loses"
    gained = f"{abs(score):.4f}" + ("" if error is None else f" ± {error:.4f}")
    found.append(f"Depth score: at equal size each doubling of the depth {gain} {gained} nats/token.")
    found.append(_lowest(size))
    best, tied, _ = split_by_significance(mean_losses(size, lambda row: row["layers"]))
    good = {mean.x for mean in (best, *tied)}
    depths = sorted({row["layers"] for row in size})
    if good == set(depths):
        seeds = f"{best.seeds} seed{'s' if best.seeds > 1 else ''}"
        survives = f"neither: at this size and this length of training the shape makes no difference that {seeds} can show"
    elif depths[0] in good and depths[-1] in good:
        survives = "neither: the widest and the deepest do as well as each other, and a shape between them does not"
    elif depths[0] in good:
        survives = "wider is better, at this size and this length of training: depth has to be paid for and does not pay here"
    elif depths[-1] in good:
        survives = "deeper is better, at this size and this length of training, as far as it was tried"
    else:
        survives = "neither: the best shape lies between, and far from it either way the loss rises"
    return [*found, f"What survives is {survives}."]


def _lowest(rows: Sequence[StudyRow]) -> str:
    """Where the curve fitted at equal size is lowest."""
    (low, high), tried = fit_parabola(rows, depth_to_width).lowest, [depth_to_width(row) for row in rows]
    edges = [
        *(["the widest that was tried"] if math.isclose(low, min(tried)) else []),
        *(["the deepest"] if math.isclose(high, max(tried)) else []),
    ]
    beyond = f"; an end of that is {' and '.join(edges)}, so it may lie beyond" if edges else ""
    return f"The curve fitted at equal size is lowest between {low:.4f} and {high:.4f} layers a unit of width{beyond}."


def best_rates(rows: Iterable[StudyRow]) -> dict[int, float]:
    """The learning rate with the lowest loss for each number of layers, of the rows of `rates`."""
    found: dict[int, StudyRow] = {}
    for row in rows_of(rows, "rates"):
        if row["layers"] not in found or row["loss"] < found[row["layers"]]["loss"]:
            found[row["layers"]] = row
    return {layers: row["learning_rate"] for layers, row in sorted(found.items())}


def regularization_lines(rows: Iterable[StudyRow]) -> list[str]:
    """Which dropout and which weight decay had the lowest validation loss, and what ties with it."""
    tried = rows_of(rows, "regularization")
    if not tried:
        return []
    return [
        _best_of("Dropout", [row for row in tried if row["weight_decay"] == 0.1], lambda row: row["drop_rate"]),
        _best_of("Weight decay", [row for row in tried if row["drop_rate"] == 0], lambda row: row["weight_decay"]),
    ]


def _best_of(what: str, rows: list[StudyRow], x: Callable[[StudyRow], float]) -> str:
    best, tied, worse = split_by_significance(mean_losses(rows, x))
    if best.error is None:
        return f"{what}: {best.x:g} has the lowest loss ({best.loss:.3f}); one seed each is too little to tell."
    others = f"; {', '.join(f'{mean.x:g}' for mean in tied)} not significantly worse" if tied else ""
    behind = f"; {', '.join(f'{mean.x:g} behind by {_by(_behind(mean, best))}' for mean in worse)}" if worse else ""
    return f"{what}: {best.x:g} is best ({best.loss:.3f}){others}{behind}."


def history_lines(rows: Iterable[StudyRow]) -> list[str]:
    """What was first reported of the four configs, beside what they come to by one recipe; nothing without them."""
    four = sorted(rows_of(rows, "the_four"), key=lambda row: row["loss"])
    if {row["config"] for row in four} != FIRST_REPORTED.keys():
        return []
    best, *others = four
    then = sorted(FIRST_REPORTED, key=lambda name: FIRST_REPORTED[name])
    pairs = [(row["config"], row["behind_best"]) for row in others]
    beside = [f"{name} {_apart(behind)}" for name, behind in pairs]
    return [
        f"First reported were losses from {min(FIRST_REPORTED.values())} to {max(FIRST_REPORTED.values())}, in the order "
        f"{', '.join(then)}. By one recipe on the same tokens {best['config']} has the lowest loss ({best['loss']:.3f}); "
        f"{'; '.join(beside)}: paired on the same text, one seed each."
    ]


def _apart(behind: dict[str, Any]) -> str:
    """How far a run is behind the best, paired token by token; an older result does not say if that is significant."""
    if behind.get("significant") is None:
        return f"is {behind['loss']:.3f} above it, on a text too short to tell"
    return f"is {'' if behind['significant'] else 'not significantly '}behind, by {_by(behind)}"


_COLUMNS = (
    "experiment", "config", "parameters", "in blocks", "in embeddings", "layers", "width", "seeds", "loss", "±", "bits/byte",
    "tokens seen", "seconds",
)  # fmt: skip


def study_table(rows: Sequence[StudyRow]) -> list[str]:
    """One line of Markdown for each way to train, the mean of its seeds; ± is the standard error.

    Of several seeds it is how they differ, of one how its blocks of text do.
    """
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{'---|' * 2}{'---:|' * (len(_COLUMNS) - 2)}"]
    groups: dict[tuple[Any, ...], list[StudyRow]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[key] for key in _ALIKE)].append(row)
    for alike in groups.values():
        first, losses = alike[0], [row["loss"] for row in alike]
        error = first["standard_error"]["loss"] if len(alike) == 1 else float(np.std(losses, ddof=1)) / math.sqrt(len(alike))
        seconds = [row["seconds"] for row in alike if row["seconds"] is not None]
        cells = (
            first["experiment"], _config(first), f"{first['parameters']:,}", f"{first['in_blocks']:,}",
            f"{first['in_embeddings']:,}", str(first["layers"]), str(first["width"]), str(len(alike)),
            f"{np.mean(losses):.3f}", "-" if error is None else f"{error:.3f}",
            f"{np.mean([row['bits_per_byte'] for row in alike]):.3f}", f"{first['tokens']:,}",
            f"{np.mean(seconds):,.0f}" if seconds else "-",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


_ALIKE = ("experiment", "config", "layers", "width", "learning_rate", "drop_rate", "weight_decay", "steps")


def _config(row: StudyRow) -> str:
    """The config, with what the experiment varies besides the shape."""
    match row["experiment"]:
        case "rates":
            return f"{row['config']}, rate {row['learning_rate']:g}"
        case "regularization":
            return f"{row['config']}, dropout {row['drop_rate']:g}, decay {row['weight_decay']:g}"
    return str(row["config"])
