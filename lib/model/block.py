"""The transformer block: attention, then feed-forward, each inside a shortcut connection, with a norm before or after it."""

from torch import Tensor, nn

from lib.config.model import ModelConfig
from lib.model.attention import build_attention
from lib.model.dropout import Dropout
from lib.model.feed_forward import FEED_FORWARDS
from lib.model.kv_cache import LayerKVCache
from lib.model.norm import build_norm
from lib.model.packing import Packing


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)).

    The norm comes first, so that the shortcut carries the signal and its gradient unchanged from the
    first block to the last (Radford et al. 2019, section 2.3). With `norm_position="post"` it comes last, as in the original
    transformer (Vaswani et al. 2017, 3.1): norm(x + attention(x)), then norm(x + feed_forward(x)).
    """

    def __init__(self, config: ModelConfig, mask: Tensor | None = None) -> None:
        """`mask`: shared by the attentions of all blocks (None: an own one)."""
        super().__init__()
        fused = config.layer_impl == "fused"
        self.post_norm = config.norm_position == "post"
        self.norm1 = build_norm(config)
        self.attention = build_attention(config, mask)
        self.norm2 = build_norm(config)
        self.feed_forward = FEED_FORWARDS[config.feed_forward](config.emb_dim, config.ff_dim, fused=fused)
        self.dropout = Dropout(config.drop_rate, fused=fused)

    def forward(self, x: Tensor, kv_cache: LayerKVCache | None = None, packing: Packing | None = None) -> Tensor:
        """x: (B, T, C) -> (B, T, C), continuing the KV cache."""
        if self.post_norm:
            x = self.norm1(x + self.dropout(self.attention(x, kv_cache, packing)))
            return self.norm2(x + self.dropout(self.feed_forward(x)))
        x = x + self.dropout(self.attention(self.norm1(x), kv_cache, packing))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


def block_init_std(name: str, additions: int) -> float:
    """GPT-2's 0.02 for the matrix `name`; smaller by √additions before a residual addition, since that many are added up.

    Radford et al. 2019, section 2.3.
    """
    return 0.02 * additions**-0.5 if name.endswith(("out_proj.weight", "contract.weight")) else 0.02
