"""Counts of the n-grams of the orders 1 to K of a text: the tables that every smoothing reads.

An n-gram is a context, the number of its first n - 1 ids among the n-grams of order n - 1, and the id that follows it. The
keys context · V + id of an order are sorted, so that an n-gram's index is its own number, which is the context number of
order n + 1, and the followers of a context lie next to each other. Memory: about 20 bytes for each distinct n-gram.

Shapes: n how many ids of a block, K the highest order, V the vocabulary.
"""

from dataclasses import dataclass
from itertools import islice
from typing import Callable, Iterator, Sequence

import numpy as np

from lib.data.shards import TokenSource
from lib.ngrams.runs import Run, add_run, find, merge_all

#: The highest order that is offered.
MAX_ORDER = 8
#: The names of the orders in evaluations.
NGRAM_NAMES = {1: "unigram", 2: "bigram", 3: "trigram", **{n: f"{n}-gram" for n in range(4, MAX_ORDER + 1)}}
ADD_ONE = "add-one bigram"
#: Of a longer training text the last so many tokens are counted; docs/evaluation.md has the time and memory they take.
MAX_COUNTED_TOKENS = 50_000_000

_BLOCK = 1 << 20


def ngram_label(name: str) -> str:
    """The label of a baseline in tables with runs."""
    return f"{name} (counts)" if name in (*NGRAM_NAMES.values(), ADD_ONE) else name


