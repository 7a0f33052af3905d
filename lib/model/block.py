"""The transformer block of GPT-2: attention, then feed-forward, each after a norm and inside a shortcut connection."""

from torch import Tensor, nn

from lib.config.model import ModelConfig
from lib.model.attention import build_attention
from lib.model.dropout import Dropout
from lib.model.feed_forward import FEED_FORWARDS
from lib.model.kv_cache import LayerKVCache
from lib.model.norm import NORMS
from lib.model.packing import Packing


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)).

    The norm comes first, so that the shortcut carries the signal and its gradient unchanged from the
    first block to the last (Radford et al. 2019, section 2.3).
    """

    def __init__(self, config: ModelConfig, mask: Tensor | None = None) -> None:
        """`mask`: shared by the attentions of all blocks (None: an own one)."""
        super().__init__()
        fused = config.layer_impl == "fused"
        self.norm1 = NORMS[config.norm](config.emb_dim, eps=config.norm_eps, fused=fused)
        self.attention = build_attention(config, mask)
        self.norm2 = NORMS[config.norm](config.emb_dim, eps=config.norm_eps, fused=fused)
        self.feed_forward = FEED_FORWARDS[config.feed_forward](config.emb_dim, config.ff_dim, fused=fused)
        self.dropout = Dropout(config.drop_rate, fused=fused)

    def forward(self, x: Tensor, kv_cache: LayerKVCache | None = None, packing: Packing | None = None) -> Tensor:
        """x: (B, T, C) -> (B, T, C), continuing the KV cache."""
        x = x + self.dropout(self.attention(self.norm1(x), kv_cache, packing))
        return x + self.dropout(self.feed_forward(self.norm2(x)))
