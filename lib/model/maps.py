"""Attention maps, recorded by hooks in a forward pass. H heads, T time."""

from typing import Any

import torch
from torch import Tensor, nn

from lib.model.attention import MultiHeadAttention
from lib.model.causal_attention import CausalAttention
from lib.model.language_model import LanguageModel


def attentions(model: LanguageModel) -> list[CausalAttention | MultiHeadAttention]:
    """Every attention in the model, lowest first; none in a bigram."""
    return [module for module in model.modules() if isinstance(module, (CausalAttention, MultiHeadAttention))]


@torch.no_grad()
def attention_maps(model: LanguageModel, ids: Tensor) -> list[Tensor]:
    """The weights (H, T, T) of every attention in the model, lowest first, for the input `ids`, (1, T)."""
    maps: list[Tensor] = []

    def record(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        assert isinstance(module, (CausalAttention, MultiHeadAttention))
        maps.append(module.weights(inputs[0])[0].reshape(-1, ids.shape[1], ids.shape[1]).cpu())

    hooks = [module.register_forward_pre_hook(record) for module in attentions(model)]
    try:
        model(ids)
    finally:
        for hook in hooks:
            hook.remove()
    return maps
