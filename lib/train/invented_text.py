"""Text that nobody wrote: the training text, read with jumps, as Shannon did by hand (Shannon 1948, section 3).

He opened a book at random, copied a word, turned to another page, read on until that word came again, and copied the word
after it. Each pair of neighbors is then one that the book has, while longer sequences are new. Here a reader copies
several words before it jumps, and now and then jumps to any place, so that some pairs are new as well.

A short text shows a model few contexts. Invented text has as many as are wanted, and counts can say what follows each of them
(`lib/train/teacher.py`).

B windows, L tokens of a window, N tokens of the training text
"""

from typing import Sequence

import numpy as np

#: How likely a jump is after a token, and how likely a jump is one to any place. EXPERIMENTS.md says what they were chosen on.
JUMP, ANYWHERE = 0.3, 0.1


class InventedText:
    """Windows of text read with jumps: a function of the training text's ids, (N,), and of a seed for each window."""

    def __init__(self, ids: np.ndarray) -> None:
        self.ids = ids
        self._places = np.argsort(ids, kind="stable")  # those of a token lie side by side
        _, self._ranks, self._counts = np.unique(ids, return_inverse=True, return_counts=True)  # ranks: of each place's token
        self._firsts = np.cumsum(self._counts) - self._counts

    def read(self, length: int, seeds: Sequence[tuple[int, ...]]) -> np.ndarray:
        """A window of `length` ids for each of the `seeds`: (B, L)."""
        N = len(self.ids)
        draws = np.stack([np.random.default_rng(seed).random((length, 3)) for seed in seeds])  # (B, L, 3)
        jumps, anywhere = draws[..., 0] < JUMP, draws[..., 1] < ANYWHERE
        jumps[:, 0] = anywhere[:, 0] = True  # a window begins at any place
        places, windows = np.zeros(len(seeds), np.int64), np.empty((len(seeds), length), self.ids.dtype)
        for t in range(length):
            rank, draw = self._ranks[places], draws[:, t, 2]
            same = self._places[self._firsts[rank] + (draw * self._counts[rank]).astype(np.int64)]
            places = np.where(jumps[:, t], np.where(anywhere[:, t], (draw * N).astype(np.int64), same), places)
            places = (places + 1) % N
            windows[:, t] = self.ids[places]
        return windows
