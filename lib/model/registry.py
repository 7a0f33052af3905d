"""The models by name, and their sizes.

`LADDER` is the reading order of this package: each module imports only from earlier ones.
"""

import torch
from torch import nn

from lib.config.model import ModelConfig
from lib.model.attention import MultiHeadAttention
from lib.model.bigram import Bigram
from lib.model.gpt import GPT
from lib.model.language_model import LanguageModel
from lib.model.layers import Linear
from lib.model.lstm import LSTM
from lib.model.maps import attentions
from lib.model.multi_head import MultiHead
from lib.model.single_block import SingleBlock
from lib.model.single_head import SingleHead

LADDER = (
    "layers",
    "dropout",
    "kv_cache",
    "packing",
    "loss",
    "language_model",
    "bigram",
    "lstm",
    "positions",
    "ngram_embeddings",
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
    "registry",
    "seen_vocabulary",
)

MODELS: dict[str, type[LanguageModel]] = {
    "bigram": Bigram,
    "lstm": LSTM,
    "single_head": SingleHead,
    "multi_head": MultiHead,
    "single_block": SingleBlock,
    "gpt": GPT,
}


def build_model(config: ModelConfig, device: torch.device | str = "cpu") -> LanguageModel:
    """The model that `config` describes, on `device`; fill its weights with `initialize` or a checkpoint."""
    with torch.device(device):
        return MODELS[config.kind](config)


def count_parameters(model: nn.Module) -> int:
    """Trainable parameters; a tied matrix counts once."""
    return sum(weight.numel() for weight in model.parameters())


def matmul_parameters(model: nn.Module) -> int:
    """The matrix products with weights in `count_operations`: 6 operations for each weight."""
    return 6 * sum(module.weight.numel() for module in model.modules() if isinstance(module, Linear))


def count_operations(model: LanguageModel) -> int:
    """Floating-point operations of training on one token, forward and backward; the optimizer's are not counted.

    6 for each weight in a matrix product (Kaplan et al. 2020, 2.1), and 12·C·T for each attention: all of its T × T
    scores, though half of them are masked.
    """
    width = sum(
        module.n_heads * module.head_size if isinstance(module, MultiHeadAttention) else module.W_value.weight.shape[0]
        for module in attentions(model)
    )
    return matmul_parameters(model) + 12 * width * model.context_length
