"""Token and position embeddings, added (Bengio et al. 2003; Vaswani et al. 2017, 3.4).

B batch, T time, C embedding
"""

import torch
from torch import Tensor

from lib.config.schema import ModelConfig
from lib.model.kv_cache import BatchKVCache
from lib.model.language_model import LanguageModel
from lib.model.layers import Embedding
from lib.model.positions import Sinusoidal


class EmbeddingModel(LanguageModel):
    """A language model whose input is an embedding of each token and its position."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.positions = config.positions
        self.tok_emb = Embedding(self.vocab_size, config.emb_dim)
        if config.positions == "learned":
            self.pos_emb = Embedding(config.context_length, config.emb_dim)
        elif config.positions == "sinusoidal":
            self.waves = Sinusoidal(config.context_length, config.emb_dim)

    def embed(self, ids: Tensor, kv_cache: BatchKVCache | None = None) -> Tensor:
        """ids: (B, T) -> (B, T, C), continuing the KV cache. Rotary positions are applied in attention instead."""
        x = self.tok_emb(ids)
        if self.positions == "learned":
            return x + self.pos_emb(torch.arange(ids.shape[1], device=ids.device) if kv_cache is None else kv_cache.positions)
        return self.waves(x, kv_cache and kv_cache.positions) if self.positions == "sinusoidal" else x
