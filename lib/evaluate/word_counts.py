"""Classifiers that count words, which a model of texts is compared with: naive Bayes and logistic regression.

Words are runs of letters and digits, in lower case. A word that no training text has is passed over.
"""

import re
from collections import Counter
from typing import Callable, Protocol, Sequence

import numpy as np
import torch
from torch.nn import functional as F

_WORD = re.compile(r"\w+")


class Predictor(Protocol):
    """What is learned of labeled texts."""

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """The number of the class of each text, (N,)."""


class MostFrequent:
    """Always the class that most training texts have, of several the first."""

    def __init__(self, texts: Sequence[str], labels: np.ndarray, n_classes: int) -> None:
        self._label = int(np.bincount(labels, minlength=n_classes).argmax())

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        return np.full(len(texts), self._label)


class NaiveBayes:
    """Multinomial naive Bayes: ln p(class) + Σ ln p(word | class), each word of a class counted once more than it occurs.

    As if each word of a text were drawn by itself (Manning, Raghavan and Schütze 2008, section 13.2).
    """

    def __init__(self, texts: Sequence[str], labels: np.ndarray, n_classes: int) -> None:
        self._vocabulary = Vocabulary(texts)
        counts = np.ones((n_classes, len(self._vocabulary.columns)))
        for text, label in zip(texts, labels, strict=True):
            np.add.at(counts[label], self._vocabulary.words(text), 1)
        self._words = np.log(counts / counts.sum(axis=1, keepdims=True))
        with np.errstate(divide="ignore"):  # a class without training texts
            self._classes = np.log(np.bincount(labels, minlength=n_classes) / len(labels))

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        scores = [self._classes + self._words[:, self._vocabulary.words(text)].sum(axis=1) for text in texts]
        return np.array([score.argmax() for score in scores])


class LogisticRegression:
    """Logits that are linear in the counts of words: the least Σ -ln p(class | text) + ½ Σ w², found by L-BFGS.

    The sum is strictly convex in the weights, so that there is one solution, which needs no random start. The biases are not
    in the second sum.
    """

    def __init__(self, texts: Sequence[str], labels: np.ndarray, n_classes: int) -> None:
        self._vocabulary = Vocabulary(texts)
        words, offsets = self._vocabulary.bags(texts)
        targets = torch.from_numpy(labels.astype(np.int64))
        self.weights = torch.zeros(len(self._vocabulary.columns), n_classes, dtype=torch.float64, requires_grad=True)
        self.biases = torch.zeros(n_classes, dtype=torch.float64, requires_grad=True)
        solver = torch.optim.LBFGS(
            [self.weights, self.biases], max_iter=500, tolerance_grad=1e-6, tolerance_change=0, line_search_fn="strong_wolfe"
        )

        def loss() -> torch.Tensor:
            solver.zero_grad()
            logits = F.embedding_bag(words, self.weights, offsets, mode="sum") + self.biases
            total = F.cross_entropy(logits, targets, reduction="sum") + self.weights.square().sum() / 2
            total.backward()  # type: ignore[no-untyped-call]
            return total

        solver.step(loss)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def predict(self, texts: Sequence[str]) -> np.ndarray:
        words, offsets = self._vocabulary.bags(texts)
        return (F.embedding_bag(words, self.weights, offsets, mode="sum") + self.biases).argmax(dim=1).numpy()


class Vocabulary:
    """The words of training texts, sorted."""

    def __init__(self, texts: Sequence[str]) -> None:
        words = Counter(word for text in texts for word in _WORD.findall(text.lower()))
        self.columns = {word: column for column, word in enumerate(sorted(words))}

    def words(self, text: str) -> np.ndarray:
        """The column of each word of `text` that is known, in order."""
        known = (self.columns.get(word) for word in _WORD.findall(text.lower()))
        return np.array([column for column in known if column is not None], np.int64)

    def bags(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """The words of all texts, and where each text begins."""
        words = [self.words(text) for text in texts]
        offsets = np.cumsum([0, *map(len, words[:-1])])
        return torch.from_numpy(np.concatenate([np.empty(0, np.int64), *words])), torch.from_numpy(offsets)


#: What a classifier is compared with, by the names of tables.
PREDICTORS: dict[str, Callable[[Sequence[str], np.ndarray, int], Predictor]] = {
    "most frequent class": MostFrequent,
    "naive Bayes": NaiveBayes,
    "logistic regression": LogisticRegression,
}
