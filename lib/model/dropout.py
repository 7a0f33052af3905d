"""Dropout: zeroing activations at random in training, to reduce overfitting (Srivastava et al. 2014)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def dropout(x: Tensor, rate: float) -> Tensor:
    """Set each number to zero with probability `rate`; scale the others by 1/(1 - rate), so that the mean stays.

    Draws from the default generator, as PyTorch's `dropout` does, its equivalent.
    """
    mask = torch.empty_like(x).bernoulli_(1 - rate)
    return x * mask / (1 - rate)


def dropout_16bit(x: Tensor, rate: float) -> Tensor:
    """`dropout` with other random bits: 16 for each number, so four numbers share one draw.

    On a CPU the draws are most of the work, and this one takes a fifth of the time. `rate` is rounded to 1/65,536.
    """
    limit = round(rate * 65536)
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-(2**63), None)
    mask = draws.view(torch.int16)[: x.numel()].view(x.shape) >= limit - 32768
    return x * mask.to(x.dtype).mul_(65536 / (65536 - limit))


class Dropout(nn.Module):
    """`dropout` in training, the identity in evaluation; if `fused`, its fastest implementation."""

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
