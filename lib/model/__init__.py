"""The model, from scratch, one idea a file; it knows nothing of files.

`CLIMB` is the order to read them in: each imports only from those before it.

build(config)          the model of a configuration, its weights not yet filled
count(model)           its trainable parameters
operations(model)      the arithmetic of training it on one token
"""

import torch
from torch import nn

from lib.config import ModelConfig
from lib.model.attention import MultiHeadAttention
from lib.model.bigram import Bigram
from lib.model.cache import Cache
from lib.model.gpt import GPT
from lib.model.language_model import LanguageModel
from lib.model.layers import Linear
from lib.model.maps import attentions
from lib.model.multi_head import MultiHead
from lib.model.single_block import SingleBlock
from lib.model.single_head import SingleHead

__all__ = ["CLIMB", "KINDS", "Cache", "LanguageModel", "build", "count", "operations", "products"]

CLIMB = (
    "layers",
    "dropout",
    "cache",
    "language_model",
    "bigram",
    "positions",
    "embeddings",
    "simplified_attention",
    "self_attention",
    "causal_attention",
    "single_head",
    "heads",
    "norm",
    "attention",
    "multi_head",
    "feed_forward",
    "shortcut",
    "block",
    "single_block",
    "gpt",
    "maps",
)

KINDS: dict[str, type[LanguageModel]] = {
    "bigram": Bigram,
    "single_head": SingleHead,
    "multi_head": MultiHead,
    "single_block": SingleBlock,
    "gpt": GPT,
}


def build(config: ModelConfig, device: torch.device | str = "cpu") -> LanguageModel:
    """The model `config` describes, on `device`; fill its weights with `initialise` or a checkpoint."""
    with torch.device(device):
        return KINDS[config.kind](config)


def count(model: nn.Module) -> int:
    """Trainable parameters; a tied matrix counts once."""
    return sum(weight.numel() for weight in model.parameters())


def products(model: nn.Module) -> int:
    """The part of `operations` that is products with weights."""
    return 6 * sum(module.weight.numel() for module in model.modules() if isinstance(module, Linear))


def operations(model: LanguageModel) -> int:
    """Floating-point operations of training on one token, forward and backward; the optimizer's are not counted.

    6 for each weight in a matrix product (Kaplan et al. 2020, 2.1), and 12·C·T for each attention: all of its T × T
    scores, though half of them are masked.
    """
    width = sum(
        module.n_heads * module.head_size if isinstance(module, MultiHeadAttention) else module.W_value.weight.shape[0]
        for module in attentions(model)
    )
    return products(model) + 12 * width * model.context_length
