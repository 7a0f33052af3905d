"""Packing: several texts side by side in one window, none of which sees another.

A window that holds one short text is mostly empty, and its empty places cost as much as the others. So several texts share it.
Each position attends only to its own text, and counts its position from that text's start: every text gets the numbers
that it would get alone.

B windows, T time
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Packing:
    """Which text each position of a batch belongs to.

    `positions`: (B, T), counted from the start of the text. `others`: (B, 1, T, T), true where the row's position must not
    attend, since the column's belongs to another text.
    """

    def __init__(self, texts: Tensor) -> None:
        """`texts`: (B, T), a number for each position; neighbors with the same number are one text."""
        T = texts.shape[1]
        index = torch.arange(T, device=texts.device)
        begins = torch.ones_like(texts, dtype=torch.bool)
        begins[:, 1:] = texts[:, 1:] != texts[:, :-1]
        starts = torch.where(begins, index, 0).cummax(dim=1).values  # (B, T), where the text of each position starts
        self.positions = index - starts
        self.others = (starts[:, :, None] != starts[:, None, :])[:, None]

    def before(self, ids: Tensor, distance: int) -> Tensor:
        """The id `distance` positions before each position, -1 where that is not in the same text: (B, T) -> (B, T)."""
        earlier = torch.full_like(ids, -1)
        earlier[:, distance:] = ids[:, : ids.shape[1] - distance]
        return torch.where(self.positions >= distance, earlier, -1)


class PackedTargets(NamedTuple):
    """The texts of a batch, and which of its targets a model learns: `trained`, (B, T)."""

    packing: Packing
    trained: Tensor
