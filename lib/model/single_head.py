"""The second model of the ladder: one head of attention (Vaswani et al. 2017, 3.2.1). B batch, T time, C embedding."""

from torch import Tensor

from lib.config.model import ModelConfig
from lib.model.causal_attention import CausalAttention
from lib.model.embeddings import EmbeddingModel
from lib.model.kv_cache import BatchKVCache
from lib.model.layers import Linear
from lib.model.packing import Packing


class SingleHead(EmbeddingModel):
    """Embeddings, one head as wide as they are, an output head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.attention = CausalAttention(
            config.emb_dim, config.emb_dim, config.context_length, drop_rate=config.drop_rate, qkv_bias=config.qkv_bias
        )
        self.out_head = Linear(config.emb_dim, self.vocab_size, bias=False)

    def features(self, ids: Tensor, kv_cache: BatchKVCache | None = None, packing: Packing | None = None) -> Tensor:
        """ids: (B, T) -> (B, T, C)."""
        return self.attention(self.embed(ids, packing=packing), None if packing is None else packing.others[:, 0])
