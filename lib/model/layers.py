"""The layers every block is built of, written out from tensors.

    B batch, T time, C embedding, V vocabulary

Where PyTorch has a fused form that is worth it, it stands beside the written-out one, and a test holds
both equal in values and gradients.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Module):
    """y = x Wᵀ + b: every output is a weighted sum of all inputs. Weight (out, in), bias (out,) or none."""

    def __init__(self, size_in: int, size_out: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size_out, size_in))
        self.bias = nn.Parameter(torch.zeros(size_out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.weight.T
        return y if self.bias is None else y + self.bias


class Embedding(nn.Module):
    """One learned row of C numbers for each of `count` ids: a table, read by row."""

    def __init__(self, count: int, emb_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, emb_dim))

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight)  # weight[ids], with a gradient that does not sort the ids


def layer_norm(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """Each row to mean 0 and variance 1, then scaled and shifted (Ba et al. 2016). The variance is the biased one."""
    mean = x.mean(dim=-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=-1, keepdim=True)
    return scale * (x - mean) / torch.sqrt(variance + eps) + shift


class LayerNorm(nn.Module):
    """Layer normalisation over the last dimension, with a learned scale and shift."""

    eps = 1e-5  # GPT-2's; inside the root, so that a constant row does not divide by zero

    def __init__(self, emb_dim: int, fused: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(emb_dim))
        self.shift = nn.Parameter(torch.zeros(emb_dim))
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:
            return F.layer_norm(x, x.shape[-1:], self.scale, self.shift, self.eps)
        return layer_norm(x, self.scale, self.shift, self.eps)


def gelu(x: Tensor) -> Tensor:
    """0.5x(1 + tanh(√(2/π)(x + 0.044715x³))): a smooth step, GPT-2's form (Hendrycks and Gimpel 2016)."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


class GELU(nn.Module):
    """GELU in its tanh form."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate="tanh") if self.fused else gelu(x)


class FeedForward(nn.Module):
    """Each position thinks for itself: four times wider, a non-linearity, and back (Vaswani et al. 2017, 3.3)."""

    def __init__(self, emb_dim: int, fused: bool) -> None:
        super().__init__()
        self.expand = Linear(emb_dim, 4 * emb_dim)
        self.activation = GELU(fused)
        self.contract = Linear(4 * emb_dim, emb_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(self.activation(self.expand(x)))
