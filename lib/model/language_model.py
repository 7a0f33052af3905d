"""The language model that all models extend: ids in, for each position the logits of the next token.

B batch, T time, C embedding, V vocabulary
"""

import math
from contextlib import contextmanager
from typing import ClassVar, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from lib.config.model import ModelConfig
from lib.errors import MakegptError
from lib.model.kv_cache import BatchKVCache, KVCache
from lib.model.layers import Linear, SharedRowHead
from lib.model.loss import SoftTargets, cross_entropy, linear_cross_entropy, naive_cross_entropy
from lib.model.packing import PackedTargets, Packing

#: The standard deviation of the initial logits: E[loss] = ln V + σ²/2 for normal logits, here 0.045 above ln V.
INIT_LOGIT_STD = 0.3


def check_ids(ids: Iterable[int], vocab_size: int) -> None:
    """MakegptError for the first of `ids` that is not in a vocabulary of `vocab_size` tokens."""
    for id in ids:
        if not 0 <= id < vocab_size:
            raise MakegptError(
                f"the id {id} is not in the model's vocabulary of {vocab_size} tokens, 0 to {vocab_size - 1}; "
                "was the text tokenized for another model?"
            )


def in_float16(x: Tensor) -> bool:
    """Whether the products of x are computed in float16, in which a sum over the vocabulary may overflow."""
    return torch.is_autocast_enabled(x.device.type) and torch.get_autocast_dtype(x.device.type) == torch.float16


