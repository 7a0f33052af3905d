"""Several heads: each with its own queries, keys and values, their outputs concatenated.

Vaswani et al. 2017, 3.2.2. B batch, T time, C embedding, H heads, D head size
"""

import torch
from torch import Tensor, nn

from lib.model.causal_attention import CausalAttention


class Heads(nn.Module):
    """`n_heads` of `CausalAttention`, one after another: easy to read, and slow; `lib.model.attention` is its fast equivalent.

    The output is `n_heads` · `head_size` wide: (B, T, C) -> (B, T, H·D).
    """

    def __init__(
        self, emb_dim: int, head_size: int, context_length: int, n_heads: int, *, drop_rate: float = 0.0, qkv_bias: bool = False
    ) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            CausalAttention(emb_dim, head_size, context_length, drop_rate=drop_rate, qkv_bias=qkv_bias) for _ in range(n_heads)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([head(x) for head in self.heads], dim=-1)
