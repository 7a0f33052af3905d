"""What every rung of the climb is: ids in, for each position a score for every token that might come next.

B batch, T time, C embedding, V vocabulary
"""

from typing import ClassVar, Sequence

import torch
from torch import Tensor, nn

from lib.config.schema import ModelConfig
from lib.errors import MakegptError
from lib.model.kv_cache import BatchKVCache, KVCache
from lib.model.layers import Linear
from lib.model.loss import cross_entropy, linear_cross_entropy, naive_cross_entropy

#: The first logits' standard deviation: E[loss] = ln V + σ²/2 for normal logits, here 0.045 above ln V.
INIT_LOGIT_STD = 0.3


class LanguageModel(nn.Module):
    """`features` reads the past of each position, `out_head` turns what it found into logits.

    A model sets `out_head`; weights are undefined until `initialize` or a checkpoint fills them. One with `supports_kv_cache`
    can keep a text's keys and values in a `KVCache`; the others recompute the whole text for each token.
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

    def features(self, ids: Tensor, kv_cache: BatchKVCache | None = None) -> Tensor:
        """ids: (B, T), continuing the KV cache -> what the head reads at each position, (B, T, C)."""
        raise NotImplementedError

    def cache(self, capacity: int) -> KVCache | None:
        """An empty cache for a text of up to `capacity` tokens; None from a model that does not remember."""
        if not self.supports_kv_cache:
            return None
        config = self.config
        device = next(self.parameters()).device
        return KVCache(config.n_layers, config.n_kv_heads or config.n_heads, capacity, config.emb_dim // config.n_heads, device)

    def forward(self, ids: Tensor) -> Tensor:
        """ids: (B, T), T at most the context length -> logits (B, T, V); MakegptError for more or unknown ids."""
        return self.out_head(self.features(self._checked(ids)))

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """How wrong the logits for `ids` are about `targets`, both (B, T): nats, summed over all positions."""
        x, targets = self.features(self._checked(ids)).flatten(0, 1), targets.flatten()
        in_float16 = torch.is_autocast_enabled(x.device.type) and torch.get_autocast_dtype(x.device.type) == torch.float16
        if self.fused and isinstance(self.out_head, Linear) and not in_float16:  # whose range its sums may leave
            return linear_cross_entropy(x, self.out_head.weight, targets)
        return (cross_entropy if self.fused else naive_cross_entropy)(self.out_head(x).float(), targets)

    def next_token_logits(self, ids: Tensor, caches: Sequence[KVCache] = ()) -> Tensor:
        """ids: (B, T) -> logits (B, V) for the token after the last one; the head works on that row only.

        With `caches`, one a text, the ids are those after what each has read, and are added to it.
        """
        read = max((cache.length for cache in caches), default=0)
        kv_cache = BatchKVCache(caches, ids.shape[1], ids.device) if caches else None
        logits = self.out_head(self.features(self._checked(ids, read), kv_cache)[:, -1])
        for cache in caches:
            cache.length += ids.shape[1]
        return logits

    def _checked(self, ids: Tensor, read: int = 0) -> Tensor:
        """`ids`, if they are in the vocabulary and within the context behind `read` tokens."""
        if (length := read + ids.shape[1]) > self.context_length:
            raise MakegptError(f"{length} tokens are more than the model's context of {self.context_length}; give fewer")
        if not ids.is_meta and ids.numel():
            lowest, highest = (int(end) for end in ids.aminmax())
            if lowest < 0 or highest >= self.vocab_size:
                wrong = lowest if lowest < 0 else highest
                raise MakegptError(
                    f"the id {wrong} is not in the model's vocabulary of {self.vocab_size} tokens, 0 to {self.vocab_size - 1}; "
                    "was the text tokenized for another model?"
                )
        return ids

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Draw the first weights from normal distributions; biases are 0, norms the identity, as they were made."""
        for name, weight in self.named_parameters():
            if weight.dim() >= 2:
                weight.normal_(0.0, self.init_std(name, weight), generator=generator)

    def init_std(self, name: str, weight: Tensor) -> float:
        """The standard deviation that the matrix `name` is drawn with: here one that keeps the size of a product's input.

        The head starts with logits of `INIT_LOGIT_STD` for inputs of size 1, whatever the width, so that the
        first loss is near ln V, that of guessing.
        """
        if weight is self.out_head.weight:
            return INIT_LOGIT_STD * weight.shape[1] ** -0.5
        return 1.0 if self.is_embedding(name) else float(weight.shape[1] ** -0.5)

    def is_embedding(self, name: str) -> bool:
        """Whether the parameter `name` has a row for each token or position: the embeddings and the head."""
        return name.startswith(("tok_emb.", "pos_emb.", "out_head."))

    def uses_weight_decay(self, name: str) -> bool:
        """Whether weight decay acts on the parameter `name`: on matrices and embeddings, not on biases and norms."""
        return self.get_parameter(name).dim() >= 2
