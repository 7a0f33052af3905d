"""The windows of each optimizer step, and the distributions that their targets are mixed with: functions of (seed, step).

The first windows of a batch are read from the dataset, which visits each once an epoch; the last ones are invented if
`train.invented_share` asks for it. Windows of conversations hold several of them, and say which tokens are learned.

B windows, T context length, V vocabulary
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lib.config.schema import TrainConfig
from lib.data.dataset import Dataset
from lib.errors import UsageError
from lib.model.loss import SoftTargets
from lib.train.invented_text import InventedText
from lib.train.teacher import Teacher
from lib.train.window_cache import add_window_cache


class Batch(NamedTuple):
    """Windows of a batch on one device: `ids`, (B, T + 1), what the B · T targets are mixed with, and for packed texts the
    number of each input's text and which targets are learned, (B, T) each.
    """

    ids: Tensor
    soft: SoftTargets | None = None
    packed: tuple[Tensor, Tensor] | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same on `device`."""
        soft = self.soft and SoftTargets(self.soft.rows.to(device), self.soft.share)
        packed = self.packed and (self.packed[0].to(device), self.packed[1].to(device))
        return Batch(self.ids.to(device), soft, packed)


class Batches:
    """The batches of a training on `dataset`, on the CPU."""

    def __init__(self, dataset: Dataset, config: TrainConfig, columns: np.ndarray | None = None) -> None:
        """`columns`: (V,) the column of each token in the soft targets. UsageError if the text is too long to be counted."""
        self.dataset, self.config = dataset, config
        self._teacher = self._invented = None
        self._columns = columns
        self._from_dataset = config.batch_size - config.invented_windows
        if not config.counts_share:
            return
        if dataset.packed:
            raise UsageError("train.counts_share counts running text, and this dataset has conversations; set it to 0")
        self._teacher = Teacher(dataset, config.counts_order, columns)
        if config.invented_windows:
            self._invented = InventedText(dataset.tokens.read(*dataset.split("train")))

    def batch(self, step: int, rows: range | None = None) -> "Batch":
        """Batch `step` (from 0), or only these `rows` of it."""
        rows = range(self.config.batch_size) if rows is None else rows
        if self.dataset.packed:
            windows = self.dataset.packed_batch(self.config.seed, step, self.config.batch_size, rows)
            ids, texts, trained = map(torch.from_numpy, windows)
            return Batch(ids, packed=(texts[:, :-1], trained[:, 1:]))
        read = range(rows.start, min(rows.stop, self._from_dataset))
        invented = range(max(rows.start, self._from_dataset), rows.stop)
        parts = [make(step, part) for make, part in ((self._read, read), (self._invent, invented)) if part]
        ids = torch.from_numpy(np.concatenate([ids for ids, _ in parts]).astype(np.int64))
        distributions = [distribution for _, distribution in parts if distribution is not None]
        return Batch(ids, SoftTargets(torch.cat(distributions), self.config.counts_share) if distributions else None)

    def targets(self, step: int) -> int:
        """How many targets the whole batch `step` has."""
        if self.dataset.packed:
            return self.dataset.packed_targets(self.config.seed, step, self.config.batch_size)
        return self.config.batch_size * self.dataset.context_length

    def _read(self, step: int, rows: range) -> tuple[np.ndarray, Tensor | None]:
        """These rows of the batch, windows of the dataset."""
        starts = self.dataset.window_starts(self.config.seed, step, self._from_dataset, rows)
        ids = self.dataset.read_windows(starts)
        if self._teacher is None:
            return ids, None
        positions = starts[:, None] + np.arange(1, self.dataset.context_length + 1)
        return ids, self._with_cache(ids, self._teacher.rows(positions.flatten()))

    def _invent(self, step: int, rows: range) -> tuple[np.ndarray, Tensor]:
        """These rows of the batch, invented windows. Each has some ids before it, which the counts look at."""
        assert self._teacher is not None
        assert self._invented is not None
        before = max(0, self.config.counts_order - 2)
        seeds = [(self.config.seed, step, row) for row in rows]
        ids = self._invented.read(before + self.dataset.context_length + 1, seeds)
        return ids[:, before:], self._with_cache(ids[:, before:], self._teacher.rows_of(ids, before + 1))

    def _with_cache(self, ids: np.ndarray, rows: Tensor) -> Tensor:
        """The distributions `rows` of the targets of these windows, mixed with a cache if `train.counts_cache` asks for it."""
        if self.config.counts_cache:
            inputs = ids[:, :-1].astype(np.int64)
            add_window_cache(rows, torch.from_numpy(inputs if self._columns is None else self._columns[inputs]))
        return rows
