"""Attention in its simplest form: nothing to learn, only dot products of the embeddings with each other.

The first step of Raschka 2024, section 3.3.1. T time, C embedding
"""

import torch
from torch import Tensor


def softmax(scores: Tensor) -> Tensor:
    """exp(s)/Σ exp(s) along the last dimension: any numbers to positive ones that sum to 1, larger to larger.

    The largest score is taken off first; that cancels in the fraction, but keeps exp in range.
    """
    e = torch.exp(scores - scores.max(dim=-1, keepdim=True).values)
    return e / e.sum(dim=-1, keepdim=True)


def simplified_attention(x: Tensor) -> Tensor:
    """Every row a mixture of all rows, those most that point its way: softmax(x xᵀ) x. (…, T, C) -> (…, T, C)."""
    scores = x @ x.transpose(-2, -1)  # (…, T, T): how alike any two rows are
    return softmax(scores) @ x
