"""Interpolated Witten-Bell smoothing (Witten and Bell 1991): simple, and behind Kneser-Ney on every text here.

After a context that was seen N times with T distinct followers, p = (c + T·p_shorter)/(N + T): c counts this follower, and
p_shorter is the same with the context one token shorter; a unigram's p_shorter is 1/V.
"""

from typing import Iterator

import numpy as np

from lib.data.shards import TokenSource
from lib.ngrams.counts import NGRAM_NAMES, NGrams, at_numbers


class WittenBell:
    """The smoothed probabilities of the orders 1 to K of `ngrams`."""

    def __init__(self, ngrams: NGrams) -> None:
        self.ngrams = ngrams

    def nats(self, tokens: TokenSource, start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        """The loss of each id `start` to `stop` of `tokens`, by the name of the order; in blocks, in order, (n,) arrays."""
        for lookups in self.ngrams.lookups(tokens, start, stop):
            losses, p = {}, np.asarray(1 / self.ngrams.vocab_size)
            for n, (table, contexts, numbers) in enumerate(lookups, 1):
                c = at_numbers(table.counts, numbers)
                N, T = table.totals(contexts, table.counts, np.sign)
                p = np.where(N > 0, (c + T * p) / np.maximum(N + T, 1), p)
                losses[NGRAM_NAMES[n]] = -np.log(p)
            yield losses
