"""Learning the pieces of a Unigram model from counted words (Kudo 2018, section 3.2).

Many candidates first: every frequent substring of a word. Then, in turn, expectation maximization fits their probabilities, and
the pieces that the text needs least are removed. Characters stay, so that every word can be written.

Probabilities are multiplied and added, without a logarithm, in a fixed order: the same pieces on every processor.
"""

import math
from collections import Counter
from itertools import combinations, pairwise
from typing import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

LONGEST = 16  # characters of a piece
_LONGEST_WORD = 40  # characters; a longer word is learned from in parts
_CANDIDATES = 100_000
_KEPT = 0.75  # of the pieces that are not characters, at each removal (SentencePiece, trainer_spec.shrinking_factor)
_STEPS = 2  # of expectation maximization before each removal
_DISCOUNT, _LEAST_COUNT = 0.5, 0.01  # pieces that are hardly needed fade sooner, but each keeps a logarithm
_PER_CHARACTER = 2.0**10  # a factor for each character, the same for all ways to cut a word: long words stay above zero

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]


class Lattice:
    """All ways to cut words into pieces: an edge for each piece at each place where it fits.

    The words are given with how often each occurs. `without_whole`: a word that is a piece is not its own way.
    """

    def __init__(self, words: Mapping[str, float], pieces: Sequence[str], without_whole: bool = False) -> None:
        ids = {piece: id for id, piece in enumerate(pieces)}
        edges = [
            (end, begin, number, ids[word[begin:end]])
            for number, word in enumerate(words)
            for end in range(1, len(word) + 1)
            for begin in range(max(0, end - LONGEST), end)
            if word[begin:end] in ids and not (without_whole and end - begin == len(word) > 1)
        ]
        table = np.array(edges, dtype=np.int64).reshape(-1, 4)
        self.lengths = np.array([len(word) for word in words])
        self.times = np.array(list(words.values()), dtype=np.float64)
        self._factors = _PER_CHARACTER ** np.array([len(piece) for piece in pieces])
        self._by_end, self._by_begin = _grouped(table, 0, 1), _grouped(table, 1, 0)

    def expected_counts(self, probabilities: Floats) -> Floats:
        """How often each piece occurs in the words, each way to cut one weighted by its probability."""
        weights, count = probabilities * self._factors, len(probabilities)
        words = np.arange(len(self.lengths))
        before = np.zeros((self.lengths.max() + 1, len(words)))  # the sum over all ways to write the characters before
        after = np.zeros_like(before)
        before[0] = after[self.lengths, words] = 1
        for end, begins, word, piece in self._by_end:
            before[end] = np.bincount(word, before[begins, word] * weights[piece], len(words))
        for begin, ends, word, piece in reversed(self._by_begin):
            after[begin] += np.bincount(word, after[ends, word] * weights[piece], len(words))
        times = self.times / before[self.lengths, words]
        counts = np.zeros(count)
        for end, begins, word, piece in self._by_end:
            counts += np.bincount(piece, before[begins, word] * weights[piece] * after[end, word] * times[word], count)
        return counts

    def best(self, probabilities: Floats) -> Floats:
        """The probability of the best way to write each word."""
        weights, words = probabilities * self._factors, np.arange(len(self.lengths))
        best = np.zeros((self.lengths.max() + 1, len(words)))
        best[0] = 1
        for end, begins, word, piece in self._by_end:
            np.maximum.at(best[end], word, best[begins, word] * weights[piece])
        return best[self.lengths, words] / _PER_CHARACTER**self.lengths


