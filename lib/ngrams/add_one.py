"""The add-one bigram, Laplace's rule: p = (c + 1)/(N + V) (Chen and Goodman 1999, section 2.1).

Over a few characters it is as good as others; over 50,257 tokens it wastes nearly everything on pairs that never occur.
"""

from typing import Iterator

import numpy as np

from lib.data.shards import TokenSource
from lib.ngrams.counts import ADD_ONE, NGrams, at_numbers


class AddOneBigram:
    """The bigram of `ngrams`, which has order 2 at least, with one added to every count."""

    def __init__(self, ngrams: NGrams) -> None:
        self.ngrams = ngrams

    def nats(self, tokens: TokenSource, start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        """The loss of each id `start` to `stop` of `tokens`, by name; in blocks, in order, (n,) arrays."""
        for lookups in self.ngrams.lookups(tokens, start, stop):
            next(lookups)  # the unigram
            table, contexts, numbers = next(lookups)
            N, _ = table.totals(contexts, table.counts, np.ones_like)
            yield {ADD_ONE: -np.log((at_numbers(table.counts, numbers) + 1) / (N + self.ngrams.vocab_size))}
