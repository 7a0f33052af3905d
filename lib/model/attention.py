"""Multi-head causal self-attention: all heads in one matrix product, with the variants used since GPT-2.

B batch, T time, N ≥ T including the KV cache, C embedding, H heads, G key and value heads, D head size, C/H by default
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib.config.model import ModelConfig
from lib.model.causal_attention import attention_weights
from lib.model.dropout import Dropout
from lib.model.kv_cache import LayerKVCache
from lib.model.layers import Linear
from lib.model.norm import EPS, RMSNorm
from lib.model.packing import Packing
from lib.model.positions import ROTARY_BASE, Llama3Scaling, Rotary, rope_scaling
from lib.model.sparse_attention import SparsePattern, attention_mask, sparse_attention, sparse_pattern


class MultiHeadAttention(nn.Module):
    """Queries, keys and values of all H heads in one product, then an output projection.

    The options beyond GPT-2: `n_kv_heads`, G, fewer key and value heads than query heads, each shared by
    H/G neighbors (Ainslie et al. 2023); `qk_norm`, queries and keys normalized before their dot product
    (Henry et al. 2020, here by RMSNorm); `rotary` positions; `pattern`, which tokens a position attends to, if not all
    before it (Child et al. 2019; Beltagy et al. 2020); `head_dim`, D, if it is not C/H (Qwen3); `out_bias`
    False: an output projection without bias (Llama); `norm_eps`, of the queries' and keys' norms; `rope_base` and
    `rope_scaling`, of the angles.

    `mask`: an `attention_mask(context_length, pattern)` to share with other layers (None: an own one).
    """

    mask: Tensor

    def __init__(
        self,
        emb_dim: int,
        n_heads: int,
        context_length: int,
        *,
        drop_rate: float = 0.0,
        qkv_bias: bool = False,
        n_kv_heads: int | None = None,
        qk_norm: bool = False,
        rotary: bool = False,
        pattern: SparsePattern | None = None,
        head_dim: int | None = None,
        out_bias: bool = True,
        norm_eps: float = EPS,
        rope_base: float = ROTARY_BASE,
        rope_scaling: Llama3Scaling | None = None,
        mask: Tensor | None = None,
        fused: bool = False,
    ) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.n_kv_heads = n_kv_heads or n_heads
        self.head_size = head_dim or emb_dim // n_heads
        self.pattern = pattern
        self.fused = fused
        self.W_qkv = Linear(emb_dim, (n_heads + 2 * self.n_kv_heads) * self.head_size, bias=qkv_bias)
        self.q_norm = RMSNorm(self.head_size, eps=norm_eps, fused=fused) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(self.head_size, eps=norm_eps, fused=fused) if qk_norm else nn.Identity()
        self.rotate = Rotary(context_length, self.head_size, rope_base, rope_scaling) if rotary else None
        self.dropout = Dropout(drop_rate, fused=fused)
        self.out_proj = Linear(n_heads * self.head_size, emb_dim, bias=out_bias)
        self.register_buffer("mask", attention_mask(context_length, pattern) if mask is None else mask, persistent=False)

    def queries_keys_values(self, x: Tensor, positions: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """x: (B, T, C) -> (B, H, T, D), (B, G, T, D), (B, G, T, D)."""
        B, T, _ = x.shape
        # split the last dimension, which is contiguous, into heads; then move the heads before time
        heads = self.W_qkv(x).view(B, T, -1, self.head_size).transpose(1, 2)  # (B, H + 2G, T, D)
        q, k, v = heads.split([self.n_heads, self.n_kv_heads, self.n_kv_heads], dim=1)
        q, k = self.q_norm(q), self.k_norm(k)
        return (q, k, v) if self.rotate is None else (self.rotate(q, positions), self.rotate(k, positions), v)

    def weights(self, x: Tensor) -> Tensor:
        """The attention weights of each position for each other: (B, T, C) -> (B, H, T, T), without dropout."""
        q, k, _ = self.queries_keys_values(x)
        return self._weights(q, k)

    def _weights(self, q: Tensor, k: Tensor, others: Tensor | None = None) -> Tensor:
        return attention_weights(q, self._shared(k), self._mask(q, k, others))

    def _mask(self, q: Tensor, k: Tensor, others: Tensor | None = None) -> Tensor:
        """(T, N), or (B, 1, T, N), true where a query must not attend; the T queries are the last of N positions."""
        T, N = q.shape[-2], k.shape[-2]
        mask = self.mask[N - T : N, :N]
        return mask if others is None else mask | others

    def _shared(self, kv: Tensor) -> Tensor:
        """Each of the G heads repeated H/G times: (B, G, T, D) -> (B, H, T, D)."""
        return kv.repeat_interleave(self.n_heads // self.n_kv_heads, dim=1)

    def forward(self, x: Tensor, kv_cache: LayerKVCache | None = None, packing: Packing | None = None) -> Tensor:
        """x: (B, T, C) -> (B, T, C); with a `kv_cache`, x continues it, and its keys and values are added to it.

        `packing`: several texts in each window, none of which sees another.
        """
        B, T, _ = x.shape
        if packing is not None:
            heads = self._heads(*self.queries_keys_values(x, packing.positions), packing.others)
        elif kv_cache is None:
            heads = self._heads(*self.queries_keys_values(x))
        else:
            q, k, v = self.queries_keys_values(x, kv_cache.positions)
            heads = torch.cat([self._heads(q[b : b + 1], *kv) for b, kv in enumerate(kv_cache.add(k, v))])
        return self.out_proj(heads.transpose(1, 2).reshape(B, T, -1))

    def _heads(self, q: Tensor, k: Tensor, v: Tensor, others: Tensor | None = None) -> Tensor:
        """The context vectors of each head: (B, H, T, D), (B, G, N, D), (B, G, N, D) -> (B, H, T, D).

        `others`: (B, 1, T, N), true where a query must not attend besides.
        """
        T, N = q.shape[-2], k.shape[-2]
        if self.fused and others is None and self.pattern is not None and self.pattern.saves_time(T, N):
            return sparse_attention(q, self._shared(k), self._shared(v), self.pattern, self.dropout)
        drop_rate = self.dropout.rate if self.training else 0.0
        if materializes_weights(self.fused, drop_rate, q.device):
            return self.dropout(self._weights(q, k, others)) @ self._shared(v)
        plain = self.pattern is None and others is None
        unmasked = plain and T == 1  # a single new token attends to all
        causal = plain and T == N
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if unmasked or causal else ~self._mask(q, k, others),
            is_causal=causal and not unmasked,
            dropout_p=drop_rate,
            enable_gqa=self.n_kv_heads < self.n_heads,
        )


def materializes_weights(fused: bool, drop_rate: float, device: torch.device) -> bool:
    """Whether attention stores its weights, T × T per head: if naive, and with dropout on a CPU, where fused is slower."""
    return not fused or (drop_rate > 0 and device.type == "cpu")


def build_attention(config: ModelConfig, mask: Tensor | None = None) -> MultiHeadAttention:
    """The attention that `config` describes; `mask` as in `MultiHeadAttention`."""
    return MultiHeadAttention(
        config.emb_dim,
        config.n_heads,
        config.context_length,
        drop_rate=config.drop_rate,
        qkv_bias=config.qkv_bias,
        n_kv_heads=config.n_kv_heads,
        qk_norm=config.qk_norm,
        rotary=config.positions == "rotary",
        pattern=sparse_pattern(config),
        head_dim=config.head_dim,
        out_bias=config.out_bias,
        norm_eps=config.norm_eps,
        rope_base=config.rope_base,
        rope_scaling=rope_scaling(config),
        mask=mask,
        fused=config.attention_impl == "fused",
    )
