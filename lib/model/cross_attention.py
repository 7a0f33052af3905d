"""Cross-attention: queries from one text, keys and values from another (Vaswani et al. 2017, 3.2.3).

B batch, T tokens of the target, S tokens of the source, C embedding, H heads, D = C/H head size
"""

from typing import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib.config.model import ModelConfig
from lib.model.attention import materializes_weights
from lib.model.causal_attention import attention_weights
from lib.model.dropout import Dropout
from lib.model.kv_cache import SourceKV
from lib.model.layers import Linear


class CrossAttention(nn.Module):
    """Each position of the target attends to all positions of the source; none is hidden, but for padding.

    What the source says does not change while the target is written, so its keys and values are computed once: `read_source`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads, self.head_size = config.n_heads, config.head_size
        width = self.n_heads * self.head_size
        self.fused = config.attention_impl == "fused"
        self.W_query = Linear(config.emb_dim, width, bias=config.qkv_bias)
        self.W_kv = Linear(config.emb_dim, 2 * width, bias=config.qkv_bias)
        self.dropout = Dropout(config.drop_rate, fused=self.fused)
        self.out_proj = Linear(width, config.emb_dim, bias=config.out_bias)

    def read_source(self, encoded: Tensor, padding: Tensor) -> SourceKV:
        """The keys and values of what the encoder has put out, (B, S, C); `padding`: (B, 1, 1, S)."""
        k, v = self._heads(self.W_kv(encoded)).chunk(2, dim=1)  # (B, H, S, D) each
        return SourceKV(k, v, padding)

    def forward(self, x: Tensor, sources: Sequence[SourceKV]) -> Tensor:
        """x: (B, T, C) -> (B, T, C). `sources`: of all B rows together, or one after the other, in the order of the rows."""
        q = self._heads(self.W_query(x))  # (B, H, T, D)
        rows = torch.split(q, [len(source.k) for source in sources])
        heads = torch.cat([self._attend(*part) for part in zip(rows, sources, strict=True)])
        return self.out_proj(heads.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, source: SourceKV) -> Tensor:
        """The attention weights of each position of the target for each of the source: (B, T, C) -> (B, H, T, S)."""
        return attention_weights(self._heads(self.W_query(x)), source.k, source.padding)

    def _heads(self, x: Tensor) -> Tensor:
        """The last dimension cut into heads: (B, T, …·D) -> (B, …, T, D)."""
        return x.view(*x.shape[:2], -1, self.head_size).transpose(1, 2)

    def _attend(self, q: Tensor, source: SourceKV) -> Tensor:
        """The context vectors of each head: (B, H, T, D) -> (B, H, T, D)."""
        drop_rate = self.dropout.rate if self.training else 0.0
        if materializes_weights(self.fused, drop_rate, q.device):
            return self.dropout(attention_weights(q, source.k, source.padding)) @ source.v
        return F.scaled_dot_product_attention(q, source.k, source.v, attn_mask=~source.padding, dropout_p=drop_rate)
