"""Learning byte-pair merges from counted words, in a naive and a fast way.

A word is a string of symbols. A symbol is the character whose code point is its id: chr(0) to chr(255) are the single bytes,
chr(256) is the first merge. So a pair is a string of two characters, and str.replace merges it in a word, from left to right.

The rule: each merge takes the pair of neighbors that occurs most often; of several, the one whose left id is lowest, then the
one whose right id is lowest. Strings compare by code points, so that is the lowest string.
"""

from collections import Counter, defaultdict
from heapq import heapify, heappop, heappush
from operator import add
from typing import Iterable, Iterator, Mapping

import regex

from lib.tokenizer.byte_level import cut_into_words
from lib.tokenizer.patterns import PATTERNS

#: Symbols before the first merge: the bytes.
BYTES = 256


def count_words(documents: Iterable[Iterable[str]], pattern: str) -> Counter[str]:
    """How often each word occurs in `documents`, each a text in pieces; `pattern` is a name of `PATTERNS`.

    The memory depends on the number of distinct words, not on the length of the text.
    """
    split = regex.compile(PATTERNS[pattern])
    words: Counter[str] = Counter()
    for document in documents:
        for text in cut_into_words(document):
            words.update(split.findall(text))
    return words


def learn_merges_naively(words: Mapping[str, int], size: int) -> list[str]:
    """The first `size` merges, fewer if the words run out of pairs: all pairs are counted again for each merge.

    `words`: how often each word occurs, in symbols.
    """
    merges: list[str] = []
    while len(merges) < size:
        counts: Counter[str] = Counter()
        for word, times in words.items():
            for pair in _pairs(word):
                counts[pair] += times
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merged: Counter[str] = Counter()
        for word, times in words.items():
            merged[word.replace(best, chr(BYTES + len(merges)))] += times
        merges.append(best)
        words = merged
    return merges


def learn_merges(words: Mapping[str, int], size: int) -> list[str]:
    """What `learn_merges_naively` learns, with counts that follow each merge.

    `places` finds the words that a merge changes. In them, only the pairs at the borders of the new symbol change. `heap` gives
    the most frequent pair: a merge can only lower the counts in it, and such an entry is corrected when it comes to the top.
    """
    symbols, times = list(words), list(words.values())
    counts: defaultdict[str, int] = defaultdict(int)
    places: defaultdict[str, list[int]] = defaultdict(list)  # pair -> numbers of the words that have it, or had it once
    for number, word in enumerate(symbols):
        for pair in _pairs(word):
            counts[pair] += times[number]
            places[pair].append(number)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapify(heap)
    merges: list[str] = []
    while len(merges) < size and heap:
        count, best = heappop(heap)
        if counts[best] != -count:
            if counts[best]:
                heappush(heap, (-counts[best], best))
            continue
        first, second = best[0], best[1]
        new = chr(BYTES + len(merges))
        merges.append(best)
        fresh: defaultdict[str, int] = defaultdict(int)  # the pairs of the new symbol
        for number in places.pop(best):
            parts, occurrences = symbols[number].split(best), times[number]
            symbols[number] = new.join(parts)
            for at in range(1, len(parts)):  # around each new symbol; two of them are next to each other if a part is empty
                left, right = parts[at - 1], parts[at]
                if left or at > 1:
                    counts[(left[-1:] or second) + first] -= occurrences
                    pair = (left[-1:] or new) + new
                    fresh[pair] += occurrences
                    places[pair].append(number)
                if right:
                    counts[second + right[0]] -= occurrences
                    pair = new + right[0]
                    fresh[pair] += occurrences
                    places[pair].append(number)
        counts[best] = 0
        counts.update(fresh)
        for pair, count in fresh.items():
            heappush(heap, (-count, pair))
    return merges


def _pairs(word: str) -> Iterator[str]:
    """The pairs of neighbors of `word`: "abc" has "ab" and "bc"."""
    return map(add, word, word[1:])
