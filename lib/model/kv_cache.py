"""What attention has read already, kept: a new token then costs one row, and not its whole past again.

The query of a position is needed once, but its key and value are looked at by all that come after it, and they
never change, since nobody sees the future. So they are kept, and a step computes the new token's alone.

A batch holds texts of several lengths; each has a cache of its own, so no row knows of the others.

B batch, T new tokens, N tokens in all, G key and value heads, D head size
"""

from dataclasses import dataclass
from typing import Sequence

import torch
from torch import Tensor

from lib.errors import MakegptError


class KVCache:
    """The keys and values of one text's tokens in each attention of a model, with room for `capacity` of them."""

    def __init__(self, layers: int, n_kv_heads: int, capacity: int, head_size: int, device: torch.device) -> None:
        self.kv = torch.empty(layers, 2, n_kv_heads, capacity, head_size, device=device)
        self.address = self.kv.data_ptr()
        self.capacity = capacity
        self.length = 0

    def add(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep those of T new tokens, (G, T, D) each; return those of all N, (1, G, N, D) each.

        MakegptError if there is no room for them.
        """
        if (end := self.length + k.shape[1]) > self.capacity:
            raise MakegptError(f"{end} tokens are more than this cache has room for, {self.capacity}; make a larger one")
        kept = self.kv[layer]
        kept[0, :, self.length : end] = k
        kept[1, :, self.length : end] = v
        keys, values = kept[:, None, :, :end]
        return keys, values

    def copy_from(self, other: "KVCache", length: int) -> None:
        """Hold what `other` holds of its first `length` tokens, to continue them in another way."""
        self.kv[..., :length, :] = other.kv[..., :length, :]
        self.length = length


class BatchKVCache:
    """The past of a batch of texts, each with its cache, while T new tokens of each are read."""

    def __init__(self, caches: Sequence[KVCache], T: int, device: torch.device) -> None:
        self.caches = caches
        begin = torch.tensor([[cache.length] for cache in caches], device=device)
        self.positions = begin if T == 1 else begin + torch.arange(T, device=device)  # (B, T)

    def of(self, layer: int) -> "LayerKVCache":
        """What attention number `layer`, the lowest is 0, needs of it."""
        return LayerKVCache(layer, self.positions, self.caches)


@dataclass(frozen=True)
class LayerKVCache:
    """The past of a batch in one attention."""

    layer: int
    positions: Tensor  # (B, T), where the new tokens stand
    caches: Sequence[KVCache]

    def add(self, k: Tensor, v: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keep the new keys and values, (B, G, T, D); for each text, all it has, (1, G, N, D)."""
        return [cache.add(self.layer, k[b], v[b]) for b, cache in enumerate(self.caches)]
