"""Attention in its simplest form: no weights, only dot products of the embeddings with each other.

The first step of Raschka 2024, section 3.3.1. T time, C embedding
"""

import torch
from torch import Tensor


def softmax(scores: Tensor) -> Tensor:
    """exp(s)/Σ exp(s) along the last dimension: positive numbers that sum to 1, in the order of the scores.

    The largest score is subtracted first; that cancels in the fraction, but keeps exp in range.
    """
    e = torch.exp(scores - scores.max(dim=-1, keepdim=True).values)
    return e / e.sum(dim=-1, keepdim=True)


def simplified_attention(x: Tensor) -> Tensor:
    """Every row a mixture of all rows, most of those similar to it: softmax(x xᵀ) x. (…, T, C) -> (…, T, C)."""
    scores = x @ x.transpose(-2, -1)  # (…, T, T): the similarity of any two rows
    return softmax(scores) @ x