def expected_counts_naively(words: Mapping[str, float], probabilities: Mapping[str, float]) -> dict[str, float]:
    """As `Lattice.expected_counts`, by the 2^(len(word) - 1) ways to cut each word."""
    counts = dict.fromkeys(probabilities, 0.0)
    for word, times in words.items():
        ways = [
            [word[begin:end] for begin, end in pairwise((0, *cuts, len(word)))]
            for number in range(len(word))
            for cuts in combinations(range(1, len(word)), number)
        ]
        chances = [math.prod(probabilities.get(piece, 0.0) for piece in way) for way in ways]
        for way, chance in zip(ways, chances, strict=True):
            for piece in way if chance else ():
                counts[piece] += times * chance / sum(chances)
    return counts


def _grouped(edges: Ids, by: int, other: int) -> list[tuple[int, Ids, Ids, Ids]]:
    """The edges by one end, in its order: this end, and of each edge the `other` one, the word and the piece."""
    edges = edges[np.argsort(edges[:, by], kind="stable")]
    places, starts = np.unique(edges[:, by], return_index=True)
    groups = np.split(edges, starts[1:])
    return [(int(place), group[:, other], group[:, 2], group[:, 3]) for place, group in zip(places, groups, strict=True)]


def learn_pieces(words: Mapping[str, int], size: int) -> dict[str, float]:
    """Up to `size` pieces and their scores, with all characters among them, the highest score first; fewer if the words have
    fewer substrings that occur twice.

    `words`: how often each occurs. `size` is at least the number of their characters.
    """
    parts: Counter[str] = Counter()
    for word, times in words.items():
        for start in range(0, len(word), _LONGEST_WORD):
            parts[word[start : start + _LONGEST_WORD]] += times
    candidates = _candidates(parts)
    pieces, probabilities = list(candidates), _normalized(np.array(list(candidates.values()), dtype=np.float64))
    while True:
        lattice = Lattice(parts, pieces)
        for _ in range(_STEPS):
            counts = lattice.expected_counts(probabilities)
            probabilities = _normalized(counts)
        if len(pieces) <= size:
            scores = {piece: round(math.log(p), 6) for piece, p in zip(pieces, probabilities.tolist(), strict=True)}
            return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))
        losses = removal_losses(pieces, probabilities, counts)
        order = sorted((id for id, piece in enumerate(pieces) if len(piece) > 1), key=lambda id: (-losses[id], pieces[id]))
        characters = len(pieces) - len(order)
        kept = set(order[: max(size - characters, int(_KEPT * len(order)))])
        left = np.array([len(piece) == 1 or id in kept for id, piece in enumerate(pieces)])
        pieces, probabilities = [piece for piece, is_left in zip(pieces, left, strict=True) if is_left], probabilities[left]


def removal_losses(pieces: Sequence[str], probabilities: Floats, counts: Floats) -> list[float]:
    """How much less likely the text becomes, in nats, if a piece is written by its best other pieces wherever it occurs."""
    others = Lattice(dict.fromkeys(pieces, 1), pieces, without_whole=True).best(probabilities)
    rows = zip(counts.tolist(), probabilities.tolist(), others.tolist(), strict=True)
    return [float(f"{count * math.log(p / other):.9g}") for count, p, other in rows]  # ties in spite of the last bits


def _candidates(words: Mapping[str, int]) -> dict[str, int]:
    """All characters, and the substrings that occur twice and make up most of the text, with how often they occur."""
    counts: Counter[str] = Counter()
    for word, times in words.items():
        for begin in range(len(word)):
            for end in range(begin + 1, min(begin + LONGEST, len(word)) + 1):
                counts[word[begin:end]] += times
    characters = sorted(piece for piece in counts if len(piece) == 1)
    longer = [piece for piece, times in counts.items() if len(piece) > 1 and times > 1]
    longer.sort(key=lambda piece: (-counts[piece] * len(piece), piece))
    return {piece: counts[piece] for piece in characters + longer[:_CANDIDATES]}


def _normalized(counts: Floats) -> Floats:
    """Probabilities. Half an occurrence less is nearly what SentencePiece's digamma of a count does."""
    counts = np.maximum(counts - _DISCOUNT, _LEAST_COUNT)
    return counts / math.fsum(counts)