class LanguageModel(nn.Module):
    """`features` computes a vector for each position from the tokens up to it, `out_head` turns it into logits.

    A subclass sets `out_head`. The weights are undefined until `initialize` or a checkpoint fills them. A model with
    `supports_kv_cache` can keep a text's keys and values in a `KVCache`; the others recompute the whole text for each token.
    """

    out_head: nn.Module
    supports_kv_cache: ClassVar[bool] = False

    def __init__(self, config: ModelConfig) -> None:
        """`config.vocab_size` must be known."""
        super().__init__()
        assert config.vocab_size is not None
        self.vocab_size: int = config.vocab_size
        self.context_length = config.context_length
        self.fused = config.layer_impl == "fused"
        self.config = config

    def features(self, ids: Tensor, kv_cache: BatchKVCache | None = None, packing: Packing | None = None) -> Tensor:
        """ids: (B, T), continuing the KV cache -> the input of the head, (B, T, C).

        `packing`: several texts in each window, each computed as if it were alone.
        """
        raise NotImplementedError

    @property
    def cached_layers(self) -> int:
        """Attentions that keep their keys and values in a KV cache."""
        return self.config.n_layers

    def cache(self, capacity: int, source: Sequence[int] = ()) -> KVCache | None:
        """An empty cache for a text of up to `capacity` tokens; None if the model does not support one.

        `source`: the ids of the text that an encoder-decoder reads first; other models have none.
        """
        if not self.supports_kv_cache:
            return None
        config = self.config
        device = next(self.parameters()).device
        return KVCache(self.cached_layers, config.n_kv_heads or config.n_heads, capacity, config.head_size, device)

    def forward(self, ids: Tensor) -> Tensor:
        """ids: (B, T), T at most the context length -> logits (B, T, V); MakegptError for more or unknown ids."""
        self._check_length(ids.shape[1])
        with self._explain_unknown_ids(ids):
            return self.predict(self.features(ids), ids)

    def predict(self, x: Tensor, ids: Tensor, kv_cache: BatchKVCache | None = None, *, last: bool = False) -> Tensor:
        """The logits of the tokens after `ids`, (B, T), by their features x, (B, T, C): (B, T, V), or (B, V) of the `last`."""
        return self.out_head(x[:, -1] if last else x)

    def loss(
        self, ids: Tensor, targets: Tensor, soft: SoftTargets | None = None, packed: PackedTargets | None = None
    ) -> Tensor:
        """The cross-entropy of the logits for `ids` and the `targets`, both (B, T): nats, summed over all positions.

        `soft`: what the targets are mixed with, B·T rows. `packed`: several texts in each window, and which targets count.
        """
        self._check_length(ids.shape[1])
        with self._explain_unknown_ids(ids):
            if packed is None:
                return self.head_loss(self.features(ids), targets, soft, ids)
            x = self.features(ids, packing=packed.packing)
            return self.head_loss(x[packed.trained], targets[packed.trained])

    def head_loss(self, x: Tensor, targets: Tensor, soft: SoftTargets | None = None, ids: Tensor | None = None) -> Tensor:
        """The part of `loss` that follows `features`: x, (…, C), and targets, (…,) -> nats, summed. `ids`, (B, T): what x are
        the features of, if they are those of whole windows.

        Where the head's last row stands for several tokens, `soft` gives each of them an equal part of its last column.
        """
        x, targets = x.reshape(-1, *x.shape[targets.dim() :]), targets.flatten()
        copies = self.out_head.copies if isinstance(self.out_head, SharedRowHead) else 1
        nats = self._class_loss(x, targets, soft, copies, ids)
        return nats + soft.share * math.log(copies) * soft.rows[:, -1].sum() if soft and copies > 1 else nats

    def _class_loss(self, x: Tensor, targets: Tensor, soft: SoftTargets | None, copies: int, ids: Tensor | None) -> Tensor:
        """The loss of x, (N, C), where the tokens of the head's last row are one class."""
        if self.fused and isinstance(self.out_head, Linear) and not in_float16(x):
            return linear_cross_entropy(x, self.out_head.weight, targets, soft, copies)
        return (cross_entropy if self.fused else naive_cross_entropy)(self.out_head(x).float(), targets, soft)

    def smooth(self, count: int, share: float) -> SoftTargets | None:
        """Label smoothing (Szegedy et al. 2016): `count` targets are mixed with the uniform distribution, with weight `share`.

        None for a share of 0. The last row of a `SharedRowHead` has the probability of all tokens that it stands for.
        """
        if not share:
            return None
        copies = self.out_head.copies if isinstance(self.out_head, SharedRowHead) else 1
        row = torch.ones(self.vocab_size, device=next(self.parameters()).device)
        row[-1] = copies
        return SoftTargets((row / row.sum()).expand(count, -1), share)

    def next_token_logits(self, ids: Tensor, caches: Sequence[KVCache] = ()) -> Tensor:
        """ids: (B, T) -> logits (B, V) for the token after the last one; the head runs on that row only.

        With `caches`, one per text, the ids continue what each cache holds, and are added to it.
        """
        return self._logits_after(ids, caches, last=True)

    def new_logits(self, ids: Tensor, caches: Sequence[KVCache]) -> Tensor:
        """As `next_token_logits`, but for the tokens after each of the ids: (B, T) -> (B, T, V)."""
        return self._logits_after(ids, caches, last=False)

    def _logits_after(self, ids: Tensor, caches: Sequence[KVCache], *, last: bool) -> Tensor:
        self._check_length(max((cache.length for cache in caches), default=0) + ids.shape[1])
        kv_cache = BatchKVCache(caches, ids.shape[1], ids.device) if caches else None
        with self._explain_unknown_ids(ids):
            logits = self.predict(self.features(ids, kv_cache), ids, kv_cache, last=last)
        for cache, new in zip(caches, ids.tolist() if caches else (), strict=True):
            cache.ids += new
        return logits

    def _check_length(self, length: int) -> None:
        if length > self.context_length:
            raise MakegptError(f"{length} tokens are more than the model's context of {self.context_length}; give fewer")

    @contextmanager
    def _explain_unknown_ids(self, ids: Tensor) -> Iterator[None]:
        """Turn the IndexError of an id without an embedding into a MakegptError that names the id.

        Looking at the ids beforehand would wait for the device at every step, so ids are checked where data enters
        (`build_dataset`, `TokenBatch`), and here only after an error.
        """
        try:
            yield
        except IndexError:
            check_ids((int(end) for end in ids.aminmax()), self.vocab_size)
            raise

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Draw the initial weights from normal distributions. Biases stay 0, norms the identity."""
        for name, weight in self.named_parameters():
            if weight.dim() >= 2:
                std = self.init_std(name, weight)
                if std:
                    weight.normal_(0.0, std, generator=generator)
                else:  # nothing is drawn, so that the other weights are those of a model without it
                    weight.zero_()

    def init_std(self, name: str, weight: Tensor) -> float:
        """The standard deviation that the matrix `name` is drawn with; here it keeps the scale of a product's input.

        The head starts with logits of std `INIT_LOGIT_STD` for inputs of size 1, whatever the width, so that the
        first loss is near ln V, that of a uniform guess.
        """
        if weight is self.out_head.weight:
            return INIT_LOGIT_STD * weight.shape[1] ** -0.5
        return 1.0 if self.is_embedding(name) else float(weight.shape[1] ** -0.5)

    def is_embedding(self, name: str) -> bool:
        """Whether the parameter `name` has a row for each token, position or n-gram: the embeddings and the head."""
        return name.startswith(("tok_emb.", "pos_emb.", "ngram_emb.", "out_head."))

    def uses_weight_decay(self, name: str) -> bool:
        """Whether weight decay applies to the parameter `name`: on matrices and embeddings, not on biases and norms."""
        return self.get_parameter(name).dim() >= 2
