"""The feed-forward half of a block: a small network, wider inside, applied to each position (Vaswani et al. 2017, 3.3).

B batch, T time, C embedding
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib.model.layers import Linear


def relu(x: Tensor) -> Tensor:
    """max(0, x): the original transformer's (Vaswani et al. 2017, 3.3)."""
    return x.clamp(min=0)


def gelu(x: Tensor) -> Tensor:
    """0.5x(1 + tanh(√(2/π)(x + 0.044715x³))): a smooth ReLU, in GPT-2's form (Hendrycks and Gimpel 2016)."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x: Tensor) -> Tensor:
    """x·σ(x), also called Swish: a smooth ReLU as well (Elfwing et al. 2018)."""
    return x * torch.sigmoid(x)


class FeedForward(nn.Module):
    """Wider, GELU, and back: (B, T, C) -> (B, T, width) -> (B, T, C). The default width is 4C."""

    def __init__(self, emb_dim: int, width: int | None = None, *, fused: bool = False) -> None:
        super().__init__()
        width = width or 4 * emb_dim
        self.expand = Linear(emb_dim, width)
        self.contract = Linear(width, emb_dim)
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(self.activation(self.expand(x)))

    def activation(self, wide: Tensor) -> Tensor:
        """GELU of each number."""
        return F.gelu(wide, approximate="tanh") if self.fused else gelu(wide)


class ReLUFeedForward(FeedForward):
    """The same with ReLU in place of GELU."""

    def activation(self, wide: Tensor) -> Tensor:
        """ReLU of each number."""
        return F.relu(wide) if self.fused else relu(wide)


class SwiGLU(nn.Module):
    """A gated feed-forward: contract(silu(gate(x)) · expand(x)), without biases (Shazeer 2020).

    Three matrices instead of two, so each is a third narrower by default: 8C/3 wide, rounded up to a multiple of 8.
    """

    def __init__(self, emb_dim: int, width: int | None = None, *, fused: bool = False) -> None:
        super().__init__()
        width = width or -(-8 * emb_dim // 24) * 8
        self.gate = Linear(emb_dim, width, bias=False)
        self.expand = Linear(emb_dim, width, bias=False)
        self.contract = Linear(width, emb_dim, bias=False)
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x)
        return self.contract((F.silu(gate) if self.fused else silu(gate)) * self.expand(x))


#: `model.feed_forward` -> its class.
FEED_FORWARDS: dict[str, type[FeedForward | SwiGLU]] = {"gelu": FeedForward, "relu": ReLUFeedForward, "swiglu": SwiGLU}
