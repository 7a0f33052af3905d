"""The KV cache: keys and values of earlier tokens are kept, so that a new token costs one row, not the whole text.

The query of a position is used once, but its key and value are used by all later positions. They never
change, since attention is causal. So they are kept, and a step computes those of the new token only.

The texts of a batch differ in length; each has its own cache, so no row depends on the others.

An encoder-decoder also keeps the keys and values of the source, which are computed once for all tokens of the target.

B batch, T new tokens, N tokens in all, S tokens of the source, H heads, G key and value heads, D head size
"""

from dataclasses import dataclass
from typing import NamedTuple, Sequence

import torch
from torch import Tensor

from lib.errors import MakegptError


class SourceKV(NamedTuple):
    """The keys and values of B sources in one cross-attention, (B, H, S, D) each.

    `padding`: (B, 1, 1, S), true where a source shorter than S has ended.
    """

    k: Tensor
    v: Tensor
    padding: Tensor


class KVCache:
    """The keys and values of one text's tokens in each attention of a model, with room for `capacity` of them.

    `ids`: the tokens themselves, which are added last, when all attentions have their keys and values. `source`: the keys and
    values of the source, in each cross-attention of an encoder-decoder.
    """

    def __init__(self, layers: int, n_kv_heads: int, capacity: int, head_size: int, device: torch.device) -> None:
        self.kv = torch.empty(layers, 2, n_kv_heads, capacity, head_size, device=device)
        self.address = self.kv.data_ptr()
        self.capacity = capacity
        self.ids: list[int] = []
        self.source: Sequence[SourceKV] = ()

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return len(self.ids)

    def last_ids(self, count: int) -> list[int]:
        """The last `count` tokens, -1 for each that the text does not have yet."""
        ids = self.ids[-count:]
        return [-1] * (count - len(ids)) + ids

    def add(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values of T new tokens, (G, T, D) each; return those of all N, (1, G, N, D) each.

        MakegptError if the cache is too small.
        """
        if (end := self.length + k.shape[1]) > self.capacity:
            raise MakegptError(f"{end} tokens do not fit into a KV cache of {self.capacity}; create a larger one")
        kv = self.kv[layer]
        kv[0, :, self.length : end] = k
        kv[1, :, self.length : end] = v
        keys, values = kv[:, None, :, :end]
        return keys, values

    def truncate(self, length: int) -> None:
        """Forget all tokens but the first `length`, to continue them differently."""
        self.ids = self.ids[:length]

    def copy_from(self, other: "KVCache", length: int) -> None:
        """Copy the first `length` tokens of `other`, to continue them differently."""
        self.kv[..., :length, :] = other.kv[..., :length, :]
        self.ids = other.ids[:length]


class BatchKVCache:
    """The caches of a batch of texts, and the positions of the T new tokens of each."""

    def __init__(self, caches: Sequence[KVCache], T: int, device: torch.device) -> None:
        self.caches = caches
        start = torch.tensor([[cache.length] for cache in caches], device=device)
        self.positions = start if T == 1 else start + torch.arange(T, device=device)  # (B, T)

    def of(self, layer: int) -> "LayerKVCache":
        """The part for the attention of `layer`, counted from 0."""
        return LayerKVCache(layer, self.positions, self.caches)


@dataclass(frozen=True)
class LayerKVCache:
    """The caches of a batch in one attention."""

    layer: int
    positions: Tensor  # (B, T), of the new tokens
    caches: Sequence[KVCache]

    def add(self, k: Tensor, v: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Add the new keys and values, (B, G, T, D); return for each text all of its own, (1, G, N, D)."""
        return [cache.add(self.layer, k[b], v[b]) for b, cache in enumerate(self.caches)]
