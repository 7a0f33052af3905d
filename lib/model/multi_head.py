"""The third model of the ladder: multi-head attention (Vaswani et al. 2017, 3.2.2). B batch, T time, C embedding."""

from torch import Tensor

from lib.config.model import ModelConfig
from lib.model.attention import build_attention
from lib.model.embeddings import EmbeddingModel
from lib.model.kv_cache import BatchKVCache
from lib.model.layers import Linear
from lib.model.packing import Packing


class MultiHead(EmbeddingModel):
    """Embeddings, H narrower heads and their output projection, an output head."""

    supports_kv_cache = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.attention = build_attention(config)
        self.out_head = Linear(config.emb_dim, self.vocab_size, bias=False)

    def features(self, ids: Tensor, kv_cache: BatchKVCache | None = None, packing: Packing | None = None) -> Tensor:
        """ids: (B, T) -> (B, T, C), continuing the KV cache."""
        return self.attention(self.embed(ids, kv_cache, packing), kv_cache and kv_cache.of(0), packing)
