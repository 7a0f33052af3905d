"""Self-attention with trainable weights: a query, a key and a value for each position.

Once with bare parameters, where every product is visible, and once with linear layers, which is the
same with transposed matrices (Vaswani et al. 2017, 3.2.1).

T time, C embedding, D head size
"""

import math

import torch
from torch import Tensor, nn

from lib.model.layers import Linear


class BareSelfAttention(nn.Module):
    """softmax(QKᵀ/√D)V with Q = x W_query, K = x W_key, V = x W_value; each matrix (C, D)."""

    def __init__(self, emb_dim: int, head_size: int) -> None:
        super().__init__()
        self.W_query = nn.Parameter(torch.empty(emb_dim, head_size))
        self.W_key = nn.Parameter(torch.empty(emb_dim, head_size))
        self.W_value = nn.Parameter(torch.empty(emb_dim, head_size))

    def forward(self, x: Tensor) -> Tensor:
        """x: (…, T, C) -> (…, T, D)."""
        queries, keys, values = x @ self.W_query, x @ self.W_key, x @ self.W_value  # (…, T, D) each
        scores = queries @ keys.transpose(-2, -1) / math.sqrt(keys.shape[-1])  # (…, T, T)
        return torch.softmax(scores, dim=-1) @ values


class SelfAttention(nn.Module):
    """The same with linear layers, whose weights are (D, C): y = x Wᵀ."""

    def __init__(self, emb_dim: int, head_size: int, *, qkv_bias: bool = False) -> None:
        super().__init__()
        self.W_query = Linear(emb_dim, head_size, bias=qkv_bias)
        self.W_key = Linear(emb_dim, head_size, bias=qkv_bias)
        self.W_value = Linear(emb_dim, head_size, bias=qkv_bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (…, T, C) -> (…, T, D)."""
        queries, keys, values = self.W_query(x), self.W_key(x), self.W_value(x)  # (…, T, D) each
        scores = queries @ keys.transpose(-2, -1) / math.sqrt(keys.shape[-1])  # (…, T, T)
        return torch.softmax(scores, dim=-1) @ values
