"""The fourth rung: one whole transformer block, which looks back and then thinks (Radford et al. 2019, 2.3).

B batch, T time, C embedding
"""

from torch import Tensor

from lib.config.schema import ModelConfig
from lib.model.block import TransformerBlock
from lib.model.embeddings import EmbeddingModel
from lib.model.kv_cache import KVCache
from lib.model.layers import Linear
from lib.model.norm import LayerNorm


class SingleBlock(EmbeddingModel):
    """Embeddings, one block, a final norm, an output head: the parts of a GPT with one layer, begun like the other rungs."""

    remembers = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.block = TransformerBlock(config)
        self.final_norm = LayerNorm(config.emb_dim, fused=config.layers == "fused")
        self.out_head = Linear(config.emb_dim, self.vocab_size, bias=False)

    def features(self, ids: Tensor, past: KVCache | None = None) -> Tensor:
        """ids: (B, T) -> (B, T, C), behind the `past`."""
        return self.final_norm(self.block(self.embed(ids, past), past and past.of(0)))
