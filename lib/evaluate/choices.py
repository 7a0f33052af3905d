"""Multiple choice: which of several texts a model finds the most likely, next to n-gram counts. BLiMP is such a benchmark.

A choice is scored by ln p of all its tokens, given the prompt (Warstadt et al. 2020 compare whole sentences so, without one).
Longer choices are less likely; ln p per byte of the choice makes up for that, and is given too. Choices with the same score
are a tie, counted apart: a model that finds all sentences equally likely gets 1/2 of two, not 1.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterable, Sequence

import numpy as np
import torch

from lib.artifact.record import Count, Positive
from lib.artifact.strict_json import load_json_lines
from lib.data.dataset import Dataset
from lib.data.pairs import Text
from lib.data.shards import InMemoryTokens
from lib.data.text import check_word
from lib.errors import MakegptError, UsageError
from lib.evaluate.baselines import count_training
from lib.evaluate.log_probs import predicted_log_probs
from lib.evaluate.metrics import Mean
from lib.evaluate.results import PUBLISHED, EvaluatedWeights
from lib.evaluate.span import joined
from lib.ngrams.counts import NGRAM_NAMES
from lib.ngrams.kneser_ney import KneserNey
from lib.run.folder import TrainedModel
from lib.tokenizer.base import Tokenizer, UnknownText

_FORMS = '{"prompt": "…", "choices": ["…", "…"], "answer": 0}, or {"sentence_good": "…", "sentence_bad": "…"} as BLiMP\'s'
_ROUNDING = 1e-6  # of a score: what the order of additions changes


@dataclass(frozen=True)
class Item:
    """A question: the `prompt`, maybe "", and the `choices`, of which number `answer` is right. `place` is for errors."""

    place: str
    prompt: str
    choices: tuple[str, ...]
    answer: int
    group: str | None = None


@dataclass(frozen=True)
class ChoiceScores:
    """How often the right choice has the highest score, by ln p and by ln p per byte; `ties`: where another one equals it."""

    accuracy: Mean
    accuracy_per_byte: Mean
    ties: Count


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """One task, or one group of items: the scores of the model, and those of the `best_counts` of the evaluation."""

    items: Positive
    model: ChoiceScores
    counts: ChoiceScores | None = None


@dataclass(frozen=True, kw_only=True)
class ChoiceEvaluation:
    """A model on multiple-choice tasks: on all items, on each task and on each group. `chance`: the accuracy of guessing.

    `counts`: the n-gram counts of the training text of the run, by name; `best_counts`: the one with the highest accuracy on
    all items, which favors the counts, since it is chosen on the items themselves.
    """

    items: Positive
    chance: float
    model: ChoiceScores
    counts: dict[str, ChoiceScores]
    best_counts: str | None
    tasks: dict[str, TaskResult]
    groups: dict[str, TaskResult]
    model_sha256: str
    weights: EvaluatedWeights = PUBLISHED


def task_files(paths: Iterable[Path]) -> list[Path]:
    """The files among `paths`, and the .jsonl files of the folders among them, by name."""
    files: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"{path} has no .jsonl file; give a file, or a folder of them as `fetch blimp` writes")
        files += inside
    return files


def read_items(path: Path, limit: int | None = None) -> list[Item]:
    """The items of a JSON Lines file, at most `limit`; MakegptError names the line that is not one."""
    try:
        lines = load_json_lines(path)[:limit]
    except OSError as error:
        raise MakegptError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise MakegptError(f"{path}, {error}") from None
    if not lines:
        raise MakegptError(f"{path} has no line; each is {_FORMS}")
    return [_item(f"{path}, line {number}", line) for number, line in lines]


def _item(place: str, line: object) -> Item:
    if not isinstance(line, dict):
        raise MakegptError(f"{place} is not an object; a line is {_FORMS}")
    group = line.get("group", line.get("linguistics_term"))
    if "sentence_good" in line:
        line = {"prompt": "", "choices": [line["sentence_good"], line.get("sentence_bad")], "answer": 0}
    prompt, choices, answer = line.get("prompt", ""), line.get("choices"), line.get("answer")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(choice, str) and choice for choice in choices):
        raise MakegptError(f"{place}: choices must be a list of two texts or more, none empty; a line is {_FORMS}")
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise MakegptError(f"{place}: answer must be the number of the right choice, 0 to {len(choices) - 1}, not {answer!r}")
    if not isinstance(prompt, str) or not isinstance(group, str | None):
        raise MakegptError(f"{place}: prompt and group must be texts; a line is {_FORMS}")
    for text in (prompt, *choices, group or ""):
        check_word(text, place)
    return Item(place, prompt, tuple(choices), answer, group)


def encode_item(item: Item, tokenizer: Tokenizer, start: Sequence[int], context_length: int) -> list[Text]:
    """A text per choice: the prompt's ids, or `start` if there is no prompt, then the choice's, which are scored.

    Prompt and choice are encoded as one text. Blanks at the prompt's end belong to the choice, whose tokens begin with them. Of
    a prompt that is too long the end is kept; MakegptError if a choice alone is longer than the context.
    """
    prompt = item.prompt.rstrip()
    texts = []
    for choice in item.choices:
        try:
            before = tokenizer.encode(prompt) if prompt else []
            ids = tokenizer.encode(item.prompt + choice)
        except UnknownText as error:
            raise UnknownText(f"{item.place}: {error}") from None
        ids, first = (ids, len(before)) if before else ([*start, *ids], len(start))
        if len(ids) <= first:
            raise MakegptError(f"{item.place}: {choice!r} adds no token to the prompt, so it has nothing to be scored by")
        if len(ids) - first > context_length:
            raise MakegptError(
                f"{item.place}: a choice has {len(ids) - first} tokens, and the model a context of {context_length}; "
                "use a model with a longer one, or leave the item out"
            )
        cut = max(0, len(ids) - context_length - 1)
        texts.append(Text(np.array(ids[cut:]), np.arange(cut, len(ids)) >= first))
    return texts


def evaluate_choices(
    trained: TrainedModel,
    tasks: dict[str, list[Item]],
    start: Sequence[int],
    device: torch.device,
    *,
    training: Dataset | None,
    ngram_order: int,
    weights: EvaluatedWeights = PUBLISHED,
    on_texts: Callable[[int], None] = lambda _: None,
) -> ChoiceEvaluation:
    """The model on `tasks`, by name. `start`: the ids that stand before a choice without a prompt; `training`: the dataset
    whose training split is counted, if there is one.
    """
    items = [item for task in tasks.values() for item in task]
    texts = [text for item in items for text in encode_item(item, trained.tokenizer, start, trained.config.context_length)]
    ours = _Credit(items, predicted_log_probs(trained.model, texts, device, on_texts))
    counted = {} if training is None else _counted_log_probs(training, ngram_order, trained.tokenizer.vocab_size, texts)
    credits = {name: _Credit(items, log_probs) for name, log_probs in counted.items()}
    best = max(credits, key=lambda name: float(credits[name].sums.mean()), default=None)

    def result(chosen: np.ndarray) -> TaskResult:
        counts = None if best is None else credits[best].scores(chosen)
        return TaskResult(items=len(chosen), model=ours.scores(chosen), counts=counts)

    of_task = np.repeat(np.arange(len(tasks)), [len(task) for task in tasks.values()])
    groups = sorted({item.group for item in items if item.group is not None})
    everything = np.arange(len(items))
    return ChoiceEvaluation(
        items=len(items),
        chance=float(np.mean([1 / len(item.choices) for item in items])),
        model=ours.scores(everything),
        counts={name: credit.scores(everything) for name, credit in credits.items()},
        best_counts=best,
        tasks={name: result(np.flatnonzero(of_task == number)) for number, name in enumerate(tasks)},
        groups={group: result(np.flatnonzero([item.group == group for item in items])) for group in groups},
        model_sha256=trained.sha256,
        weights=weights,
    )


def _counted_log_probs(training: Dataset, order: int, vocab_size: int, texts: Sequence[Text]) -> dict[str, np.ndarray]:
    """The log-probability of the scored tokens of each text by Kneser-Ney counts, by name: (texts,)."""
    ids, scored = joined((text.ids, text.answer) for text in texts)
    ends = np.cumsum([len(text.ids) + 1 for text in texts])[:-1]
    smoothing = KneserNey(count_training(training, order, vocab_size))
    blocks = list(smoothing.nats(InMemoryTokens(ids), 0, len(ids)))
    nats = {name: np.concatenate([block[name] for block in blocks]) for name in NGRAM_NAMES.values() if name in blocks[0]}
    return {name: -np.array([part.sum() for part in np.split(values * scored, ends)]) for name, values in nats.items()}


class _Credit:
    """What each item earns by the ln p of its choices: 1 for the right one alone at the top, 1/k in a tie of k, else 0."""

    def __init__(self, items: Sequence[Item], log_probs: np.ndarray) -> None:
        self.sums, self.per_byte = np.zeros(len(items)), np.zeros(len(items))
        self.tied = np.zeros(len(items), dtype=bool)
        at = 0
        for number, item in enumerate(items):
            scores = log_probs[at : at + len(item.choices)]
            at += len(item.choices)
            self.sums[number], self.tied[number] = _earned(scores, item.answer)
            sizes = np.array([len(choice.encode("utf-8")) for choice in item.choices])
            self.per_byte[number], _ = _earned(scores / sizes, item.answer)

    def scores(self, chosen: np.ndarray) -> ChoiceScores:
        """The means over the items with these numbers."""
        return ChoiceScores(Mean.of(self.sums[chosen]), Mean.of(self.per_byte[chosen]), int(self.tied[chosen].sum()))


def _earned(scores: np.ndarray, answer: int) -> tuple[float, bool]:
    """What an item earns by the `scores` of its choices, and whether another choice equals the right one at the top."""
    top = scores >= scores.max() - _ROUNDING * abs(scores.max())
    return (1 / top.sum() if top[answer] else 0.0), bool(top[answer] and top.sum() > 1)


def choice_lines(name: str, evaluation: ChoiceEvaluation) -> list[str]:
    """The evaluation as a table: the model called `name`, each order of counts, chance; then the groups or the tasks."""
    rows = {name: evaluation.model} | {f"{order} (counts)": scores for order, scores in evaluation.counts.items()}
    parts = evaluation.groups or (evaluation.tasks if len(evaluation.tasks) > 1 else {})
    width = max(map(len, (*rows, *parts, "chance")))
    lines = [f"{evaluation.items:,} items (± standard error)", f"{'':{width}}  {'accuracy':>14}  {'per byte':>14}   ties"]
    lines += [
        f"{row:{width}}  {_percent(scores.accuracy):>14}  {_percent(scores.accuracy_per_byte):>14}  {scores.ties:>5,}"
        for row, scores in rows.items()
    ]
    lines.append(f"{'chance':{width}}  {evaluation.chance:>14.1%}")
    for part, result in parts.items():
        counts = f"   {evaluation.best_counts} {_percent(result.counts.accuracy)}" if result.counts else ""
        lines.append(f"{part:{width}}  {_percent(result.model.accuracy):>14}{counts}")
    return lines


def _percent(mean: Mean) -> str:
    return f"{mean.value:.1%}" + ("" if mean.standard_error is None else f" ± {mean.standard_error:.1%}")
