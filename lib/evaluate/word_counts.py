"""Classifiers that count words, which a model of texts is compared with: naive Bayes and logistic regression.

Words are runs of letters and digits, in lower case. A word that no training text has is passed over.
"""

import re
from collections import Counter, deque
from typing import Callable, Protocol, Sequence

import numpy as np

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
    """Logits that are linear in the counts of words: the least Σ -ln p(class | text) + ½ Σ w² over all weights w.

    The biases are not in the second sum. The whole is convex, so that no random start is needed.
    """

    def __init__(self, texts: Sequence[str], labels: np.ndarray, n_classes: int) -> None:
        self._vocabulary = Vocabulary(texts)
        self._shape = (len(self._vocabulary.columns) + 1, n_classes)  # the last row has the biases
        words, rows = self._vocabulary.bags(texts)

        def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
            table = weights.reshape(self._shape)
            logits = _sum_rows(table, words, rows, len(texts))
            largest = logits.max(axis=1, keepdims=True)
            log_sum = np.log(np.exp(logits - largest).sum(axis=1, keepdims=True)) + largest
            own = np.arange(len(texts)), labels
            errors = np.exp(logits - log_sum)  # probabilities, less 1 for the text's own class
            errors[own] -= 1
            gradient = np.stack([np.bincount(words, errors[rows, k], self._shape[0]) for k in range(n_classes)], axis=1)
            gradient[-1] = errors.sum(axis=0)
            gradient[:-1] += table[:-1]
            return float((log_sum[:, 0] - logits[own]).sum() + (table[:-1] ** 2).sum() / 2), gradient.ravel()

        self.weights = minimize(loss, np.zeros(self._shape[0] * n_classes)).reshape(self._shape)

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        words, rows = self._vocabulary.bags(texts)
        return np.asarray(_sum_rows(self.weights, words, rows, len(texts)).argmax(axis=1))


def _sum_rows(table: np.ndarray, words: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """The sum of the rows of `table` for the words of each text, and its last row: (count, K)."""
    sums = [np.bincount(rows, table[words, k], count) + table[-1, k] for k in range(table.shape[1])]
    return np.stack(sums, axis=1)


def minimize(
    function: Callable[[np.ndarray], tuple[float, np.ndarray]], x: np.ndarray, tolerance: float = 1e-6, most_steps: int = 1000
) -> np.ndarray:
    """Where the smooth convex `function`, which gives its value and gradient, is least: L-BFGS, from `x` on.

    Its direction is the gradient, corrected by how the gradient changed over the last ten steps (Nocedal and Wright 2006,
    algorithm 7.4); a step is halved until the value falls enough. The end is where no part of the gradient exceeds `tolerance`.
    """
    value, gradient = function(x)
    changes: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=10)  # of x and of the gradient
    for _ in range(most_steps):
        if np.abs(gradient).max() <= tolerance:
            break
        direction, factors = gradient.copy(), []
        for dx, dg in reversed(changes):
            factors.append((dx @ direction) / (dx @ dg))
            direction -= factors[-1] * dg
        direction *= (changes[-1][0] @ changes[-1][1]) / (changes[-1][1] @ changes[-1][1]) if changes else 1 / len(x)
        for dx, dg in changes:
            direction += (factors.pop() - (dg @ direction) / (dx @ dg)) * dx
        step, slope = 1.0, gradient @ direction
        while (next_value := function(x - step * direction)[0]) > value - 1e-4 * step * slope and step > 1e-10:
            step /= 2
        moved = x - step * direction
        value, next_gradient = next_value, function(moved)[1]
        if (moved - x) @ (next_gradient - gradient) > 0:
            changes.append((moved - x, next_gradient - gradient))
        x, gradient = moved, next_gradient
    return x


class Vocabulary:
    """The words of training texts, sorted."""

    def __init__(self, texts: Sequence[str]) -> None:
        words = Counter(word for text in texts for word in _WORD.findall(text.lower()))
        self.columns = {word: column for column, word in enumerate(sorted(words))}

    def words(self, text: str) -> np.ndarray:
        """The column of each word of `text` that is known, in order."""
        known = (self.columns.get(word) for word in _WORD.findall(text.lower()))
        return np.array([column for column in known if column is not None], np.int64)

    def bags(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The columns of the words of all texts, and the number of the text that each is in."""
        words = [self.words(text) for text in texts]
        rows = np.repeat(np.arange(len(texts)), [len(columns) for columns in words])
        return np.concatenate([np.empty(0, np.int64), *words]), rows


#: What a classifier is compared with, by the names of tables.
PREDICTORS: dict[str, Callable[[Sequence[str], np.ndarray, int], Predictor]] = {
    "most frequent class": MostFrequent,
    "naive Bayes": NaiveBayes,
    "logistic regression": LogisticRegression,
}
