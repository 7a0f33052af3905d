"""Position encodings. Attention alone ignores the order of tokens, so positions have to be added.

    learned      an embedding of C numbers per position, added to the token's (GPT-2; `lib.model.layers.Embedding`)
    sinusoidal   the same table, computed by a formula (Vaswani et al. 2017, 3.5)
    rotary       queries and keys rotated by an angle that grows with the position (Su et al. 2021)

Rotary angles can be scaled for contexts that are longer than those first trained on, as Llama 3.1 does: `Llama3Scaling`.

T time, C embedding, H heads, D head size
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.config.model import ModelConfig

#: The shortest wavelength is 2π positions, the longest nearly 2π·BASE (the value of both papers).
ROTARY_BASE = 10_000.0


@dataclass(frozen=True)
class Llama3Scaling:
    """The angles of Llama 3.1 (Grattafiori et al. 2024, its code): slow waves turn `factor` times slower, fast ones as before.

    A wave that turns at least `high_freq_factor` times within `original_context` tokens keeps its frequency; one that turns at
    most `low_freq_factor` times has it divided by `factor`; between the two the scale changes linearly with the frequency.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int

    def scales(self, frequencies: Tensor) -> Tensor:
        """What each of the `frequencies`, in radians per token, is multiplied by: between 1/factor and 1."""
        turns = self.original_context * frequencies / (2 * math.pi)
        kept = ((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)).clamp(0, 1)
        return kept + (1 - kept) / self.factor


def rope_scaling(config: ModelConfig) -> Llama3Scaling | None:
    """The scaling of the rotary angles that `config` asks for."""
    if config.rope_factor == 1:
        return None
    return Llama3Scaling(
        config.rope_factor, config.rope_low_freq_factor, config.rope_high_freq_factor, config.rope_original_context
    )


def frequencies(size: int, base: float = ROTARY_BASE) -> Tensor:
    """base^(-2i/size), the radians per token of wave i, fast ones first: (size/2,)."""
    return base ** (-torch.arange(0, size, 2, dtype=torch.float32) / size)


def angles(length: int, size: int, base: float = ROTARY_BASE, scaling: Llama3Scaling | None = None) -> Tensor:
    """The angle t · frequency, in radians, of each wave at position t: (length, size/2)."""
    speeds = frequencies(size, base)
    if scaling is not None:
        speeds = speeds * scaling.scales(speeds)
    return torch.arange(length, dtype=torch.float32)[:, None] * speeds


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

    def __init__(
        self, context_length: int, head_size: int, base: float = ROTARY_BASE, scaling: Llama3Scaling | None = None
    ) -> None:
        super().__init__()
        theta = angles(context_length, head_size, base, scaling)  # (T, D/2)
        self.register_buffer("cos", theta.cos(), persistent=False)
        self.register_buffer("sin", theta.sin(), persistent=False)

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """x: (B, H, T, D) -> (B, H, T, D); `positions`, (B, T), if they are not the first T."""
        rows = slice(x.shape[-2]) if positions is None else positions[:, None]
        cos, sin = self.cos[rows], self.sin[rows]
        first, second = x.chunk(2, dim=-1)  # (B, H, T, D/2) each
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
