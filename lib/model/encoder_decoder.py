"""The encoder-decoder: a model that reads a source and writes a target, such as a word and its pronunciation.

The original transformer (Vaswani et al. 2017) is one. Its encoder reads the whole source at once, in both directions. Its
decoder is a GPT whose blocks have a third part, cross-attention, which looks at what the encoder has put out.

B batch, S tokens of the source, T tokens of the target, C embedding
"""

from typing import Sequence

import torch
from torch import Tensor, nn

from lib.config.model import ModelConfig
from lib.errors import MakegptError
from lib.model.attention import build_attention
from lib.model.block import TransformerBlock, block_init_std
from lib.model.causal_attention import causal_mask
from lib.model.cross_attention import CrossAttention
from lib.model.dropout import Dropout
from lib.model.embeddings import EmbeddingModel
from lib.model.feed_forward import FEED_FORWARDS
from lib.model.kv_cache import BatchKVCache, KVCache, LayerKVCache, SourceKV
from lib.model.layers import Linear
from lib.model.norm import build_final_norm, build_norm
from lib.model.packing import Packing


class DecoderBlock(nn.Module):
    """A transformer block with cross-attention between its attention and its feed-forward."""

    def __init__(self, config: ModelConfig, mask: Tensor) -> None:
        """`mask`: the causal one, shared by all blocks."""
        super().__init__()
        fused = config.layer_impl == "fused"
        self.post_norm = config.norm_position == "post"
        self.norm1 = build_norm(config)
        self.attention = build_attention(config, mask)
        self.norm2 = build_norm(config)
        self.cross_attention = CrossAttention(config)
        self.norm3 = build_norm(config)
        self.feed_forward = FEED_FORWARDS[config.feed_forward](config.emb_dim, config.ff_dim, fused=fused)
        self.dropout = Dropout(config.drop_rate, fused=fused)

    def forward(self, x: Tensor, sources: Sequence[SourceKV], kv_cache: LayerKVCache | None = None) -> Tensor:
        """x: (B, T, C) -> (B, T, C), continuing the KV cache; `sources` as in `CrossAttention`."""
        if self.post_norm:
            x = self.norm1(x + self.dropout(self.attention(x, kv_cache)))
            x = self.norm2(x + self.dropout(self.cross_attention(x, sources)))
            return self.norm3(x + self.dropout(self.feed_forward(x)))
        x = x + self.dropout(self.attention(self.norm1(x), kv_cache))
        x = x + self.dropout(self.cross_attention(self.norm2(x), sources))
        return x + self.dropout(self.feed_forward(self.norm3(x)))


class EncoderDecoder(EmbeddingModel):
    """An encoder of `n_layers` blocks, a decoder of as many, and one embedding for the tokens of both (ibid., 3.4).

    The source goes through the encoder once, whatever the length of the target: `encode`, then `decode`.
    """

    supports_kv_cache = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        T = config.context_length
        self.dropout = Dropout(config.drop_rate, fused=self.fused)
        nothing, later = torch.zeros(T, T, dtype=torch.bool), causal_mask(T)  # what a position must not attend to
        self.encoder = nn.ModuleList(TransformerBlock(config, nothing) for _ in range(config.n_layers))
        self.encoder_norm = build_final_norm(config)
        self.decoder = nn.ModuleList(DecoderBlock(config, later) for _ in range(config.n_layers))
        self.final_norm = build_final_norm(config)
        self.out_head = Linear(config.emb_dim, self.vocab_size, bias=False)
        if config.tie_weights:
            self.out_head.weight = self.tok_emb.weight

    def encode(self, source: Tensor, lengths: Tensor) -> list[SourceKV]:
        """source: (B, S) ids, of which row b has `lengths[b]` -> its keys and values for each block of the decoder.

        What comes after the length is padding: no position of the source, and none of the target, attends to it.
        """
        self._check_length(source.shape[1])
        is_padding = torch.arange(source.shape[1], device=source.device) >= lengths[:, None]  # (B, S)
        apart = Packing(is_padding.long())  # source and padding are two texts, neither of which sees the other
        with self._explain_unknown_ids(source):
            x = self.dropout(self.embed(source, packing=apart))
        for block in self.encoder:
            x = block(x, packing=apart)
        x = self.encoder_norm(x)
        blocks = (block for block in self.decoder if isinstance(block, DecoderBlock))
        return [block.cross_attention.read_source(x, is_padding[:, None, None]) for block in blocks]

    def decode(self, ids: Tensor, sources: Sequence[Sequence[SourceKV]], kv_cache: BatchKVCache | None = None) -> Tensor:
        """ids: (B, T), continuing the KV cache -> the input of the head, (B, T, C).

        `sources`: what `encode` returns, for all rows together or for each in turn.
        """
        x = self.dropout(self.embed(ids, kv_cache))
        for layer, block in enumerate(self.decoder):
            x = block(x, [source[layer] for source in sources], kv_cache and kv_cache.of(layer))
        return self.final_norm(x)

    def features(self, ids: Tensor, kv_cache: BatchKVCache | None = None, packing: Packing | None = None) -> Tensor:
        """`decode`, with the sources that the KV cache has; without a source there is nothing to be written."""
        assert kv_cache is not None
        return self.decode(ids, [cache.source for cache in kv_cache.caches], kv_cache)

    @torch.no_grad()
    def cache(self, capacity: int, source: Sequence[int] = ()) -> KVCache:
        """An empty cache for a target of up to `capacity` tokens, and the `source` it belongs to, encoded."""
        if not source:
            raise MakegptError("an encoder-decoder writes what belongs to a source; give it a text of at least one token")
        cache = super().cache(capacity)
        assert cache is not None
        device = cache.kv.device
        cache.source = self.encode(torch.tensor([source], device=device), torch.tensor([len(source)], device=device))
        return cache

    def init_std(self, name: str, weight: Tensor) -> float:
        """As `GPT`; two additions in a block of the encoder, three in one of the decoder."""
        if weight is self.out_head.weight:
            return super().init_std(name, weight)
        additions = 2 * len(self.encoder) if name.startswith("encoder.") else 3 * len(self.decoder)
        return block_init_std(name, additions)
