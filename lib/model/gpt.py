"""The last model of the ladder, GPT: embeddings, a stack of blocks, a final norm, an output head (Radford et al. 2019).

B batch, T time, C embedding
"""

from torch import Tensor, nn

from lib.config.model import ModelConfig
from lib.model.block import TransformerBlock, block_init_std
from lib.model.dropout import Dropout
from lib.model.embeddings import EmbeddingModel
from lib.model.kv_cache import BatchKVCache
from lib.model.layers import Linear
from lib.model.norm import build_final_norm
from lib.model.packing import Packing
from lib.model.sparse_attention import attention_mask, sparse_pattern


class GPT(EmbeddingModel):
    """A decoder-only transformer, GPT-2's by default; options of `config` replace single parts by later designs."""

    supports_kv_cache = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.dropout = Dropout(config.drop_rate, fused=self.fused)
        mask = attention_mask(config.context_length, sparse_pattern(config))  # T × T bytes, once for all blocks
        self.blocks = nn.ModuleList(TransformerBlock(config, mask) for _ in range(config.n_layers))
        self.final_norm = build_final_norm(config)
        self.out_head = Linear(config.emb_dim, config.n_classes or self.vocab_size, bias=False)
        if config.tie_weights and not config.n_classes:
            self.out_head.weight = self.tok_emb.weight

    def features(self, ids: Tensor, kv_cache: BatchKVCache | None = None, packing: Packing | None = None) -> Tensor:
        """ids: (B, T) -> (B, T, C), continuing the KV cache."""
        return self.last_features(self.first_features(ids, kv_cache, packing), kv_cache, packing)

    def first_features(self, ids: Tensor, kv_cache: BatchKVCache | None = None, packing: Packing | None = None) -> Tensor:
        """The part of `features` before the last block: ids, (B, T) -> (B, T, C)."""
        x = self.dropout(self.embed(ids, kv_cache, packing))
        for layer, block in enumerate(self.blocks[:-1]):
            x = block(x, kv_cache and kv_cache.of(layer), packing)
        return x

    def last_features(self, x: Tensor, kv_cache: BatchKVCache | None = None, packing: Packing | None = None) -> Tensor:
        """The last block and the final norm: (B, T, C) -> (B, T, C)."""
        return self.final_norm(self.blocks[-1](x, kv_cache and kv_cache.of(len(self.blocks) - 1), packing))

    def init_std(self, name: str, weight: Tensor) -> float:
        """GPT-2's for all but the head, tied or not, which uses that of `LanguageModel`, and n-grams, which begin at 0."""
        if weight is self.out_head.weight:
            return super().init_std(name, weight)
        if name.startswith("ngram_emb."):
            return 0.0
        return block_init_std(name, 2 * len(self.blocks))
