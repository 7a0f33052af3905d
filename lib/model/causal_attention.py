"""Causal attention: no position attends to later ones, and dropout keeps it from relying on a single other.

T time, C embedding, D head size
"""

import math

import torch
from torch import Tensor, nn

from lib.model.dropout import Dropout
from lib.model.layers import Linear


def causal_mask(length: int) -> Tensor:
    """(T, T), true where row t must not attend: columns after t."""
    return torch.ones(length, length, dtype=torch.bool).triu(diagonal=1)


def attention_weights(q: Tensor, k: Tensor, mask: Tensor) -> Tensor:
    """softmax(QKᵀ/√D + M), M = -∞ where `mask` is true (Vaswani et al. 2017, 3.2.1). Rows sum to 1.

    q, k: (…, T, D), mask: (T, T) -> (…, T, T). The scaling comes before the softmax: without it, scores
    grow with √D and the softmax is nearly one-hot.
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return torch.softmax(scores.masked_fill(mask, -torch.inf), dim=-1)


class CausalAttention(nn.Module):
    """One head of causal attention. Dropout is in one of two places (`dropout_on`):

    on the "weights", as in GPT-2, so that a position learns to attend to several others;
    or on the "output", which drops single numbers of the context vector.
    """

    mask: Tensor

    def __init__(
        self,
        emb_dim: int,
        head_size: int,
        context_length: int,
        *,
        drop_rate: float = 0.0,
        qkv_bias: bool = False,
        dropout_on: str = "weights",
    ) -> None:
        super().__init__()
        if dropout_on not in ("weights", "output"):
            raise ValueError(f"dropout_on={dropout_on!r} is unknown; use weights or output")
        self.W_query = Linear(emb_dim, head_size, bias=qkv_bias)
        self.W_key = Linear(emb_dim, head_size, bias=qkv_bias)
        self.W_value = Linear(emb_dim, head_size, bias=qkv_bias)
        self.dropout = Dropout(drop_rate)
        self.dropout_on = dropout_on
        self.register_buffer("mask", causal_mask(context_length), persistent=False)  # follows the device, is not saved

    def weights(self, x: Tensor, others: Tensor | None = None) -> Tensor:
        """The attention weights of each position for each other: (B, T, C) -> (B, T, T), without dropout.

        `others`: (B, T, T), true where a position must not attend besides.
        """
        T = x.shape[-2]
        mask = self.mask[:T, :T] if others is None else self.mask[:T, :T] | others
        return attention_weights(self.W_query(x), self.W_key(x), mask)

    def forward(self, x: Tensor, others: Tensor | None = None) -> Tensor:
        """x: (B, T, C) -> (B, T, D); `others` as in `weights`."""
        weights = self.weights(x, others)
        if self.dropout_on == "weights":
            return self.dropout(weights) @ self.W_value(x)
        return self.dropout(weights @ self.W_value(x))
