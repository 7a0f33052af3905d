"""The windows of each optimizer step, and the distributions that their targets are mixed with: functions of (seed, step).

The first windows of a batch are read from the dataset, which visits each once an epoch; the last ones are invented if
`train.invented_share` asks for it.

B windows, T context length, V vocabulary
"""

import numpy as np
import torch
from torch import Tensor

from lib.config.schema import TrainConfig
from lib.data.dataset import Dataset
from lib.model.loss import SoftTargets
from lib.train.invented_text import InventedText
from lib.train.teacher import Teacher


class Batches:
    """The batches of a training on `dataset`, on the CPU."""

    def __init__(self, dataset: Dataset, config: TrainConfig, columns: np.ndarray | None = None) -> None:
        """`columns`: (V,) the column of each token in the soft targets. UsageError if the text is too long to be counted."""
        self.dataset, self.config = dataset, config
        self._teacher = self._invented = None
        self._from_dataset = config.batch_size - config.invented_windows
        if not config.counts_share:
            return
        self._teacher = Teacher(dataset, config.counts_order, columns)
        if config.invented_windows:
            self._invented = InventedText(dataset.tokens.read(*dataset.split("train")))

    def batch(self, step: int, rows: range | None = None) -> tuple[Tensor, SoftTargets | None]:
        """Batch `step` (from 0), or only these `rows` of it: ids, (B, T + 1), and what the B · T targets are mixed with."""
        rows = range(self.config.batch_size) if rows is None else rows
        read = range(rows.start, min(rows.stop, self._from_dataset))
        invented = range(max(rows.start, self._from_dataset), rows.stop)
        parts = [make(step, part) for make, part in ((self._read, read), (self._invent, invented)) if part]
        ids = torch.from_numpy(np.concatenate([ids for ids, _ in parts]).astype(np.int64))
        distributions = [distribution for _, distribution in parts if distribution is not None]
        return ids, SoftTargets(torch.cat(distributions), self.config.counts_share) if distributions else None

    def _read(self, step: int, rows: range) -> tuple[np.ndarray, Tensor | None]:
        """These rows of the batch, windows of the dataset."""
        starts = self.dataset.window_starts(self.config.seed, step, self._from_dataset, rows)
        ids = self.dataset.read_windows(starts)
        if self._teacher is None:
            return ids, None
        positions = starts[:, None] + np.arange(1, self.dataset.context_length + 1)
        return ids, self._teacher.rows(positions.flatten())

    def _invent(self, step: int, rows: range) -> tuple[np.ndarray, Tensor]:
        """These rows of the batch, invented windows. Each has some ids before it, which the counts look at."""
        assert self._teacher is not None
        assert self._invented is not None
        before = max(0, self.config.counts_order - 2)
        seeds = [(self.config.seed, step, row) for row in rows]
        ids = self._invented.read(before + self.dataset.context_length + 1, seeds)
        return ids[:, before:], self._teacher.rows_of(ids, before + 1)
