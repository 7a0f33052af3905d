"""Pairs of answers: the chosen text and the rejected one, which begin alike, and which tokens of both are compared.

A dataset of pairs lists those for training as `lib.data.packed` lists windows, two texts each. A text longer than T + 1 ids is
cut at its end. A pair whose texts are then equal, or of which no answer is left, has nothing to compare and is left out.
"""

from typing import Iterable, Iterator, NamedTuple

import numpy as np

from lib.data.packed import Packed
from lib.data.shards import REJECTED, TRAINED, Tokens
from lib.errors import MakegptError


class Text(NamedTuple):
    """The `ids` of a text, and which of them an answer consists of; (n,) each."""

    ids: np.ndarray
    answer: np.ndarray


class Pair(NamedTuple):
    """Two texts, of which the answers differ."""

    chosen: Text
    rejected: Text


def has_pairs(tokens: Tokens, starts: np.ndarray) -> bool:
    """Whether the texts that begin at `starts`, (texts + 1,), are pairs; MakegptError if only some of them are."""
    assert tokens.marks is not None
    rejected = np.array([tokens.marks.read(start, start + 1)[0] & REJECTED > 0 for start in starts[:-1].tolist()])
    if rejected.any() and not (len(rejected) % 2 == 0 and rejected[1::2].all() and not rejected[::2].any()):
        raise MakegptError(f"{tokens.folder} is damaged: a chosen or rejected answer is alone; tokenize again")
    return bool(rejected.any())


def select_pairs(tokens: Tokens, starts: np.ndarray, length: int) -> Packed:
    """The pairs of the texts at `starts`, (texts + 1,), each cut to `length`; without those that have nothing to compare."""
    sizes = np.minimum(np.diff(starts), length)
    spans = np.stack([starts[:-1], sizes], axis=1)
    kept = [number for number in range(0, len(spans), 2) if can_compare(_read(tokens, spans[number : number + 2]))]
    texts = spans[[text for number in kept for text in (number, number + 1)]] if kept else spans[:0]
    cut = int((np.diff(starts) > length).sum())
    return Packed(texts, np.arange(2, len(texts) + 1, 2), cut)


def can_compare(pair: Pair) -> bool:
    """Whether both texts have an answer, and the texts differ."""
    return all(text.answer[1:].any() for text in pair) and not np.array_equal(pair.chosen.ids, pair.rejected.ids)


def packed_pairs(tokens: Tokens, packed: Packed, numbers: Iterable[int]) -> list[Pair]:
    """The pairs for training with these `numbers`."""
    return [_read(tokens, packed.spans[2 * number : 2 * number + 2].astype(int)) for number in numbers]


def paired(texts: Iterator[tuple[np.ndarray, np.ndarray]]) -> list[Pair]:
    """The pairs that the `texts` of a split are, one after the other; without those that have nothing to compare."""
    pairs = [Pair(Text(*chosen), Text(*rejected)) for chosen, rejected in zip(texts, texts, strict=True)]
    return [pair for pair in pairs if can_compare(pair)]


def _read(tokens: Tokens, spans: np.ndarray) -> Pair:
    """The two texts at `spans`, (2, 2): the first token and the number of tokens of each."""
    assert tokens.marks is not None
    texts = []
    for start, size in spans.tolist():
        marks = tokens.marks.read(start, start + size)
        texts.append(Text(tokens.read(start, start + size), marks & TRAINED > 0))
    return Pair(*texts)
