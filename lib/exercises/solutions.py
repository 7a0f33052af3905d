"""Functions of exercises that the models have as methods: here as functions of tensors and numbers alone.

B batch, T time, C embedding, H heads, D head size, V vocabulary
"""

import json
import math
from typing import Any, Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from lib.model.feed_forward import gelu, silu


def linear_backward(x: Tensor, W: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Backpropagation through y = x Wᵀ, without autograd: the derivatives of a loss with respect to x and to W.

    x: (n, in), W: (out, in), dy: (n, out), the derivative of the loss with respect to y -> (n, in) and (out, in).
    """
    return dy @ W, dy.T @ x


def add_one_bigram(ids: Tensor, vocab_size: int) -> Tensor:
    """How likely each token is after each other one, by the pairs in a text and one more of each: (V, V).

    ids: (n,). Row i has the probabilities of what follows token i: (count of i, j + 1) / (count of i as a first + V).
    """
    counts = torch.ones(vocab_size, vocab_size, dtype=torch.float64)
    counts.index_put_((ids[:-1], ids[1:]), torch.ones(len(ids) - 1, dtype=torch.float64), accumulate=True)
    return counts / counts.sum(dim=1, keepdim=True)


def loss_units(nats: float, tokens: int, n_bytes: int) -> tuple[float, float, float]:
    """Nats/token, perplexity and bits/byte of a text of `tokens` tokens and `n_bytes` bytes that costs `nats` nats in all."""
    loss = nats / tokens
    return loss, math.exp(loss), nats / math.log(2) / n_bytes


def gradient_step(w: Tensor, x: Tensor, y: Tensor, lr: float) -> Tensor:
    """One step of gradient descent for the mean of (x·w - y)² over n examples, without autograd.

    w: (C,), x: (n, C), y: (n,) -> the new w, (C,).
    """
    error = x @ w - y
    return w - lr * 2 * x.T @ error / len(x)


def one_hot(ids: Tensor, vocab_size: int) -> Tensor:
    """ids: (T,) -> (T, V), in each row a 1 at the id and 0 elsewhere."""
    rows = torch.zeros(len(ids), vocab_size)
    rows[torch.arange(len(ids)), ids] = 1.0
    return rows


def embed(ids: Tensor, tok_emb: Tensor, pos_emb: Tensor) -> Tensor:
    """The row of each token plus that of its position: ids (B, T), tok_emb (V, C), pos_emb (positions, C) -> (B, T, C)."""
    return tok_emb[ids] + pos_emb[: ids.shape[1]]


def self_attention(x: Tensor, W_query: Tensor, W_key: Tensor, W_value: Tensor) -> Tensor:
    """softmax(Q Kᵀ / √D) V, every position attends to every other: x (T, C), the matrices (C, D) each -> (T, D)."""
    q, k, v = x @ W_query, x @ W_key, x @ W_value
    return torch.softmax(q @ k.T / math.sqrt(W_query.shape[1]), dim=-1) @ v


def window_mask(length: int, window: int) -> Tensor:
    """(T, T), true where row t must not attend: columns after t, and those before the last `window` up to t."""
    t, s = torch.arange(length)[:, None], torch.arange(length)
    return (s > t) | (t - s >= window)


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """(B, T, C) -> (B, H, T, D): head h gets the numbers h·D to (h + 1)·D of each position."""
    B, T, C = x.shape
    return x.view(B, T, n_heads, C // n_heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """The inverse of `split_heads`: (B, H, T, D) -> (B, T, C)."""
    B, H, T, D = x.shape
    return x.transpose(1, 2).reshape(B, T, H * D)


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


def masked_dropout(x: Tensor, kept: Tensor, drop_rate: float) -> Tensor:
    """Dropout whose draw is given: `kept`, of the shape of x, is 1 where a number stays. The mean stays that of x."""
    return x * kept / (1 - drop_rate)


def pre_norm_block(
    x: Tensor,
    attention: Callable[[Tensor], Tensor],
    feed_forward: Callable[[Tensor], Tensor],
    norm1: Callable[[Tensor], Tensor],
    norm2: Callable[[Tensor], Tensor],
) -> Tensor:
    """A transformer block with its norms before attention and feed-forward: (B, T, C) -> (B, T, C)."""
    x = x + attention(norm1(x))
    return x + feed_forward(norm2(x))


def feed_forward(x: Tensor, W_expand: Tensor, b_expand: Tensor, W_contract: Tensor, b_contract: Tensor) -> Tensor:
    """Wider, GELU, and back: x (..., C), W_expand (4C, C), b_expand (4C,), W_contract (C, 4C), b_contract (C,) -> (..., C)."""
    return gelu(x @ W_expand.T + b_expand) @ W_contract.T + b_contract


def path_slope(slopes: Sequence[float], shortcuts: bool) -> float:
    """The derivative of the output of stacked layers with respect to their input, from the slope f' of each; with shortcuts
    a layer computes x + f(x), else f(x).
    """
    return math.prod(1 + slope if shortcuts else slope for slope in slopes)


def parameter_count(vocab_size: int, context_length: int, emb_dim: int, n_layers: int, tied: bool, qkv_bias: bool) -> int:
    """How many parameters a GPT has: learned positions, LayerNorm with scale and shift, feed-forward 4C wide with biases, an
    output projection of attention with a bias, a final norm, a head without one.
    """
    V, T, C = vocab_size, context_length, emb_dim
    block = 12 * C * C + (13 if qkv_bias else 10) * C
    return V * C + T * C + n_layers * block + 2 * C + (0 if tied else V * C)


def read_header(raw: bytes) -> dict[str, Any]:
    """The header of a safetensors file: 8 bytes, little endian, with its length, then JSON."""
    length = int.from_bytes(raw[:8], "little")
    header: dict[str, Any] = json.loads(raw[8 : 8 + length])
    return header


def cached_attention(q: Tensor, k: Tensor, v: Tensor, cached_k: Tensor, cached_v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Attention of one new token: q, k, v (H, 1, D) are its own, cached_k and cached_v (H, N, D) those of all tokens before it.

    Returns the output, (H, 1, D), and the keys and values to keep, (H, N + 1, D) each.
    """
    k, v = torch.cat([cached_k, k], dim=1), torch.cat([cached_v, v], dim=1)
    weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1)
    return weights @ v, k, v


