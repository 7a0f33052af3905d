"""What a model is measured against: guessing, and counting.

Counted n-grams with interpolated Witten-Bell smoothing (Witten and Bell 1991): after a context that was
seen N times with T distinct followers, p = (c + T·p_shorter)/(N + T), where c counts this follower and
p_shorter is the same with the context one token shorter; below the unigram stands 1/V. They are counted
on the training tokens and scored on the others, each with the tokens before it, in constant memory
but for the distinct n-grams themselves.

The add-one bigram is Laplace's rule: p = (c + 1)/(N + V) (Chen and Goodman 1999, section 2.1). Over a few
characters it is as good; over 50,257 tokens it wastes nearly everything on pairs that never occur.
"""

from dataclasses import dataclass
from typing import Iterator

import numpy as np

from lib.data.shards import TokenSource

NGRAM_NAMES = {1: "unigram", 2: "bigram", 3: "trigram", 4: "4-gram", 5: "5-gram"}
ADD_ONE = "add-one bigram"
_BLOCK = 1 << 20


def ngram_label(name: str) -> str:
    """The label of a baseline in tables with runs."""
    return f"{name} (counts)" if name in (*NGRAM_NAMES.values(), ADD_ONE) else name


#: What is counted of a longer training text are so many tokens, those at its end: see docs/evaluation.md for what they take.
MAX_COUNTED_TOKENS = 50_000_000


@dataclass(frozen=True)
class Counts:
    """The n-grams of one order n: each is a context number and the id that follows it.

    `keys`: context · V + id, sorted, for every distinct n-gram, so that its place is the n-gram's own number and
    serves as the context number of order n + 1. `times`: how often each was seen. By context number:
    `seen`: how often it was followed by anything, `followers`: by how many distinct ids.
    """

    keys: np.ndarray
    times: np.ndarray
    seen: np.ndarray
    followers: np.ndarray


class NGrams:
    """Counts of the orders 1 to `order` over the ids `start` to `stop` of `tokens`, fewer than 2³¹."""

    def __init__(self, tokens: TokenSource, start: int, stop: int, order: int, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.orders: list[Counts] = []
        before = np.zeros(stop - start + 1, np.uint32)  # of the n - 1 ids before each id, their number; one more at the end

        def keys(at: int, end: int) -> np.ndarray:
            return before[at - start : end - start].astype(np.int64) * vocab_size + tokens.read(at, end)

        for n in range(1, order + 1):
            blocks = [(at, min(at + _BLOCK, stop)) for at in range(start + n - 1, stop, _BLOCK)]
            runs: list[_Run] = []
            for at, end in blocks:
                _add(runs, np.unique(keys(at, end), return_counts=True))
            contexts = len(self.orders[-1].keys) if self.orders else 1
            self.orders.append(_counts(*_all(runs), contexts, vocab_size))
            if n < order:
                for at, end in reversed(blocks):  # the last first: each needs the numbers before it as they were
                    before[at + 1 - start : end + 1 - start] = _find(self.orders[-1].keys, keys(at, end))

    def nats(self, tokens: TokenSource, start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        """The loss of each id from `start` to `stop` of `tokens`, by the name of the count; in parts, in order, (n,) arrays."""
        for at in range(start, stop, _BLOCK):
            end = min(at + _BLOCK, stop)
            first = max(0, at - len(self.orders) + 1)
            ids = tokens.read(first, end).astype(np.int64)
            before = np.zeros(end - first, np.int64)  # of the n - 1 ids before each id, their number; -1 where never seen
            p = np.full(end - at, 1 / self.vocab_size)
            losses = {}
            for n, counts in enumerate(self.orders, 1):
                number = _find(counts.keys, np.where(before >= 0, before * self.vocab_size + ids, -1))
                c = _of(counts.times, number)[at - first :]
                N, T = (_of(table, before)[at - first :] for table in (counts.seen, counts.followers))
                p = np.where(N > 0, (c + T * p) / np.maximum(N + T, 1), p)
                losses[NGRAM_NAMES[n]] = -np.log(p)
                if n == 2:
                    losses[ADD_ONE] = -np.log((c + 1) / (N + self.vocab_size))
                before = np.concatenate([[-1], number[:-1]])
            yield losses


def _find(sorted_keys: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The place of each key among `sorted_keys`, -1 where it is not among them."""
    order = np.argsort(keys)  # a long table is searched in its own order several times faster
    keys = keys[order]
    place = np.searchsorted(sorted_keys, keys)
    there = place < len(sorted_keys)
    there[there] = sorted_keys[place[there]] == keys[there]
    positions = np.empty(len(keys), np.int64)
    positions[order] = np.where(there, place, -1)
    return positions


def _of(counts: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The count at each of the numbers, 0 where that is -1."""
    return np.where(numbers >= 0, counts[numbers], 0) if len(counts) else np.zeros(len(numbers), counts.dtype)


#: Distinct keys, sorted, and how often each was seen.
_Run = tuple[np.ndarray, np.ndarray]


def _add(runs: list[_Run], new: _Run) -> None:
    """Put a run upon a pile where each is at least twice as long as the one above it, so that n keys take n·log n steps."""
    runs.append((new[0], new[1].astype(np.uint32)))
    while len(runs) > 1 and len(runs[-2][0]) < 2 * len(runs[-1][0]):
        _merge_last(runs)


def _all(runs: list[_Run]) -> _Run:
    """The sum of all runs of a pile, which is used up."""
    while len(runs) > 1:
        _merge_last(runs)
    return runs.pop() if runs else (np.empty(0, np.int64), np.empty(0, np.uint32))


def _merge_last(runs: list[_Run]) -> None:
    """Put the sum of the last two runs in their place."""
    new, times_new = runs.pop()
    keys, times = runs.pop()
    place = np.searchsorted(keys, new)
    known = place < len(keys)
    known[known] = keys[place[known]] == new[known]
    times[place[known]] += times_new[known]
    new, times_new, place = new[~known], times_new[~known], place[~known]
    place += np.arange(len(place))
    old = np.ones(len(keys) + len(new), bool)
    old[place] = False
    runs.append((_woven(old, keys, place, new), _woven(old, times, place, times_new)))


def _woven(old: np.ndarray, values: np.ndarray, place: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The `values` where `old` is True, and the `new` ones at their places."""
    out = np.empty(len(old), values.dtype)
    out[old] = values
    out[place] = new
    return out


def _counts(keys: np.ndarray, times: np.ndarray, contexts: int, vocab_size: int) -> Counts:
    """The counts of an order from all of its keys; summed in blocks, to be sparing with memory."""
    seen, followers = np.zeros(contexts, np.uint32), np.zeros(contexts, np.uint32)
    for at in range(0, len(keys), _BLOCK):
        context = keys[at : at + _BLOCK] // vocab_size
        here, first = slice(context[0], context[-1] + 1), context[0]
        seen[here] += np.bincount(context - first, weights=times[at : at + _BLOCK]).astype(np.uint32)
        followers[here] += np.bincount(context - first).astype(np.uint32)
    return Counts(keys, times, seen, followers)
