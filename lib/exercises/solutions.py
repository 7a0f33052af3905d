"""Functions of exercises that the models have as methods: here as functions of tensors alone.

B batch, T time, C embedding, H heads, V vocabulary
"""

import torch
from torch import Tensor


def multi_head_attention(x: Tensor, W_qkv: Tensor, W_out: Tensor, n_heads: int) -> Tensor:
    """Causal attention with several heads: (B, T, C) -> (B, T, C).

    W_qkv, (3C, C), has the rows of all queries, then of all keys, then of all values; each head takes C / H of them, in
    order. A score is q·k / √D with D = C / H; no position attends to a later one. W_out, (C, C), mixes the heads.
    """
    B, T, C = x.shape
    q, k, v = (x @ W_qkv.T).view(B, T, 3 * n_heads, C // n_heads).transpose(1, 2).chunk(3, dim=1)  # (B, H, T, D)
    scores = q @ k.transpose(-1, -2) * (C // n_heads) ** -0.5
    future = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(diagonal=1)
    weights = torch.softmax(scores.masked_fill(future, -torch.inf), dim=-1)
    return (weights @ v).transpose(1, 2).reshape(B, T, C) @ W_out.T


def add_one_bigram(ids: Tensor, vocab_size: int) -> Tensor:
    """How likely each token is after each other one, by the pairs in a text and one more of each: (V, V).

    ids: (n,). Row i has the probabilities of what follows token i: (count of i, j + 1) / (count of i as a first + V).
    """
    counts = torch.ones(vocab_size, vocab_size, dtype=torch.float64)
    counts.index_put_((ids[:-1], ids[1:]), torch.ones(len(ids) - 1, dtype=torch.float64), accumulate=True)
    return counts / counts.sum(dim=1, keepdim=True)


def gradient_step(w: Tensor, x: Tensor, y: Tensor, lr: float) -> Tensor:
    """One step of gradient descent for the mean of (x·w - y)² over n examples, without autograd.

    w: (C,), x: (n, C), y: (n,) -> the new w, (C,).
    """
    error = x @ w - y
    return w - lr * 2 * x.T @ error / len(x)
