"""Where a token stands. Attention itself compares tokens, whatever their order; the order has to be put in.

    learned      a table of C numbers a position, added to the embedding (GPT-2; `lib.model.layers.Embedding`)
    sinusoidal   the same table by a formula (Vaswani et al. 2017, 3.5)
    rotary       queries and keys turned by an angle that grows with the position (Su et al. 2021)

T time, C embedding, H heads, D head size
"""

import math

import torch
from torch import Tensor, nn

#: The fastest wave turns once in 2π positions, the slowest in nearly 2π·BASE (both papers' figure).
ROTARY_BASE = 10_000.0


def angles(length: int, size: int) -> Tensor:
    """The angle t · BASE^(-2i/size), in radians, of wave i at position t, fast waves first: (length, size/2)."""
    rates = ROTARY_BASE ** (-torch.arange(0, size, 2, dtype=torch.float32) / size)
    return torch.arange(length, dtype=torch.float32)[:, None] * rates


class Sinusoidal(nn.Module):
    """Token embeddings times √C (Vaswani et al. 2017, 3.4), plus a sine and a cosine of each wave at their position."""

    table: Tensor

    def __init__(self, context_length: int, emb_dim: int) -> None:
        super().__init__()
        waves = angles(context_length, emb_dim)
        table = torch.stack([waves.sin(), waves.cos()], dim=-1).flatten(1)  # (T, C): sin, cos, sin, cos, …
        self.register_buffer("table", table, persistent=False)
        self.scale = math.sqrt(emb_dim)

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """x: (B, T, C) -> (B, T, C); `positions`, (B, T), where they are not the first T."""
        return self.scale * x + (self.table[: x.shape[1]] if positions is None else self.table[positions])


class Rotary(nn.Module):
    """Turn the pairs (x_i, x_{i+D/2}) of each head's vector by the angles of their position.

    A turn changes no length, and the dot product of two turned vectors depends on the difference of
    their angles only: the score of a query and a key knows how far apart they are, not where.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, context_length: int, head_size: int) -> None:
        super().__init__()
        turns = angles(context_length, head_size)  # (T, D/2)
        self.register_buffer("cos", turns.cos(), persistent=False)
        self.register_buffer("sin", turns.sin(), persistent=False)

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """x: (B, H, T, D) -> (B, H, T, D); `positions`, (B, T), where they are not the first T."""
        at = slice(x.shape[-2]) if positions is None else positions[:, None]
        cos, sin = self.cos[at], self.sin[at]
        first, second = x.chunk(2, dim=-1)  # (B, H, T, D/2) each
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
