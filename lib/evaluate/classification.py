"""How often a classifier is right: accuracy with its interval, which class is taken for which, baselines on the same texts."""

import math
from dataclasses import dataclass
from math import comb
from pathlib import Path
from statistics import NormalDist
from typing import Any, Callable, Iterable, Iterator, Sequence

import numpy as np
import torch

from lib.artifact.record import Count, Positive
from lib.data.dataset import Dataset
from lib.data.packing import text_windows
from lib.errors import MakegptError, UsageError
from lib.evaluate.metrics import SIGNIFICANCE_LEVEL
from lib.evaluate.results import PUBLISHED, EvaluatedWeights, read_evaluation_of
from lib.evaluate.word_counts import PREDICTORS
from lib.model.classifier import WindowTensors, class_logits
from lib.run.folder import TrainedModel

TEXTS_AT_ONCE = 32

#: The interval of an accuracy has the true one in so many of 100 cases.
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class ClassScore:
    """Of a class: `precision`, the fraction of the texts taken for it that are of it; `recall`, the fraction of its texts that
    are taken for it; `f1`, their harmonic mean. None where there are no such texts.
    """

    texts: Count
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class BaselineAccuracy:
    """A baseline: its accuracy and interval, how many texts it alone has right, and how many the model alone.

    `significant`: whether these two differ by more than chance (McNemar's test, exact).
    """

    accuracy: float
    interval: tuple[float, float]
    right_alone: Count
    model_right_alone: Count
    significant: bool


@dataclass(frozen=True, kw_only=True)
class ClassEvaluation:
    """A classifier on a split. `confusion`: a row for the texts of each class, a column for each prediction.

    `loss` in nats/text; `seen_texts`: how many of the texts are in the training split too, word for word.
    """

    split: str
    texts: Positive
    loss: float
    accuracy: float
    interval: tuple[float, float]
    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    scores: dict[str, ClassScore]
    baselines: dict[str, BaselineAccuracy]
    seen_texts: Count
    model_sha256: str
    weights: EvaluatedWeights = PUBLISHED
    dataset: str
    parameters: dict[str, Any] | None = None


def evaluate_classifier(
    trained: TrainedModel,
    folder: Path,
    dataset: Dataset,
    split: str,
    device: torch.device,
    on_texts: Callable[[int], None] = lambda _: None,
) -> ClassEvaluation:
    """The classifier of the run in `folder` on a split of `dataset`, and the baselines that learned its training split.

    `on_texts` is called with the number of texts after each batch.
    """
    classes = _classes_of(trained, folder, dataset)
    texts = dataset.labeled
    assert texts is not None
    numbers = texts.numbers(split)
    if not len(numbers):
        raise MakegptError(f"{dataset.folder} has no {split} split; build one with --{split}-fraction 0.2, and train on it")
    labeled, training = texts.read(numbers), texts.read(texts.numbers("train"))
    labels = np.array([classes[label] for _, label in labeled])
    logits = np.concatenate([*predict_logits(trained, [ids for ids, _ in labeled], device, on_texts)])
    decode = trained.tokenizer.decode
    words, training_words = ([decode(ids.tolist()) for ids, _ in part] for part in (labeled, training))
    training_labels = np.array([classes[label] for _, label in training])
    right = logits.argmax(axis=1) == labels
    seen = set(training_words)
    confusion = np.zeros((len(trained.classes),) * 2, int)
    np.add.at(confusion, (labels, logits.argmax(axis=1)), 1)
    return ClassEvaluation(
        split=split,
        texts=len(labels),
        loss=float(np.mean(_log_sum_exp(logits) - logits[np.arange(len(labels)), labels])),
        accuracy=float(right.mean()),
        interval=wilson_interval(int(right.sum()), len(right)),
        classes=trained.classes,
        confusion=tuple(tuple(map(int, row)) for row in confusion),
        scores={name: _class_score(confusion, number) for number, name in enumerate(trained.classes)},
        baselines={
            name: _baseline(fit(training_words, training_labels, len(trained.classes)).predict(words) == labels, right)
            for name, fit in PREDICTORS.items()
        },
        seen_texts=sum(text in seen for text in words),
        model_sha256=trained.sha256,
        dataset=dataset.identity(),
    )


