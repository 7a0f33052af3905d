"""Multi-head causal self-attention: each position gathers from itself and the positions before it.

B batch, T time, C embedding, H heads, D = C/H head size
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib.model.layers import Linear


def causal_attention(q: Tensor, k: Tensor, v: Tensor, future: Tensor, dropout: nn.Module) -> Tensor:
    """softmax(QKᵀ/√D + M)V with M = -∞ where `future` is true (Vaswani et al. 2017, section 3.2.1).

    q, k, v: (B, H, T, D). future: (T, T), true above the diagonal. `dropout` acts on the weights.
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, H, T, T)
    scores = scores.masked_fill(future, -torch.inf)
    weights = torch.softmax(scores, dim=-1)
    return dropout(weights) @ v  # (B, H, T, D)


class MultiHeadAttention(nn.Module):
    """H heads in one matrix product: queries, keys and values side by side, an output projection behind."""

    future: Tensor

    def __init__(
        self, emb_dim: int, n_heads: int, context_length: int, *, drop_rate: float, qkv_bias: bool, fused: bool
    ) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.drop_rate = drop_rate
        self.fused = fused
        self.W_qkv = Linear(emb_dim, 3 * emb_dim, bias=qkv_bias)
        self.out_proj = Linear(emb_dim, emb_dim)
        self.dropout = nn.Dropout(drop_rate)
        future = torch.ones(context_length, context_length, dtype=torch.bool).triu(diagonal=1)
        self.register_buffer("future", future, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, T, C) -> (B, T, C)."""
        B, T, C = x.shape
        qkv = self.W_qkv(x).view(B, T, 3, self.n_heads, C // self.n_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
        if self.fused:
            drop_rate = self.drop_rate if self.training else 0.0
            heads = F.scaled_dot_product_attention(q, k, v, dropout_p=drop_rate, is_causal=True)
        else:
            heads = causal_attention(q, k, v, self.future[:T, :T], self.dropout)
        return self.out_proj(heads.transpose(1, 2).reshape(B, T, C))
