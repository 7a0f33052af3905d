"""The two layers that hold nearly all of a GPT's weights, built from tensors.

B batch, T time, C embedding, V vocabulary
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
        return y if self.bias is None else y + self.bias.to(y.dtype)


class SharedRowHead(Linear):
    """An output head without bias whose last row stands for `copies` tokens that all have its logit.

    Its last output is the logit of them together: that of one, and the logarithm of their number.
    """

    def __init__(self, emb_dim: int, rows: int, copies: int) -> None:
        super().__init__(emb_dim, rows, bias=False)
        self.copies = copies

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return torch.cat([logits[..., :-1], logits[..., -1:] + math.log(self.copies)], dim=-1)


class Embedding(nn.Module):
    """One learned row of C numbers for each of `count` ids: a lookup table."""

    def __init__(self, count: int, emb_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, emb_dim))

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight)  # weight[ids], with a gradient that does not sort the ids
