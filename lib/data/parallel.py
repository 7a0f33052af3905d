"""Parallel texts split for training, validation and test, and batches of them: sources, and the targets that follow from them.

The sources are numbered from 0 in the order in which each appears first, so that all targets of a source are in one split. With
fractions V for validation and U for test, n is the least number of which both are whole parts: of every n sources the first
n·V are for validation, the next n·U for test and the rest for training. With V = 1/20 and U = 1/10 that is the rule by which
g2p-seq2seq splits a pronunciation dictionary (docs/g2p.md): sources 0, 20, 40 … are for validation, 1, 2, 21, 22 … for test.

Which pair is in which split is written as `lib.data.text_split` says. A pair is left out if its source, or its target with the
end, has more tokens than the context length.

B pairs, S and T tokens of the longest source and of the longest target
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, Sequence

import numpy as np

from lib.artifact.record import Count
from lib.data.packed import text_starts
from lib.data.shards import TRAINED, Tokens, open_shard
from lib.data.text_split import TEXTS_FILE, SplitTexts, TextSplit
from lib.errors import MakegptError


@dataclass(frozen=True, kw_only=True)
class ParallelSplit(TextSplit):
    """In dataset.json: how many pairs each split has, how many were left out, and the id before and after each target."""

    left_out: Count
    end: Count


class ParallelBatch(NamedTuple):
    """Pairs of ids, int64, padded with the id `end`, which is also the first id of a target and its last.

    `source`: (B, S), of which row b has `source_lengths[b]`. `target`: (B, T + 1), `end` before the ids and after them: its
    first T columns are what a decoder reads, its last T what it learns to write, `target_lengths[b]` of them in row b.
    """

    source: np.ndarray
    source_lengths: np.ndarray
    target: np.ndarray
    target_lengths: np.ndarray


class ParallelTexts(SplitTexts):
    """The pairs of `tokens` that a dataset has. `numbers`: as in the file. MakegptError if they do not fit the tokens."""

    split: ParallelSplit

    def __init__(self, tokens: Tokens, numbers: np.ndarray, split: ParallelSplit) -> None:
        super().__init__(tokens, numbers, split)
        self._targets = target_starts(tokens, self._starts)
        n_pairs = len(self._targets)
        self._check(n_pairs, "parallel", fits=len(numbers) + split.left_out == n_pairs)

    @property
    def end(self) -> int:
        """The id before and after each target, and of padding."""
        return self.split.end

    def tokens(self, name: str) -> int:
        """How many tokens of sources and targets a split has."""
        numbers = self.numbers(name)
        return int((self._starts[numbers + 1] - self._starts[numbers]).sum())

    def target_tokens(self, numbers: Sequence[int] | np.ndarray) -> int:
        """How many tokens the targets with these `numbers` have, with the end of each: those that are predicted."""
        at = np.asarray(numbers, np.int64)
        return int((self._starts[at + 1] - self._targets[at] + 1).sum())

    def train_batch(self, places: Sequence[int], rows: range | None = None) -> ParallelBatch:
        """The pairs at `places` among those for training, or only these `rows` of them.

        The shortest come first, so that pieces of a batch, `train.grad_accum_steps` of them, need little padding.
        """
        numbers = self.numbers("train")[np.asarray(places)]
        numbers = numbers[np.argsort(self._starts[numbers + 1] - self._starts[numbers], kind="stable")]
        return self.batch(numbers if rows is None else numbers[rows.start : rows.stop])

    def source(self, number: int) -> np.ndarray:
        """The ids of the source of a pair: (n,) int64."""
        return self._tokens.read(int(self._starts[number]), int(self._targets[number])).astype(np.int64)

    def target(self, number: int) -> np.ndarray:
        """The ids of the target of a pair, without `end`: (n,) int64."""
        return self._tokens.read(int(self._targets[number]), int(self._starts[number + 1])).astype(np.int64)

    def batch(self, numbers: Sequence[int] | np.ndarray) -> ParallelBatch:
        """The pairs with these `numbers`."""
        sources, targets = ([read(int(number)) for number in numbers] for read in (self.source, self.target))
        source, source_lengths = pad(sources, self.end)
        inside, lengths = pad(targets, self.end)
        border = np.full((len(targets), 1), self.end, np.int64)
        return ParallelBatch(source, source_lengths, np.concatenate([border, inside, border], axis=1), lengths + 1)

    def metadata(self) -> dict[str, int]:
        """What a manifest says of it."""
        split = self.split
        return {"train_pairs": split.train, "val_pairs": split.val, "test_pairs": split.test, "left_out": split.left_out}

    @classmethod
    def open(cls, folder: Path, tokens: Tokens, split: ParallelSplit) -> "ParallelTexts":
        """The parallel texts of the dataset in `folder`."""
        return cls(tokens, open_shard(folder / TEXTS_FILE), split)


def pad(texts: Sequence[np.ndarray], id: int) -> tuple[np.ndarray, np.ndarray]:
    """The `texts` as rows, (B, S) int64, filled up with `id`, and their lengths, (B,)."""
    lengths = np.array([len(text) for text in texts], np.int64)
    rows = np.full((len(texts), lengths.max()), id, np.int64)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = text
    return rows, lengths


def target_starts(tokens: Tokens, starts: np.ndarray) -> np.ndarray:
    """Where the target of each pair begins, (n,), if the pairs lie between `starts`, (n + 1,)."""
    assert tokens.marks is not None
    learned = (tokens.marks.read(0, len(tokens.marks)) & TRAINED) > 0
    return np.asarray(starts[1:] - np.add.reduceat(learned, starts[:-1], dtype=np.int64))


def split_parallel(
    tokens: Tokens, end: int, length: int, val_fraction: float, test_fraction: float, *, strict: bool
) -> ParallelTexts:
    """Split the pairs of `tokens`; `end` goes before and after each target. MakegptError if a split has none.

    `strict`: refuse a pair with a text of more than `length` tokens, which otherwise is left out.
    """
    starts = text_starts(tokens)
    targets = target_starts(tokens, starts)
    sizes = np.maximum(targets - starts[:-1], starts[1:] - targets + 1)
    if strict and (sizes > length).any():
        number = int(sizes.argmax())
        raise MakegptError(
            f"{int((sizes > length).sum())} pairs of {tokens.folder} have a text of more than {length} tokens, pair "
            f"{number + 1} most, {sizes[number]}; use a longer context length, or leave out --strict, and they are left out"
        )
    splits = split_sources(_source_numbers(tokens, starts, targets), val_fraction, test_fraction)
    kept = {name: np.flatnonzero((splits == name) & (sizes <= length)) for name in ("train", "val", "test")}
    n_train, n_val, n_test = map(len, kept.values())
    if not n_train or not n_val or (test_fraction and not n_test):
        raise MakegptError(
            f"{tokens.folder} holds {len(sizes)} pairs, {n_train} for training, {n_val} for validation and {n_test} for test; "
            "each split takes one: use more pairs, a longer context length or other fractions"
        )
    left_out = len(sizes) - n_train - n_val - n_test
    split = ParallelSplit(train=n_train, val=n_val, test=n_test, left_out=left_out, end=end)
    return ParallelTexts(tokens, np.concatenate(list(kept.values())), split)


def split_sources(numbers: np.ndarray, val_fraction: float, test_fraction: float) -> np.ndarray:
    """The split of each source, by its number: `val`, `test` or `train`."""
    val, test = (Fraction(str(fraction)) for fraction in (val_fraction, test_fraction))
    period = math.lcm(val.denominator, test.denominator)
    place = numbers % period
    n_val, n_test = int(val * period), int(test * period)
    return np.where(place < n_val, "val", np.where(place < n_val + n_test, "test", "train"))


def _source_numbers(tokens: Tokens, starts: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Of each pair, the number of its source among the different ones, in the order of first appearance: (n,) int64."""
    ids = tokens.read(0, len(tokens))
    known: dict[bytes, int] = {}
    sources = (ids[start:stop].tobytes() for start, stop in zip(starts[:-1], targets, strict=True))
    return np.array([known.setdefault(source, len(known)) for source in sources], np.int64)
