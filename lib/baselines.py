"""What a model is measured against: guessing, and counting.

Counted n-grams with interpolated Witten-Bell smoothing (Witten and Bell 1991): after a context that was
seen N times with T distinct followers, p = (c + T·p_shorter)/(N + T), where c counts this follower and
p_shorter is the same with the context one token shorter; below the unigram stands 1/V. They are counted
on the training tokens and scored on the others, each with the tokens before it, in constant memory
but for the distinct n-grams themselves.

The add-one bigram is Laplace's rule: p = (c + 1)/(N + V) (Chen and Goodman 1999, section 2.1). Over a few
characters it is as good; over 50,257 tokens it wastes nearly everything on pairs that never occur.
"""

import math
from dataclasses import dataclass
from typing import Iterator

import numpy as np

from lib.shards import Readable

NAMES = {1: "unigram", 2: "bigram", 3: "trigram", 4: "4-gram", 5: "5-gram"}
ADD_ONE = "add-one bigram"
_BLOCK = 1 << 20


def label(name: str) -> str:
    """What a baseline is called beside runs."""
    return f"counted {name}" if name in (*NAMES.values(), ADD_ONE) else name


def uniform_nats(count: int, vocab_size: int) -> float:
    """The summed loss of `count` tokens where each of V is held equally likely."""
    return count * math.log(vocab_size)


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
    """Counts of the orders 1 to `order` over the ids `start` to `stop` of `tokens`."""

    def __init__(self, tokens: Readable, start: int, stop: int, order: int, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.orders: list[Counts] = []
        for n in range(1, order + 1):
            keys, times = np.empty(0, np.int64), np.empty(0, np.int64)
            for at in range(start + n - 1, stop, _BLOCK):
                new = self._keys(tokens, at, min(at + _BLOCK, stop), n)
                keys, times = _merge(keys, times, *np.unique(new, return_counts=True))
            contexts = keys // vocab_size
            size = len(self.orders[-1].keys) if self.orders else 1
            seen = np.bincount(contexts, weights=times, minlength=size)
            self.orders.append(Counts(keys, times, seen, np.bincount(contexts, minlength=size)))

    def nats(self, tokens: Readable, start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        """The loss of each id from `start` to `stop` of `tokens`, by the name of the count; in parts, in order, (n,) arrays."""
        for at in range(start, stop, _BLOCK):
            p = np.full(min(at + _BLOCK, stop) - at, 1 / self.vocab_size)
            found = {}
            for n in range(1, len(self.orders) + 1):
                c, N, T = self._found(tokens, at, at + len(p), n)
                p = np.where(N > 0, (c + T * p) / np.maximum(N + T, 1), p)
                found[NAMES[n]] = -np.log(p)
                if n == 2:
                    found[ADD_ONE] = -np.log((c + 1) / (N + self.vocab_size))
            yield found

    def _found(self, tokens: Readable, start: int, stop: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each id from `start` to `stop` behind its n - 1 before: c, N and T; zeros where they were never seen."""
        counts = self.orders[n - 1]
        keys = self._keys(tokens, start, stop, n)
        number = _find(counts.keys, keys)
        context = keys // self.vocab_size  # -1 where the context itself was never seen
        return (
            np.where(number >= 0, counts.times[number], 0),
            np.where(keys >= 0, counts.seen[context], 0),
            np.where(keys >= 0, counts.followers[context], 0),
        )

    def _keys(self, tokens: Readable, start: int, stop: int, n: int) -> np.ndarray:
        """The key of the n-gram that ends at each id from `start` to `stop`; -1 where its context was never seen."""
        first = max(0, start - n + 1)
        ids = tokens.read(first, stop).astype(np.int64)
        lead = start - first  # ids before `start`; n - 1 of them but at the very beginning
        ids = np.concatenate([np.full(n - 1 - lead, -1, np.int64), ids])
        context = np.zeros(stop - start, np.int64)
        for k in range(n - 1):  # walk from the id furthest back to the one just before, numbering ever longer contexts
            followers = ids[k : k + len(context)]
            keys = np.where((context >= 0) & (followers >= 0), context * self.vocab_size + followers, -1)
            context = _find(self.orders[k].keys, keys)
        return np.where(context >= 0, context * self.vocab_size + ids[n - 1 :], -1)


def _find(sorted_keys: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The place of each key among `sorted_keys`, -1 where it is not among them."""
    place = np.searchsorted(sorted_keys, keys)
    there = place < len(sorted_keys)
    there[there] = sorted_keys[place[there]] == keys[there]
    return np.where(there, place, -1)


def _merge(keys: np.ndarray, times: np.ndarray, new_keys: np.ndarray, new_times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sum of two counts over sorted, distinct keys."""
    merged, where = np.unique(np.concatenate([keys, new_keys]), return_inverse=True)
    total = np.zeros(len(merged), np.int64)
    np.add.at(total, where, np.concatenate([times, new_times]))
    return merged, total
