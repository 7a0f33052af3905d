"""Interpolated modified Kneser-Ney smoothing (Chen and Goodman 1999, section 3.2), the strongest way to count n-grams.

    p_n(w | context) = (c - D(c)) / N  +  (sum of D over the followers) / N · p_{n-1}(w | context less its first token)

c is how often w followed the context and N the sum of that over all followers. D(c) is D1 for 1, D2 for 2 and D3 for more:
what is taken from the followers that were seen goes to the shorter context. The highest order takes c from the text; a lower
order is asked only where the longer context says little, so its c is the number of distinct tokens before the n-gram
(Kneser and Ney 1995). Below the unigram stands 1/V, so that every token has a probability above 0. A context that was never
seen leaves the shorter one as it is.

A model of order 4 uses continuation counts for its trigrams, one of order 3 raw counts: both tables of an order are kept, so
one pass scores all orders.
"""

from dataclasses import dataclass
from typing import Iterator

import numpy as np

from lib.data.shards import TokenSource
from lib.ngrams.counts import NGRAM_NAMES, NGrams, OrderCounts, at_numbers

#: D1, D2 and D3 where the text gives no usable estimate, as in KenLM (Heafield et al. 2013).
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)


def estimate_discounts(counts: np.ndarray) -> tuple[float, float, float]:
    """D1, D2 and D3 from the counts of counts n1 to n4: Y = n1/(n1 + 2·n2), Dk = k - (k + 1)·Y·n_{k+1}/n_k.

    `FALLBACK_DISCOUNTS` if n1, n2 or n3 is 0 or a Dk is not above 0: so in tiny texts, and for few types in a long text.
    """
    n1, n2, n3, n4 = (int(np.count_nonzero(counts == k)) for k in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return FALLBACK_DISCOUNTS
    Y = n1 / (n1 + 2 * n2)
    discounts = (1 - 2 * Y * n2 / n1, 2 - 3 * Y * n3 / n2, 3 - 4 * Y * n4 / n3)
    return discounts if min(discounts) > 0 else FALLBACK_DISCOUNTS


@dataclass(frozen=True)
class DiscountedCounts:
    """The counts of one order by n-gram number, raw or of continuations, with D(0) = 0, D1, D2 and D3."""

    table: OrderCounts
    counts: np.ndarray
    discounts: np.ndarray

    def discount(self, counts: np.ndarray) -> np.ndarray:
        """D of each of `counts`."""
        return self.discounts[np.minimum(counts, 3)]

    def probabilities(self, contexts: np.ndarray, numbers: np.ndarray, shorter: np.ndarray) -> np.ndarray:
        """P of each n-gram, given its p with the context one token shorter: (n,)."""
        c = at_numbers(self.counts, numbers)
        N, discounted = self.table.totals(contexts, self.counts, self.discount)
        return np.where(N > 0, (c - self.discount(c) + discounted * shorter) / np.maximum(N, 1), shorter)

    def followers(self, contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of each of `contexts` (N,): its followers' rows in it, their n-gram numbers and their p without the shorter context;
        and the weight (N,) of the shorter context.
        """
        row, numbers = self.table.followers(contexts)
        c = self.counts[numbers]
        N = np.bincount(row, weights=c, minlength=len(contexts))
        discounted = np.bincount(row, weights=self.discount(c), minlength=len(contexts))
        p = (c - self.discount(c)) / np.maximum(N, 1)[row]
        return row, numbers, p, np.where(N > 0, discounted / np.maximum(N, 1), 1)


class KneserNey:
    """The smoothed probabilities of the orders 1 to K of `ngrams`.

    Counted on the training text less one part, with `ngrams` of the ranges around it, it predicts that part unseen.
    """

    def __init__(self, ngrams: NGrams) -> None:
        self.ngrams = ngrams
        self.raw = [_discounted(table, table.counts) for table in ngrams.orders]
        self.lower = [_discounted(table, table.continuations) for table in ngrams.orders if table.continuations is not None]
        unigram = (self.lower or self.raw)[0]
        _, ids, p, weight = unigram.followers(np.zeros(1, np.int64))
        self._unigram = np.full(ngrams.vocab_size, weight[0] / ngrams.vocab_size, np.float32)  # that of the model of order K
        self._unigram[unigram.table.keys[ids]] += p.astype(np.float32)

    def nats(self, tokens: TokenSource, start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        """The loss of each id `start` to `stop` of `tokens`, by the name of the order; in blocks, in order, (n,) arrays."""
        for lookups in self.ngrams.lookups(tokens, start, stop):
            losses, shorter = {}, np.asarray(1 / self.ngrams.vocab_size)
            for n, (_, contexts, numbers) in enumerate(lookups, 1):
                losses[NGRAM_NAMES[n]] = -np.log(self.raw[n - 1].probabilities(contexts, numbers, shorter))
                if n <= len(self.lower):
                    shorter = self.lower[n - 1].probabilities(contexts, numbers, shorter)
            yield losses

    def rows(self, tokens: TokenSource, positions: np.ndarray, columns: np.ndarray | None = None) -> np.ndarray:
        """The distributions of order K over the id at each of `positions` of `tokens`, given the ids before: (N, V) float32.

        `columns`: (V,) the column that each id has in the result; ids in one column are summed, but no two that were counted
        may share one. By default each id has its own.
        """
        V, K = self.ngrams.vocab_size, len(self.raw)
        contexts = self.ngrams.contexts(tokens, np.asarray(positions, np.int64))
        weight = np.ones(len(positions))  # of what the shorter contexts say, by row
        seen = []
        for n in range(K, 1, -1):  # from the longest context down
            counts = self.raw[n - 1] if n == K else self.lower[n - 1]
            row, numbers, p, shorter = counts.followers(contexts[n - 1])
            seen.append((row, counts.table.keys[numbers] % V, (weight[row] * p).astype(np.float32)))
            weight *= shorter
        unigram = self._unigram if columns is None else np.bincount(columns, weights=self._unigram).astype(np.float32)
        rows = weight.astype(np.float32)[:, None] * unigram  # (N, V)
        for row, ids, p in seen:
            rows[row, ids if columns is None else columns[ids]] += p  # a follower occurs once in its row
        return rows


def _discounted(table: OrderCounts, counts: np.ndarray) -> DiscountedCounts:
    return DiscountedCounts(table, counts, np.array([0.0, *estimate_discounts(counts)]))
