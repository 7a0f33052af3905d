"""Position encodings. Attention alone ignores the order of tokens, so positions have to be added.

    learned      an embedding of C numbers per position, added to the token's (GPT-2; `lib.model.layers.Embedding`)
    sinusoidal   the same table, computed by a formula (Vaswani et al. 2017, 3.5)
    rotary       queries and keys rotated by an angle that grows with the position (Su et al. 2021)

T time, C embedding, H heads, D head size
"""

import math

import torch
from torch import Tensor, nn

#: The shortest wavelength is 2π positions, the longest nearly 2π·BASE (the value of both papers).
ROTARY_BASE = 10_000.0


def angles(length: int, size: int, base: float = ROTARY_BASE) -> Tensor:
    """The angle t · base^(-2i/size), in radians, of wave i at position t, short waves first: (length, size/2)."""
    frequencies = base ** (-torch.arange(0, size, 2, dtype=torch.float32) / size)
    return torch.arange(length, dtype=torch.float32)[:, None] * frequencies


def wave_table(length: int, size: int, base: float = ROTARY_BASE) -> Tensor:
    """The sine and the cosine of each of `angles`: (length, size), sin, cos, sin, cos, …"""
    waves = angles(length, size, base)
    return torch.stack([waves.sin(), waves.cos()], dim=-1).flatten(1)


class Sinusoidal(nn.Module):
    """Token embeddings times √C (Vaswani et al. 2017, 3.4), plus a sine and a cosine of each wave at their position."""

    table: Tensor

    def __init__(self, context_length: int, emb_dim: int) -> None:
        super().__init__()
        self.register_buffer("table", wave_table(context_length, emb_dim), persistent=False)
        self.scale = math.sqrt(emb_dim)

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """x: (B, T, C) -> (B, T, C); `positions`, (B, T), if they are not the first T."""
        return self.scale * x + (self.table[: x.shape[1]] if positions is None else self.table[positions])


class Rotary(nn.Module):
    """Rotate the pairs (x_i, x_{i+D/2}) of each head's vector by the angles of their position.

    A rotation keeps lengths, and the dot product of two rotated vectors depends only on the difference of
    their angles: the score of a query and a key depends on their distance, not on their positions.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, context_length: int, head_size: int, base: float = ROTARY_BASE) -> None:
        super().__init__()
        theta = angles(context_length, head_size, base)  # (T, D/2)
        self.register_buffer("cos", theta.cos(), persistent=False)
        self.register_buffer("sin", theta.sin(), persistent=False)

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """x: (B, H, T, D) -> (B, H, T, D); `positions`, (B, T), if they are not the first T."""
        rows = slice(x.shape[-2]) if positions is None else positions[:, None]
        cos, sin = self.cos[rows], self.sin[rows]
        first, second = x.chunk(2, dim=-1)  # (B, H, T, D/2) each
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
