"""The fourth model of the ladder: one whole transformer block, attention and feed-forward (Radford et al. 2019, 2.3).

B batch, T time, C embedding
"""

from torch import Tensor

from lib.config.model import ModelConfig
from lib.model.block import TransformerBlock
from lib.model.embeddings import EmbeddingModel
from lib.model.kv_cache import BatchKVCache
from lib.model.layers import Linear
from lib.model.norm import LayerNorm
from lib.model.packing import Packing


class SingleBlock(EmbeddingModel):
    """Embeddings, one block, a final norm, an output head: the parts of a GPT with one layer."""

    supports_kv_cache = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.block = TransformerBlock(config)
        self.final_norm = LayerNorm(config.emb_dim, fused=config.layer_impl == "fused")
        self.out_head = Linear(config.emb_dim, self.vocab_size, bias=False)

    def features(self, ids: Tensor, kv_cache: BatchKVCache | None = None, packing: Packing | None = None) -> Tensor:
        """ids: (B, T) -> (B, T, C), continuing the KV cache."""
        return self.final_norm(self.block(self.embed(ids, kv_cache, packing), kv_cache and kv_cache.of(0), packing))
