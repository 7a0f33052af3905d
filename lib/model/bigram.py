"""The first model of the ladder: the next token from the last one only (Markov 1913; Shannon 1948, section 3).

B batch, T time, V vocabulary
"""

from torch import Tensor

from lib.config.model import ModelConfig
from lib.model.kv_cache import BatchKVCache
from lib.model.language_model import INIT_LOGIT_STD, LanguageModel
from lib.model.layers import Embedding
from lib.model.packing import Packing


class Bigram(LanguageModel):
    """A table of V × V logits: row i predicts what follows token i. Trained, it approaches the bigram (counts)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.out_head = Embedding(self.vocab_size, self.vocab_size)

    def features(self, ids: Tensor, kv_cache: BatchKVCache | None = None, packing: Packing | None = None) -> Tensor:
        """ids: (B, T) -> (B, T): its only context is the token itself."""
        return ids

    def init_std(self, name: str, weight: Tensor) -> float:
        """A row is looked up, not multiplied: its numbers are the logits."""
        return INIT_LOGIT_STD
