"""The models by name, and their sizes.

`LADDER` is the reading order of this package: each module imports only from earlier ones.
"""

from typing import Iterator

import torch
from torch import Tensor, nn

from lib.config.model import ModelConfig
from lib.model.attention import MultiHeadAttention
from lib.model.bigram import Bigram
from lib.model.causal_attention import CausalAttention
from lib.model.encoder_decoder import EncoderDecoder
from lib.model.gpt import GPT
from lib.model.language_model import LanguageModel
from lib.model.layers import Linear
from lib.model.lora import ADAPTERS, AdaptedLinear, Adapter
from lib.model.lstm import LSTM
from lib.model.multi_head import MultiHead
from lib.model.pointer import PointerGPT
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
    "sparse_attention",
    "attention",
    "multi_head",
    "feed_forward",
    "shortcut",
    "block",
    "single_block",
    "gpt",
    "mixture",
    "pointer",
    "cross_attention",
    "encoder_decoder",
    "classifier",
    "maps",
    "lora",
    "registry",
    "seen_vocabulary",
    "finetuning",
)

MODELS: dict[str, type[LanguageModel]] = {
    "bigram": Bigram,
    "lstm": LSTM,
    "single_head": SingleHead,
    "multi_head": MultiHead,
    "single_block": SingleBlock,
    "gpt": GPT,
    "pointer": PointerGPT,
    "encoder_decoder": EncoderDecoder,
}


def build_model(config: ModelConfig, device: torch.device | str = "cpu") -> LanguageModel:
    """The model that `config` describes, on `device`; fill its weights with `initialize` or a checkpoint."""
    with torch.device(device):
        return MODELS[config.kind](config)


def count_parameters(model: nn.Module) -> int:
    """Parameters of the model; a tied matrix counts once, adapters, which are merged in the end, not at all."""
    return sum(weight.numel() for name, weight in model.named_parameters() if ADAPTERS not in name)


def matmul_operations(model: nn.Module, *, keeps_frozen: bool = False) -> int:
    """The matrix products with weights in `count_operations`."""
    return sum(
        (2 + 2 * needs_gradient + 2 * weight.requires_grad) * weight.numel()
        for module, needs_gradient in _with_gradients(model)
        if needs_gradient or not keeps_frozen
        for weight in _multiplied(module)
    )


def _multiplied(module: nn.Module) -> list[Tensor]:
    """The matrices that the input of `module` itself is multiplied with."""
    if isinstance(module, Adapter):
        return [module.A, module.B]
    if isinstance(module, AdaptedLinear):
        return [module.frozen]
    return [module.weight] if isinstance(module, Linear) else []


def _with_gradients(model: nn.Module) -> Iterator[tuple[nn.Module, bool]]:
    """The modules, lowest first, and whether a gradient passes through each: it, or one below it, has trained weights."""
    below = False
    for module in model.modules():
        yield module, below or any(weight.requires_grad for weight in module.parameters())
        below = below or any(weight.requires_grad for weight in module.parameters(recurse=False))


def count_operations(model: LanguageModel, *, keeps_frozen: bool = False) -> int:
    """Floating-point operations of training on one token, forward and backward; the optimizer's are not counted.

    6 for each weight in a matrix product (Kaplan et al. 2020, 2.1), and 12·C·T for each attention: all of its T × T
    scores, though half of them are masked. Two of 6 are the weight's gradient, which a frozen one does not need, two that of
    its input, which none needs below the first trained weight. With `keeps_frozen` what is below it is computed once and kept,
    and does not count.
    """
    width = sum(
        (4 + 8 * needs_gradient)
        * (module.n_heads * module.head_size if isinstance(module, MultiHeadAttention) else module.W_value.weight.shape[0])
        for module, needs_gradient in _with_gradients(model)
        if isinstance(module, (MultiHeadAttention, CausalAttention)) and (needs_gradient or not keeps_frozen)
    )
    return matmul_operations(model, keeps_frozen=keeps_frozen) + width * model.context_length
