"""Byte-pair encoding by scores, as SentencePiece does it: of all pairs of neighbors that are a piece, the one of the highest
score is merged first; of several, the leftmost (Kudo and Richardson 2018, section 3.1).
"""

from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import Mapping


def merge_by_score(text: str, scores: Mapping[str, float]) -> list[str]:
    """The symbols that remain of the characters of `text`, in n log n steps.

    `after` and `before` link the symbols that remain. `heap` gives the best pair; it is stale if one of its two symbols has
    been merged since, which their lengths show.
    """
    symbols = list(text)
    after, before = list(range(1, len(text) + 1)), list(range(-1, len(text) - 1))

    def entry(left: int, right: int) -> tuple[float, int, int, int] | None:
        score = scores.get(symbols[left] + symbols[right])
        return None if score is None else (-score, left, right, len(symbols[left]) + len(symbols[right]))

    heap = [pair for left in range(len(text) - 1) if (pair := entry(left, left + 1))]
    heapify(heap)
    while heap:
        _, left, right, length = heappop(heap)
        if not symbols[left] or not symbols[right] or len(symbols[left]) + len(symbols[right]) != length:
            continue
        symbols[left] += symbols[right]
        symbols[right] = ""
        after[left] = after[right]
        if after[left] < len(text):
            before[after[left]] = left
        for first, second in ((before[left], left), (left, after[left])):
            if first >= 0 and second < len(text) and (new := entry(first, second)):
                heappush(heap, new)
    return [symbol for symbol in symbols if symbol]


def merge_by_score_naively(text: str, scores: Mapping[str, float]) -> list[str]:
    """As `merge_by_score`: all pairs are looked at before each merge."""
    symbols = list(text)
    while True:
        pairs = [(-scores[a + b], at) for at, (a, b) in enumerate(pairwise(symbols)) if a + b in scores]
        if not pairs:
            return symbols
        at = min(pairs)[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
