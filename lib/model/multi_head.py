"""The third rung: several glances back at once (Vaswani et al. 2017, 3.2.2). B batch, T time, C embedding."""

from torch import Tensor

from lib.config import ModelConfig
from lib.model.attention import attention_of
from lib.model.cache import Past
from lib.model.embeddings import EmbeddingModel
from lib.model.layers import Linear


class MultiHead(EmbeddingModel):
    """Embeddings, H narrower heads and their output projection, an output head."""

    remembers = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.attention = attention_of(config)
        self.out_head = Linear(config.emb_dim, self.vocab_size, bias=False)

    def features(self, ids: Tensor, past: Past | None = None) -> Tensor:
        """ids: (B, T) -> (B, T, C), behind the `past`."""
        return self.attention(self.embed(ids, past), past and past.of(0))