def kneser_ney_bigram(ids: Sequence[int], vocab_size: int) -> Tensor:
    """Interpolated Kneser-Ney with the discounts 1/2, 1 and 3/2 for counts of 1, 2 and more: (V, V), row i what follows i.

    p(j after i) = (c(i, j) - D(c(i, j))) / N(i) + Σ D / N(i) · p(j). For p(j), c is the number of distinct tokens before j,
    N the number of distinct pairs, and 1/V stands below. After a token that nothing follows, p(j after i) = p(j).
    """
    counts = np.zeros((vocab_size, vocab_size))
    np.add.at(counts, (np.array(ids[:-1]), np.array(ids[1:])), 1)

    def interpolate(c: np.ndarray, shorter: np.ndarray) -> np.ndarray:
        discounts = np.minimum(c, 3) / 2
        N = c.sum(axis=-1, keepdims=True)
        mixed = (c - discounts + discounts.sum(axis=-1, keepdims=True) * shorter) / np.maximum(N, 1)
        return np.where(N > 0, mixed, shorter)

    unigram = interpolate((counts > 0).sum(axis=0).astype(float), np.full(vocab_size, 1 / vocab_size))
    return torch.from_numpy(interpolate(counts, unigram))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: turn the pairs (x_i, x_{i+D/2}) by the angles with these cosines and sines.

    x: (B, H, T, D), cos and sin: (T, D/2) -> (B, H, T, D).
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def swiglu(x: Tensor, W_gate: Tensor, W_expand: Tensor, W_contract: Tensor) -> Tensor:
    """A gated feed-forward: x (..., C), W_gate and W_expand (W, C), W_contract (C, W) -> (..., C)."""
    return (silu(x @ W_gate.T) * (x @ W_expand.T)) @ W_contract.T