def _classes_of(trained: TrainedModel, folder: Path, dataset: Dataset) -> list[int]:
    """The number that the model of the run in `folder` has for each class of `dataset`; an error if it lacks one."""
    if dataset.labeled is None:
        raise UsageError(f"{dataset.folder} does not hold labeled texts, and {folder} is a classifier; use `tokenize --labels`")
    if dataset.tokenizer_identity != trained.tokenizer.identity():
        raise MakegptError(
            f"{dataset.folder} was made with another tokenizer than the model of {folder}; "
            f"tokenize its texts with `--tokenizer {folder}`"
        )
    if unknown := [name for name in dataset.labeled.classes if name not in trained.classes]:
        raise MakegptError(
            f"{dataset.folder} has the label {unknown[0]!r}, which {folder} has not learned; it knows "
            f"{', '.join(trained.classes)}"
        )
    return [trained.classes.index(name) for name in dataset.labeled.classes]


@torch.inference_mode()
def predict_logits(
    trained: TrainedModel, texts: Iterable[np.ndarray], device: torch.device, on_texts: Callable[[int], None] = lambda _: None
) -> Iterator[np.ndarray]:
    """The logits of the classes for `texts`, the ids of each, in parts: (n, K) float64."""
    waiting: list[np.ndarray] = []
    for ids in texts:
        waiting.append(ids)
        if len(waiting) == TEXTS_AT_ONCE:
            yield _logits(trained, waiting, device)
            on_texts(len(waiting))
            waiting = []
    if waiting:
        yield _logits(trained, waiting, device)
        on_texts(len(waiting))


def _logits(trained: TrainedModel, texts: Sequence[np.ndarray], device: torch.device) -> np.ndarray:
    windows = WindowTensors(text_windows(texts, trained.config.context_length), device)
    return class_logits(trained.model, windows).double().cpu().numpy()


def softmax(logits: np.ndarray) -> np.ndarray:
    """The probabilities of the classes, (N, K)."""
    return np.exp(logits - _log_sum_exp(logits)[:, None])


def _log_sum_exp(logits: np.ndarray) -> np.ndarray:
    largest = logits.max(axis=1)
    return largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))


def wilson_interval(right: int, count: int) -> tuple[float, float]:
    """The 95% interval of a fraction of which `right` of `count` were seen (Wilson 1927).

    It stays within 0 and 1, and is not empty where all are right.
    """
    z = NormalDist().inv_cdf((1 + _CONFIDENCE) / 2)
    p, shrink = right / count, 1 + z * z / count
    center = (p + z * z / (2 * count)) / shrink
    half = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count)) / shrink
    return max(0.0, center - half), min(1.0, center + half)


def mcnemar_p(first_alone: int, second_alone: int) -> float:
    """How probable a difference of this size is by chance, if of the texts that one of two has right, each is the first's or
    the second's with probability ½ (McNemar 1947, in its exact form).
    """
    n, fewer = first_alone + second_alone, min(first_alone, second_alone)
    return min(1.0, 2 * sum(comb(n, k) for k in range(fewer + 1)) / 2**n)


def _baseline(right: np.ndarray, model_right: np.ndarray) -> BaselineAccuracy:
    alone, model_alone = int((right & ~model_right).sum()), int((model_right & ~right).sum())
    return BaselineAccuracy(
        accuracy=float(right.mean()),
        interval=wilson_interval(int(right.sum()), len(right)),
        right_alone=alone,
        model_right_alone=model_alone,
        significant=mcnemar_p(alone, model_alone) < SIGNIFICANCE_LEVEL,
    )


def _class_score(confusion: np.ndarray, number: int) -> ClassScore:
    hits, texts, taken = (
        int(total) for total in (confusion[number, number], confusion[number].sum(), confusion[:, number].sum())
    )
    return ClassScore(
        texts=texts,
        precision=hits / taken if taken else None,
        recall=hits / texts if texts else None,
        f1=2 * hits / (texts + taken) if texts + taken else None,
    )


def read_class_evaluation(folder: Path) -> ClassEvaluation:
    """As `read_evaluation_of`, of the classifier in `folder`."""
    return read_evaluation_of(folder, ClassEvaluation)
