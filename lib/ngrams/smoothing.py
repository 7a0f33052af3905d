"""What every smoothing of counts does."""

from typing import Iterator, Protocol

import numpy as np

from lib.data.shards import TokenSource


class Smoothing(Protocol):
    """Probabilities made from counts of n-grams, each a distribution over the whole vocabulary."""

    def nats(self, tokens: TokenSource, start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        """The loss of each id `start` to `stop` of `tokens`, by name; in blocks, in order, (n,) arrays."""
