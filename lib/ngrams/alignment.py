"""Alignment of letters and phonemes: which part of a word is pronounced by which part of its pronunciation.

A pair is cut into graphones, each of some letters and the phonemes they stand for: one letter and none, one or two phonemes, or
two letters and one phoneme (`SHAPES`). The probability of a cut is the product of those of its graphones. They are learned by
expectation maximization: with the present probabilities, how often each graphone is expected over all cuts of all pairs, then
its share of these (Jiampojamarn, Kondrak and Sherif 2007). `naive_expected_counts` lists the cuts of one pair; `Lattice` has
the sums over all pairs of equal lengths at once, by the forward-backward algorithm.

N pairs of equal lengths, S letters, T phonemes, A arcs of the lattice, G graphones
"""

from dataclasses import dataclass
from typing import Iterator, NamedTuple, Sequence

import numpy as np

from lib.errors import MakegptError

#: How many letters and phonemes a graphone may have.
SHAPES = ((1, 0), (1, 1), (1, 2), (2, 1))

#: Rounds of expectation maximization.
ROUNDS = 10

#: The most letters of a pair: the probability of a longer cut would be too small for a float64.
LONGEST = 40

_LARGEST = 55_000  # the fourth power of a larger number does not fit into 64 bits


class Graphone(NamedTuple):
    """Ids of letters, and those of the phonemes they stand for."""

    letters: tuple[int, ...]
    phonemes: tuple[int, ...]


class Pair(NamedTuple):
    """The ids of a source and of its target."""

    source: Sequence[int]
    target: Sequence[int]


def cuts(pair: Pair) -> Iterator[list[Graphone]]:
    """All cuts of a pair into graphones."""
    if not len(pair.source) and not len(pair.target):
        yield []
    for letters, phonemes in SHAPES:
        if letters <= len(pair.source) and phonemes <= len(pair.target):
            first = Graphone(tuple(pair.source[:letters]), tuple(pair.target[:phonemes]))
            for rest in cuts(Pair(pair.source[letters:], pair.target[phonemes:])):
                yield [first, *rest]


def naive_expected_counts(pair: Pair, probabilities: dict[Graphone, float]) -> dict[Graphone, float]:
    """How often each graphone is expected in a cut of `pair`: the plain form of `Lattice.add_expected_counts`."""
    weights = [(cut, float(np.prod([probabilities[graphone] for graphone in cut]))) for cut in cuts(pair)]
    total = sum(weight for _, weight in weights)
    expected: dict[Graphone, float] = {}
    for cut, weight in weights:
        for graphone in cut:
            expected[graphone] = expected.get(graphone, 0.0) + weight / total
    return expected


@dataclass(frozen=True)
class Lattice:
    """The cuts of N pairs of S letters and T phonemes: ways from (0, 0) to (S, T) whose arcs are graphones.

    `arcs`: (from_s, from_t, to_s, to_t) of each, sorted. `graphones`: the number of each arc's graphone in each pair, (A, N).
    """

    pairs: np.ndarray  # the number of each pair, (N,)
    size: tuple[int, int]
    arcs: list[tuple[int, int, int, int]]
    graphones: np.ndarray

    def forward(self, probabilities: np.ndarray, *, best: bool = False) -> np.ndarray:
        """The probability of all ways from the start to each node, or of the `best` of them: (S + 1, T + 1, N)."""
        S, T = self.size
        alpha = np.zeros((S + 1, T + 1, len(self.pairs)))
        alpha[0, 0] = 1
        for (s, t, to_s, to_t), numbers in zip(self.arcs, self.graphones, strict=True):
            ways = alpha[s, t] * probabilities[numbers]
            alpha[to_s, to_t] = np.maximum(alpha[to_s, to_t], ways) if best else alpha[to_s, to_t] + ways
        return alpha

    def add_expected_counts(self, probabilities: np.ndarray, counts: np.ndarray) -> None:
        """Add to `counts`, (G,), how often each graphone is expected in the cuts of these pairs."""
        alpha = self.forward(probabilities)
        beta = np.zeros_like(alpha)
        beta[-1, -1] = 1 / alpha[-1, -1]  # so that the ways of each pair sum to 1
        for (s, t, to_s, to_t), numbers in zip(reversed(self.arcs), self.graphones[::-1], strict=True):
            onward = probabilities[numbers] * beta[to_s, to_t]
            beta[s, t] += onward
            counts += np.bincount(numbers, weights=alpha[s, t] * onward, minlength=len(counts))

    def best_cuts(self, probabilities: np.ndarray) -> list[list[int]]:
        """The graphone numbers of the most probable cut of each pair."""
        alpha = self.forward(probabilities, best=True)
        at = np.tile(self.size, (len(self.pairs), 1))
        sequences: list[list[int]] = [[] for _ in self.pairs]
        for (s, t, to_s, to_t), numbers in zip(reversed(self.arcs), self.graphones[::-1], strict=True):
            taken = (at == (to_s, to_t)).all(axis=1) & (alpha[s, t] * probabilities[numbers] == alpha[to_s, to_t])
            for row in np.flatnonzero(taken):
                sequences[row].append(int(numbers[row]))
            at[taken] = s, t
        return [sequence[::-1] for sequence in sequences]