def share_heads(kv: Tensor, n_heads: int) -> Tensor:
    """Keys or values of G heads for H query heads, the first H/G of which use the first: (B, G, T, D) -> (B, H, T, D)."""
    return kv.repeat_interleave(n_heads // kv.shape[1], dim=1)


def normalized_scores(q: Tensor, k: Tensor, scale_q: Tensor, scale_k: Tensor, eps: float) -> Tensor:
    """Scores with query-key norm: q, k (T, D), each normalized by RMSNorm with its scale, (D,) -> q′·k′ / √D, (T, T)."""
    q = scale_q * q / ((q**2).mean(dim=-1, keepdim=True) + eps).sqrt()
    k = scale_k * k / ((k**2).mean(dim=-1, keepdim=True) + eps).sqrt()
    return q @ k.T / math.sqrt(q.shape[-1])


def tied_gradient(ids: Tensor, dx: Tensor, features: Tensor, dlogits: Tensor, vocab_size: int) -> Tensor:
    """The gradient of a matrix that is both embedding and head: (V, C).

    ids (T,) are read, and dx (T, C) is the gradient of their rows; features (T, C) are multiplied with every row, and
    dlogits (T, V) is the gradient of the products.
    """
    return torch.zeros(vocab_size, dx.shape[1]).index_add(0, ids, dx) + dlogits.T @ features


def frequency_head(p: Tensor, emb_dim: int) -> Tensor:
    """The rows of a head whose logits are ln p for any input that sums to C: p (V,) -> (V, C), all numbers of a row equal."""
    return (p.log() / emb_dim)[:, None].expand(-1, emb_dim)


def soft_cross_entropy(logits: Tensor, targets: Tensor, q: Tensor, share: float) -> Tensor:
    """The mean of -Σ target · ln softmax(logits), with the target (1 - share) · onehot + share · q.

    logits and q: (N, V), targets: (N,) -> ().
    """
    log_p = logits - logits.logsumexp(dim=-1, keepdim=True)
    hard = log_p[torch.arange(len(targets)), targets]
    return -((1 - share) * hard + share * (q * log_p).sum(dim=-1)).mean()


def shared_row_softmax(logits: Tensor, unseen_logit: Tensor, unseen: int) -> Tensor:
    """Softmax over V = U + `unseen` tokens of which all unseen ones have one logit, by U + 1 numbers.

    logits (U,), unseen_logit () -> (U + 1,): the probability of each seen token, then that of all unseen ones together.
    """
    return torch.softmax(torch.cat([logits, unseen_logit[None] + math.log(unseen)]), dim=-1)


def chatml_text(messages: Sequence[dict[str, str]], answer: bool) -> str:
    """Messages with a "role" and a "content" as one text in ChatML; with `answer`, up to where the assistant's answer begins.

    Each is <|im_start|>, the role, a line break, the content, <|im_end|>, a line break.
    """
    text = "".join(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in messages)
    return text + "<|im_start|>assistant\n" if answer else text


def packed_mask(texts: Tensor) -> Tensor:
    """texts: (T,), the number of each position's text -> (T, T), true where the row's position must not attend: to a later
    position, or to another text.
    """
    T = len(texts)
    return torch.ones(T, T, dtype=torch.bool).triu(diagonal=1) | (texts[:, None] != texts)


def learned_mean(nats: Tensor, learned: Tensor) -> Tensor:
    """The loss of a batch of conversations: nats and learned (B, T), the mean of nats over all learned tokens of the batch."""
    return (nats * learned).sum() / learned.sum()


def merged_weight(W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    """A matrix and its adapter as one matrix: W (out, in), A (r, in), B (out, r) -> (out, in)."""
    return W + alpha / A.shape[0] * B @ A


def preference_loss(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float) -> Tensor:
    """DPO: -ln σ(margin) of each pair, from ln p of its answers by the model and by the reference: (B,) each -> (B,)."""
    margin = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    return torch.logaddexp(torch.zeros_like(margin), -margin)


def pointer_mixture(head: Tensor, scores: Tensor, followers: Tensor, gate: float) -> Tensor:
    """A head's probabilities (V,), mixed with what followed n earlier positions: their `followers`, (n,) ids, by the softmax of
    their `scores`, (n,). `gate`: the part that is copied.
    """
    copied = torch.zeros_like(head).scatter_add(0, followers, torch.softmax(scores, dim=0))
    return (1 - gate) * head + gate * copied


def cross_attention(
    x: Tensor, encoded: Tensor, padding: Tensor, W_query: Tensor, W_kv: Tensor, W_out: Tensor, n_heads: int
) -> Tensor:
    """Each position of the target, x (B, T, C), attends to all of the source, encoded (B, S, C) -> (B, T, C).

    W_query is (C, C); W_kv, (2C, C), has the rows of all keys, then of all values; W_out, (C, C), mixes the heads. Nothing
    attends where `padding`, (B, S), is true.
    """
    B, S, C = encoded.shape
    q = (x @ W_query.T).view(B, -1, n_heads, C // n_heads).transpose(1, 2)  # (B, H, T, D)
    k, v = (encoded @ W_kv.T).view(B, S, 2 * n_heads, C // n_heads).transpose(1, 2).chunk(2, dim=1)  # (B, H, S, D)
    scores = q @ k.transpose(-1, -2) * (C // n_heads) ** -0.5
    weights = torch.softmax(scores.masked_fill(padding[:, None, None], -torch.inf), dim=-1)
    return (weights @ v).transpose(1, 2).flatten(2) @ W_out.T


def smoothed_targets(targets: Tensor, vocab_size: int, share: float) -> Tensor:
    """Label smoothing: (N,) ids -> (N, V), each row a 1 at the id, mixed with the uniform distribution with weight `share`."""
    rows = torch.full((len(targets), vocab_size), share / vocab_size)
    rows[torch.arange(len(targets)), targets] += 1 - share
    return rows
