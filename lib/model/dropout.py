"""Dropout: zeroing activations at random in training, to reduce overfitting (Srivastava et al. 2014)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def dropout(x: Tensor, rate: float) -> Tensor:
    """Each number to zero with probability `rate`, the others larger by 1/(1 - rate), so that the mean stays.

    Draws from the default generator, as PyTorch's `dropout` does, its equivalent.
    """
    kept = torch.empty_like(x).bernoulli_(1 - rate)
    return x * kept / (1 - rate)


def dropout_16bit(x: Tensor, rate: float) -> Tensor:
    """`dropout` with other draws: 16 random bits decide about a number, four numbers share a draw.

    On a CPU the draws are most of the work, and this one takes a fifth of the time. `rate` is rounded to 1/65,536.
    """
    limit = round(rate * 65536)
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-(2**63), None)
    kept = draws.view(torch.int16)[: x.numel()].view(x.shape) >= limit - 32768
    return x * kept.to(x.dtype).mul_(65536 / (65536 - limit))


class Dropout(nn.Module):
    """`dropout` in training, nothing in use; where `fused`, in the fastest of its forms."""

    def __init__(self, rate: float, *, fused: bool = False) -> None:
        super().__init__()
        self.rate = rate
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        if not self.fused:
            return dropout(x, self.rate)
        return dropout_16bit(x, self.rate) if x.device.type == "cpu" else F.dropout(x, self.rate)
