"""Targets softened by counts: each part of the training text is taught by the n-grams of the other parts.

A target is one token, though many could have followed. Counted n-grams know some of them: the target of each position becomes
(1 - share) · one-hot + share · q, where q is the Kneser-Ney distribution of the next token, counted on all parts of the
training text but the one that the position is in, so that no token is told of itself. That gives rare and unseen tokens
their probability, says more than one token a position, and does not reward memorizing. The trained model predicts
without counts. (Noise on the inputs as smoothing: Xie et al. 2017, arXiv:1703.02573; n-grams among the teachers:
Frydenlund et al. 2021, arXiv:2110.06961.)

N positions, V vocabulary
"""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lib.data.dataset import Dataset
from lib.data.shards import InMemoryTokens
from lib.errors import UsageError
from lib.ngrams.counts import MAX_COUNTED_TOKENS, NGrams
from lib.ngrams.kneser_ney import KneserNey

PARTS = 8


class Teacher:
    """The distributions that a training's targets are mixed with: a function of the dataset alone."""

    def __init__(self, dataset: Dataset, order: int, columns: np.ndarray | None = None) -> None:
        """`columns`: (V,) in which column of the rows each token is; those in one column are summed."""
        start, stop = dataset.split("train")
        if stop - start > MAX_COUNTED_TOKENS:
            raise UsageError(
                f"train.counts_share counts all {stop - start:,} training tokens; at most {MAX_COUNTED_TOKENS:,}: set it to 0"
            )
        self.dataset, self.order, self.columns = dataset, order, columns
        self._bounds = np.linspace(start, stop, min(PARTS, stop - start) + 1).astype(int)
        self._counts = [
            KneserNey(NGrams(dataset.tokens, [(start, begin), (end, stop)], order, dataset.vocab_size))
            for begin, end in zip(self._bounds, self._bounds[1:], strict=False)
        ]

    def rows(self, positions: np.ndarray) -> Tensor:
        """The distributions of the tokens at `positions` (N,) of the training split: (N, V), or (N, number of columns)."""
        parts = np.searchsorted(self._bounds, positions, side="right") - 1
        groups = [np.flatnonzero(parts == part) for part in range(len(self._counts))]
        blocks = [
            (group, counts.rows(self.dataset.tokens, positions[group], self.columns))
            for group, counts in zip(groups, self._counts, strict=True)
            if len(group)
        ]
        rows = np.empty((len(positions), blocks[0][1].shape[1]), np.float32)
        for group, block in blocks:
            rows[group] = block
        return torch.from_numpy(rows)

    def rows_of(self, windows: np.ndarray, start: int) -> Tensor:
        """The distributions of the ids of `windows` (B, L) from column `start` on: (B · (L - start), V).

        The windows are no part of the training text, so all of it is counted. `start` is at least `order` - 1.
        """
        positions = np.arange(windows.size).reshape(windows.shape)[:, start:]
        return torch.from_numpy(self._whole.rows(InMemoryTokens(windows.flatten()), positions.flatten(), self.columns))

    @cached_property
    def _whole(self) -> KneserNey:
        """The counts of the whole training text."""
        return KneserNey(NGrams(self.dataset.tokens, [self.dataset.split("train")], self.order, self.dataset.vocab_size))