@dataclass(frozen=True)
class OrderCounts:
    """The distinct n-grams of one order.

    `keys`: context · V + id, sorted. By n-gram number: `counts`, how often it was seen, and `continuations`, how many
    distinct ids were seen before it; None for the highest order. The followers of context c are the n-grams
    `starts[c]` to `starts[c + 1]`.
    """

    keys: np.ndarray
    counts: np.ndarray
    starts: np.ndarray
    continuations: np.ndarray | None

    def followers(self, contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The n-grams that begin with each of `contexts`: the index of the context, and the n-gram's number."""
        first, lengths = self._spans(contexts)
        index = np.repeat(np.arange(len(contexts)), lengths)
        offsets = np.cumsum(lengths) - lengths
        return index, np.arange(len(index)) + (first - offsets)[index]

    def totals(
        self, contexts: np.ndarray, counts: np.ndarray, weight: Callable[[np.ndarray], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Over the followers of each of `contexts`, the sum of `counts` and that of `weight` of them; 0 for -1, (n,) float64.

        `counts`: by n-gram number. Each context is summed once, in blocks, so that memory stays bounded.
        """
        unique, inverse = np.unique(contexts, return_inverse=True)
        ends = np.cumsum(self._spans(unique)[1])
        cuts = np.unique(np.searchsorted(ends, np.arange(0, (ends[-1] if len(ends) else 0) + _BLOCK, _BLOCK)))
        sums = np.zeros((2, len(unique)))
        for begin, end in zip(cuts, [*cuts[1:], len(unique)], strict=True):
            index, numbers = self.followers(unique[begin:end])
            sums[0, begin:end] = np.bincount(index, weights=counts[numbers], minlength=end - begin)
            sums[1, begin:end] = np.bincount(index, weights=weight(counts[numbers]), minlength=end - begin)
        return sums[0, inverse], sums[1, inverse]

    def _spans(self, contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the followers of each of `contexts` start, and how many they are, 0 for -1: (n,) int64 each."""
        known = contexts >= 0
        first, lengths = np.zeros((2, len(contexts)), np.int64)
        first[known] = self.starts[contexts[known]]
        lengths[known] = self.starts[contexts[known] + 1] - first[known]
        return first, lengths


class NGrams:
    """The counts of the orders 1 to `order`: `orders[n - 1]` has those of order n.

    `ranges`: (start, stop) of the parts of `tokens` that are counted, fewer than 2³¹ ids in all; no n-gram crosses from one
    into the next. `vocab_size`: V; every id is below it. `counted`: (start, stop) -> whether an n-gram that ends with each of
    these ids counts, (stop - start,) bool; those that never do are contexts with a count of 0. By default all count.
    """

    def __init__(
        self,
        tokens: TokenSource,
        ranges: Sequence[tuple[int, int]],
        order: int,
        vocab_size: int,
        counted: Callable[[int, int], np.ndarray] | None = None,
    ) -> None:
        self.vocab_size = vocab_size
        self.orders: list[OrderCounts] = []
        # For each range: the number of the n - 1 ids before each id, for growing n; one more at the end.
        before = [np.zeros(max(0, stop - start) + 1, np.uint32) for start, stop in ranges]

        def keys(part: int, at: int, end: int) -> np.ndarray:
            start, _ = ranges[part]
            return before[part][at - start : end - start].astype(np.int64) * vocab_size + tokens.read(at, end)

        for n in range(1, order + 1):
            blocks = [
                (part, at, min(at + _BLOCK, stop))
                for part, (start, stop) in enumerate(ranges)
                for at in range(start + n - 1, stop, _BLOCK)
            ]
            runs: list[Run] = []
            for part, at, end in blocks:
                add_run(runs, keys(part, at, end), counted and counted(at, end))
            distinct, counts = merge_all(runs)
            contexts = len(self.orders[-1].keys) if self.orders else 1
            suffixes = np.empty(len(distinct), np.uint32)  # the number of each n-gram less its first id
            for part, at, end in reversed(blocks):  # the last first: each needs the numbers before it as they were
                numbers = find(distinct, keys(part, at, end))
                following = slice(at + 1 - ranges[part][0], end + 1 - ranges[part][0])
                suffixes[numbers] = before[part][following]
                before[part][following] = numbers
            if self.orders:
                self.orders[-1] = _with_continuations(self.orders[-1], suffixes if counted is None else suffixes[counts > 0])
            self.orders.append(OrderCounts(distinct, counts, _starts(distinct, contexts, vocab_size), None))

    def numbers(self, ids: np.ndarray) -> Iterator[tuple[OrderCounts, np.ndarray, np.ndarray]]:
        """For each order its counts, and for each id the number of the context before it and of the n-gram that ends with it.

        `ids`: int64, any shape; the last dimension is the order of reading; -1 where there is none. A number is -1 if that
        was not counted.
        """
        contexts = np.zeros(ids.shape, np.int64)
        for counts in self.orders:
            numbers = find(counts.keys, np.where((contexts >= 0) & (ids >= 0), contexts * self.vocab_size + ids, -1))
            yield counts, contexts, numbers
            contexts = np.full(ids.shape, -1, np.int64)
            contexts[..., 1:] = numbers[..., :-1]

    def lookups(
        self, tokens: TokenSource, start: int, stop: int
    ) -> Iterator[Iterator[tuple[OrderCounts, np.ndarray, np.ndarray]]]:
        """`numbers` of the ids `start` to `stop` of `tokens`, in blocks; each id has the ids before it as context."""
        for at in range(start, stop, _BLOCK):
            end = min(at + _BLOCK, stop)
            first = max(0, at - len(self.orders) + 1)
            ids = tokens.read(first, end).astype(np.int64)
            yield ((counts, contexts[at - first :], numbers[at - first :]) for counts, contexts, numbers in self.numbers(ids))

    def contexts(self, tokens: TokenSource, positions: np.ndarray) -> list[np.ndarray]:
        """The context that each order has before the ids at `positions` (N,): K arrays (N,) of numbers, -1 if not counted."""
        ids = ids_before(tokens, positions, len(self.orders) - 1)
        shorter = islice(self.numbers(ids), len(self.orders) - 1)  # the n-grams of an order are the contexts of the next
        return [np.zeros(len(positions), np.int64), *(numbers[:, -1] for _, _, numbers in shorter)]


def ids_before(tokens: TokenSource, positions: np.ndarray, count: int) -> np.ndarray:
    """The `count` ids before each of `positions`, -1 before the beginning of `tokens`: (N, count) int64."""
    ids = np.full((len(positions), count), -1, np.int64)
    if not count or not len(positions):
        return ids
    order = np.argsort(positions, kind="stable")
    cuts = np.flatnonzero(np.diff(positions[order]) > _FAR) + 1
    for group in np.split(order, cuts):  # positions that lie close together are read at once
        first, last = max(0, int(positions[group[0]]) - count), int(positions[group[-1]])
        text = np.concatenate([np.full(count, -1, np.int64), tokens.read(first, last)])
        ids[group] = text[positions[group, None] - first + np.arange(count)]
    return ids


_FAR = 1024  # positions that are further apart are read separately


def at_numbers(table: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The table's value for each n-gram number, 0 for -1."""
    return np.where(numbers >= 0, table[numbers], 0) if len(table) else np.zeros(numbers.shape, table.dtype)


def _with_continuations(counts: OrderCounts, suffixes: np.ndarray) -> OrderCounts:
    """The counts of an order with its continuation counts, from the suffixes of the distinct n-grams of the next order."""
    continuations = np.zeros(len(counts.keys), np.uint32)
    for at in range(0, len(suffixes), _BLOCK):
        np.add.at(continuations, suffixes[at : at + _BLOCK], np.uint32(1))  # a plain 1 is added twenty times slower
    return OrderCounts(counts.keys, counts.counts, counts.starts, continuations)


def _starts(keys: np.ndarray, contexts: int, vocab_size: int) -> np.ndarray:
    """Where the followers of each context start among the sorted `keys`, and the end: (contexts + 1,)."""
    lengths = np.zeros(contexts + 1, np.uint32)
    for at in range(0, len(keys), _BLOCK):
        context = keys[at : at + _BLOCK] // vocab_size
        first, last = context[0], context[-1]
        lengths[first + 1 : last + 2] += np.bincount(context - first).astype(np.uint32)
    return np.cumsum(lengths, dtype=np.uint32)
