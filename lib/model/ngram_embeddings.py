"""N-gram embeddings: next to its token, each position looks up the last two, three, … tokens as one key.

A token's embedding says what the token is, and attention has to find out what came just before it: a layer of arithmetic for
what a count of n-grams reads from a table. Here the model reads it from a table too. There are too many different n-grams for
a row each, so a hash of the n ids chooses one of `rows` rows, and n-grams that hash alike share it. The rows begin at 0, so
that training begins as without them.

B batch, T time, C embedding
"""

from typing import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib.model.layers import Embedding
from lib.model.packing import Packing

#: The hash of the ids a, b, c, … is that of (((a · FACTOR + b) · FACTOR + c) …) mod PRIME; all of it fits in 64 bits.
FACTOR, PRIME = 1_103_515_245, 2_147_483_629


def ngram_hashes(ids: Tensor, order: int) -> Tensor:
    """ids: (B, N), at least 0, -1 before a text's first token -> the hash of the n-gram that ends at each position from
    `order` - 1 on: (B, N - order + 1), 0 to PRIME - 1.
    """
    length = ids.shape[1] - order + 1
    return hashes_of([ids[:, start : start + length] for start in range(order)])


def hashes_of(ngrams: Sequence[Tensor]) -> Tensor:
    """The hashes of n-grams whose first ids are the first of `ngrams`, whose second ones the second, and so on; any shape."""
    hashes = torch.zeros_like(ngrams[0])
    for ids in ngrams:
        hashes = (hashes * FACTOR + ids + 2) % PRIME
    return hashes


class NGramEmbeddings(nn.Module):
    """A table of `rows` rows for each order from 2 to `order`; the rows of a position's n-grams are added."""

    def __init__(self, order: int, rows: int, emb_dim: int) -> None:
        super().__init__()
        self.order, self.rows = order, rows
        self.tables = nn.ModuleList(Embedding(rows, emb_dim) for _ in range(2, order + 1))

    def forward(self, ids: Tensor, earlier: Tensor | None = None, packing: Packing | None = None) -> Tensor:
        """ids: (B, T) -> (B, T, C). `earlier`: (B, order - 1), the tokens before them, -1 for none (the default).

        `packing`: several texts in each window, with nothing before any of them.
        """
        padded = F.pad(ids, (self.order - 1, 0), value=-1) if earlier is None else torch.cat([earlier, ids], dim=1)
        x = torch.zeros((), device=ids.device)
        for order, table in enumerate(self.tables, start=2):
            if packing is None:
                hashes = ngram_hashes(padded[:, self.order - order :], order)
            else:
                hashes = hashes_of([packing.before(ids, distance) for distance in reversed(range(order))])
            x = x + table(hashes % self.rows)
        return x
