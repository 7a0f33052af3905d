"""Labeled texts split for training, validation and test: which text is in which split, and its class.

The texts are shuffled, since a file often has one class after the other. With fractions V for validation and U for test, n
texts give floor(n·(1-V-U)) for training and floor(n·V) for validation; the rest is for test, or, if U is 0, for validation too.
Balanced, every class first keeps as many texts as the smallest has. The shuffling is that of `numpy.random.RandomState`, whose
numbers are frozen: with the seed 123 the spam messages of the textbook are in its splits (Raschka 2024, section 6.2).

Which text is in which split is written as `lib.data.text_split` says. A text longer than the context is cut at its end.
"""

import math
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Iterable, NamedTuple

import numpy as np

from lib.data.packed import text_starts
from lib.data.shards import Tokens, open_shard
from lib.data.text_split import TEXTS_FILE, SplitTexts, TextSplit
from lib.errors import MakegptError


@dataclass(frozen=True, kw_only=True)
class LabeledSplit(TextSplit):
    """In dataset.json: the names of the classes, and how many texts each split has."""

    classes: tuple[str, ...]


class LabeledIds(NamedTuple):
    """The ids of a text, (n,) int64, and the number of its class."""

    ids: np.ndarray
    label: int


class LabeledTexts(SplitTexts):
    """The labeled texts of `tokens` that a dataset has, each cut to `length` tokens.

    `numbers`: as in the file. MakegptError if they do not fit the tokens.
    """

    split: LabeledSplit

    def __init__(self, tokens: Tokens, numbers: np.ndarray, split: LabeledSplit, length: int) -> None:
        assert tokens.labels is not None
        super().__init__(tokens, numbers, split)
        self._length = length
        self._labels = tokens.labels.read(0, len(tokens.labels))
        n_texts = len(self._starts) - 1
        fits = len(self._labels) == n_texts and self._labels.max() < len(split.classes)
        self._check(n_texts, "labeled", fits=bool(fits))

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.split.classes

    def lengths(self, name: str) -> np.ndarray:
        """How many tokens each text of a split has, cut."""
        numbers = self.numbers(name)
        return np.minimum(self._starts[numbers + 1] - self._starts[numbers], self._length)

    @cached_property
    def cut(self) -> int:
        """How many texts are longer than the context."""
        numbers = np.asarray(self._numbers)
        return int((self._starts[numbers + 1] - self._starts[numbers] > self._length).sum())

    def read(self, numbers: Iterable[int]) -> list[LabeledIds]:
        """The texts with these numbers."""
        starts = [(number, int(self._starts[number]), int(self._starts[number + 1])) for number in numbers]
        return [
            LabeledIds(self._tokens.read(start, min(stop, start + self._length)).astype(np.int64), int(self._labels[number]))
            for number, start, stop in starts
        ]

    def metadata(self) -> dict[str, int]:
        """What a manifest says of it."""
        return {
            "train_texts": self.split.train,
            "val_texts": self.split.val,
            "test_texts": self.split.test,
            "cut_texts": self.cut,
        }

    @classmethod
    def open(cls, folder: Path, tokens: Tokens, split: LabeledSplit, length: int) -> "LabeledTexts":
        """The labeled texts of the dataset in `folder`."""
        return cls(tokens, open_shard(folder / TEXTS_FILE), split, length)


def split_labeled(
    tokens: Tokens, length: int, val_fraction: float, test_fraction: float, *, balance: bool, seed: int, strict: bool
) -> LabeledTexts:
    """Split the labeled texts of `tokens`. MakegptError if a split or, in the training split, a class has no text.

    `strict`: refuse a text of more than `length` tokens.
    """
    assert tokens.labels is not None
    labels = tokens.labels.read(0, len(tokens.labels))
    used = _balanced(labels, seed) if balance else np.arange(len(labels))
    numbers = used[np.random.RandomState(seed).permutation(len(used))]
    val, test = Decimal(str(val_fraction)), Decimal(str(test_fraction))
    n_train, n_val = (math.floor(len(used) * fraction) for fraction in (1 - val - test, val))
    n_test = len(used) - n_train - n_val if test else 0
    n_val = len(used) - n_train - n_test
    if n_train < 1 or n_val < 1 or (test and n_test < 1):
        raise MakegptError(
            f"{tokens.folder} holds {len(used)} labeled texts, {n_train} for training, {n_val} for validation and {n_test} for "
            "test; each split takes one: use more texts or other fractions"
        )
    if missing := [name for number, name in enumerate(tokens.classes) if number not in labels[numbers[:n_train]]]:
        raise MakegptError(
            f"no text of the class {missing[0]!r} is in the training split of {n_train}; use more texts or another seed"
        )
    split = LabeledSplit(classes=tokens.classes, train=n_train, val=n_val, test=n_test)
    texts = LabeledTexts(tokens, numbers, split, length)
    if strict and texts.cut:
        longest = numbers[np.argmax(np.diff(text_starts(tokens))[numbers])]
        raise MakegptError(
            f"{texts.cut} texts of {tokens.folder} are longer than the context of {length} tokens, text {longest + 1} most; "
            "use a longer context length, or leave out --strict to cut them"
        )
    return texts


def _balanced(labels: np.ndarray, seed: int) -> np.ndarray:
    """The numbers of the texts that are kept if each class has as many as the smallest, class by class."""
    by_class = [np.flatnonzero(labels == label) for label in range(int(labels.max()) + 1)]
    least = min(len(numbers) for numbers in by_class)
    chosen = [
        numbers if len(numbers) == least else numbers[np.random.RandomState(seed).permutation(len(numbers))[:least]]
        for numbers in by_class
    ]
    return np.concatenate(chosen)
