"""Token and position embeddings, added (Bengio et al. 2003; Vaswani et al. 2017, 3.4), and those of n-grams if asked for.

B batch, T time, C embedding
"""

from typing import Sequence

import torch
from torch import Tensor

from lib.config.model import ModelConfig
from lib.model.kv_cache import BatchKVCache, KVCache
from lib.model.language_model import LanguageModel
from lib.model.layers import Embedding
from lib.model.ngram_embeddings import NGramEmbeddings
from lib.model.packing import Packing
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
        self.ngram_emb = NGramEmbeddings(config.ngram_order, config.ngram_rows, config.emb_dim) if config.ngram_rows else None
        self.ids_of_rows: Tensor | None = None

    def embed(self, ids: Tensor, kv_cache: BatchKVCache | None = None, packing: Packing | None = None) -> Tensor:
        """ids: (B, T) -> (B, T, C), continuing the KV cache. Rotary positions are applied in attention instead."""
        x = self.tok_emb(ids)
        texts = kv_cache or packing
        if self.positions == "learned":
            x = x + self.pos_emb(torch.arange(ids.shape[1], device=ids.device) if texts is None else texts.positions)
        elif self.positions == "sinusoidal":
            x = self.waves(x, texts and texts.positions)
        if self.ngram_emb is None:
            return x
        return x + self.embed_ngrams(ids, None if kv_cache is None else kv_cache.caches, packing)

    def embed_ngrams(self, ids: Tensor, caches: Sequence[KVCache] | None = None, packing: Packing | None = None) -> Tensor:
        """ids: (B, T) -> the rows of their n-grams, (B, T, C), which begin in what the caches hold."""
        assert self.ngram_emb is not None
        if self.ids_of_rows is not None:
            ids = self.ids_of_rows[ids]
        earlier = None
        if caches is not None:
            earlier = torch.tensor([cache.last_ids(self.ngram_emb.order - 1) for cache in caches], device=ids.device)
        return self.ngram_emb(ids, earlier, packing)
