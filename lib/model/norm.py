"""Normalization: every position's vector is scaled to the same size, so that deep stacks neither vanish nor explode."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib.config.model import ModelConfig

#: GPT-2's; inside the root, so that a constant row does not divide by zero.
EPS = 1e-5


def layer_norm(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """Each row to mean 0 and variance 1 (the biased one), then scaled and shifted (Ba et al. 2016)."""
    mean = x.mean(dim=-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=-1, keepdim=True)
    return scale * (x - mean) / torch.sqrt(variance + eps) + shift


def rms_norm(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    """Each row to a mean square of 1, then scaled: no mean is subtracted, no shift added (Zhang and Sennrich 2019)."""
    return scale * x / torch.sqrt((x**2).mean(dim=-1, keepdim=True) + eps)


class LayerNorm(nn.Module):
    """Layer normalization over the last dimension, with a learned scale and shift."""

    def __init__(self, emb_dim: int, *, eps: float = EPS, fused: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(emb_dim))
        self.shift = nn.Parameter(torch.zeros(emb_dim))
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:
            return F.layer_norm(x, x.shape[-1:], self.scale, self.shift, self.eps)
        return layer_norm(x, self.scale, self.shift, self.eps)


class RMSNorm(nn.Module):
    """Root-mean-square normalization over the last dimension, with a learned scale."""

    def __init__(self, emb_dim: int, *, eps: float = EPS, fused: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(emb_dim))
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:
            return F.rms_norm(x, x.shape[-1:], self.scale, self.eps)
        return rms_norm(x, self.scale, self.eps)


#: `model.norm` -> its class.
NORMS: dict[str, type[LayerNorm | RMSNorm]] = {"layer": LayerNorm, "rms": RMSNorm}


def build_norm(config: ModelConfig) -> LayerNorm | RMSNorm:
    """The norm that `config` describes."""
    return NORMS[config.norm](config.emb_dim, eps=config.norm_eps, fused=config.layer_impl == "fused")


def build_final_norm(config: ModelConfig) -> nn.Module:
    """The norm after the last block. A block with the norms after its shortcuts has one at its end, and needs no other."""
    return build_norm(config) if config.norm_position == "pre" else nn.Identity()