class Alignment:
    """Pairs cut into graphones: `graphones`, by number, and the `sequences` of their numbers, one of each pair that has a cut.

    Left out are pairs without a cut, and those of more than `LONGEST` letters.
    """

    def __init__(self, pairs: Sequence[Pair], rounds: int = ROUNDS) -> None:
        self._base = 2 + max((max([*pair.source, *pair.target]) for pair in pairs), default=0)
        if self._base**4 >= 2**63:
            raise MakegptError(f"an alignment numbers its graphones by ids below {_LARGEST:,}, and there is {self._base - 2:,}")
        lattices, keys = self._lattices(pairs)
        self.probabilities = np.full(len(keys), 1 / max(1, len(keys)))
        for _ in range(rounds):
            counts = np.zeros(len(keys))
            for lattice in lattices:
                lattice.add_expected_counts(self.probabilities, counts)
            self.probabilities = counts / max(1.0, counts.sum())
        self.graphones = [self._graphone(int(key)) for key in keys]
        cuts = {
            int(number): cut
            for lattice in lattices
            for number, cut in zip(lattice.pairs, lattice.best_cuts(self.probabilities), strict=True)
        }
        self.sequences = [cuts[number] for number in sorted(cuts)]

    def _lattices(self, pairs: Sequence[Pair]) -> tuple[list[Lattice], np.ndarray]:
        """A lattice for each pair of lengths, and the key of each graphone by its number."""
        by_size: dict[tuple[int, int], list[int]] = {}
        for number, pair in enumerate(pairs):
            by_size.setdefault((len(pair.source), len(pair.target)), []).append(number)
        keyed = []
        for (S, T), numbers in sorted(by_size.items()):
            if S <= LONGEST and (arcs := _arcs(S, T)):
                sources, targets = (np.array([pairs[number][side] for number in numbers], np.int64) for side in (0, 1))
                keys = np.stack([self._keys(sources[:, s:to_s], targets[:, t:to_t]) for s, t, to_s, to_t in arcs])
                keyed.append((np.array(numbers), (S, T), arcs, keys))
        keys = np.unique(np.concatenate([np.unique(keys) for *_, keys in keyed] or [np.empty(0, np.int64)]))
        return [
            Lattice(numbers, size, arcs, np.searchsorted(keys, own).astype(np.int32)) for numbers, size, arcs, own in keyed
        ], keys

    def _keys(self, letters: np.ndarray, phonemes: np.ndarray) -> np.ndarray:
        """A number for the graphone of each row: two places for letters and two for phonemes, 0 in one that is empty."""
        places = np.zeros((len(letters), 4), np.int64)
        places[:, : letters.shape[1]] = letters + 1
        places[:, 2 : 2 + phonemes.shape[1]] = phonemes + 1
        return np.asarray(places @ self._base ** np.arange(4))

    def _graphone(self, key: int) -> Graphone:
        places = [key // self._base**place % self._base for place in range(4)]
        letters, phonemes = (tuple(place - 1 for place in half if place) for half in (places[:2], places[2:]))
        return Graphone(letters, phonemes)


def _arcs(S: int, T: int) -> list[tuple[int, int, int, int]]:
    """The arcs that lie on a way from (0, 0) to (S, T), sorted: (from_s, from_t, to_s, to_t); none if there is no way."""
    nodes = [(s, t) for s in range(S + 1) for t in range(T + 1) if t <= 2 * s and T - t <= 2 * (S - s)]
    steps = ((s, t, s + letters, t + phonemes) for s, t in nodes for letters, phonemes in SHAPES)
    known = set(nodes)
    return [step for step in steps if step[2:] in known]
