"""What goes on inside a model: attention weights, recorded by hooks in a forward pass, and the residual stream.

T time, S tokens of a source, C embedding, H heads, L blocks
"""

from typing import Any, Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from lib.model.attention import MultiHeadAttention
from lib.model.causal_attention import CausalAttention
from lib.model.cross_attention import CrossAttention
from lib.model.encoder_decoder import EncoderDecoder
from lib.model.gpt import GPT
from lib.model.kv_cache import SourceKV
from lib.model.language_model import LanguageModel
from lib.model.single_block import SingleBlock


def attentions(model: LanguageModel) -> list[CausalAttention | MultiHeadAttention]:
    """Every attention in the model, lowest first; none in a bigram."""
    return [module for module in model.modules() if isinstance(module, (CausalAttention, MultiHeadAttention))]


@torch.no_grad()
def attention_maps(model: LanguageModel, ids: Tensor) -> list[Tensor]:
    """The weights (H, T, T) of every attention in the model, lowest first, for the input `ids`, (1, T)."""

    def weights(module: Any, x: Tensor, *_: Any) -> Tensor:
        return module.weights(x)[0].reshape(-1, ids.shape[1], ids.shape[1]).cpu()

    return _recorded(attentions(model), weights, lambda: model(ids))


@torch.no_grad()
def cross_attention_maps(model: EncoderDecoder, source: Sequence[int], ids: Sequence[int]) -> list[Tensor]:
    """The weights (H, T, S) of every cross-attention, lowest first: what the decoder looks at in `source` as it reads `ids`."""
    device = next(model.parameters()).device
    encoded = model.encode(torch.tensor([source], device=device), torch.tensor([len(source)], device=device))

    def weights(module: Any, x: Tensor, sources: Sequence[SourceKV]) -> Tensor:
        return module.weights(x, sources[0])[0].cpu()

    modules = [module for module in model.modules() if isinstance(module, CrossAttention)]
    return _recorded(modules, weights, lambda: model.decode(torch.tensor([ids], device=device), [encoded]))


def block_stack(model: LanguageModel) -> GPT | SingleBlock | None:
    """The blocks of the model and what is around them; None if it has no blocks, between which a head can read."""
    return next((module for module in model.modules() if isinstance(module, (GPT, SingleBlock))), None)


def residual_stream(stack: GPT | SingleBlock, ids: Tensor) -> Iterator[Tensor]:
    """The residual stream, (1, T, C), before the first block and after each, L + 1 in all, for the input `ids`, (1, T).

    The last one after the final norm is what `features` computes.
    """
    x = stack.embed(ids)
    yield x
    for block in stack.blocks if isinstance(stack, GPT) else [stack.block]:
        x = block(x)
        yield x


def _recorded(modules: Iterable[nn.Module], weights: Callable[..., Tensor], forward: Callable[[], Any]) -> list[Tensor]:
    """`weights(module, *inputs)` of each of the `modules`, in the order in which `forward` calls them."""
    maps: list[Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs: maps.append(weights(module, *inputs))) for module in modules
    ]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    return maps
