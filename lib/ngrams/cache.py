"""A unigram cache: counts that adapt to the text they are scored on (Kuhn and De Mori 1990).

    p(w)  =  (1 - λ) · p_counts(w) + λ · c(w) / N

c is how often w is among the N ids of the text that were scored already. Both parts are distributions over the whole
vocabulary, so their mean is one too. Before the first id the counts are alone.
"""

from typing import Iterator

import numpy as np

from lib.data.shards import TokenSource
from lib.ngrams.counts import NGRAM_NAMES
from lib.ngrams.kneser_ney import KneserNey

#: λ. docs/ensembles.md says what it was chosen on.
CACHE_WEIGHT = 0.05


class UnigramCache:
    """The highest order of `counts`, mixed with the frequencies of the ids that were scored already."""

    def __init__(self, counts: KneserNey, weight: float = CACHE_WEIGHT) -> None:
        self.counts, self.weight = counts, weight

    def nats(self, tokens: TokenSource, start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        """The loss of each id `start` to `stop` of `tokens`, by the name of the order; in blocks, in order, (n,) arrays."""
        name = NGRAM_NAMES[len(self.counts.raw)]
        cache, at = np.zeros(self.counts.ngrams.vocab_size, np.int64), start
        for losses in self.counts.nats(tokens, start, stop):
            ids = tokens.read(at, at + len(losses[name])).astype(np.int64)
            N = at - start + np.arange(len(ids))
            c = cache[ids] + earlier_occurrences(ids)
            p = np.exp(-losses[name])
            yield {name: -np.log(np.where(N > 0, (1 - self.weight) * p + self.weight * c / np.maximum(N, 1), p))}
            cache += np.bincount(ids, minlength=len(cache))
            at += len(ids)


def earlier_occurrences(ids: np.ndarray) -> np.ndarray:
    """How often each of `ids` occurs before its position: (n,)."""
    order = np.argsort(ids, kind="stable")
    first = np.searchsorted(ids[order], ids[order])
    occurrences = np.empty(len(ids), np.int64)
    occurrences[order] = np.arange(len(ids)) - first
    return occurrences
