"""Sparse attention: patterns of which earlier tokens a position attends to, and attention that skips the rest.

    sliding   itself and the w - 1 tokens before it (Child et al. 2019; Beltagy et al. 2020)
    strided   those, and every w-th token before it (Child et al. 2019, section 4.3)
    fixed     its own block of w tokens so far, and the last c tokens of each earlier block (the same section)

A pattern is a mask first: `SparsePattern.hides`. `sparse_attention` computes only the scores that the pattern may leave.

B batch, T time, H heads, D head size, w window, n = T/w blocks, M keys of one query
"""

import math
from dataclasses import dataclass
from typing import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lib.config.model import ModelConfig
from lib.model.causal_attention import causal_mask


@dataclass(frozen=True)
class SparsePattern:
    """Which tokens a position attends to. `window`: w; `summary_tokens`: c, of pattern fixed."""

    name: str
    window: int
    summary_tokens: int = 1

    def __str__(self) -> str:
        summary = f", {self.summary_tokens} summary tokens" if self.summary_tokens > 1 else ""
        return {
            "sliding": f"a window of {self.window}",
            "strided": f"a window of {self.window}, and every {self.window}th token before it",
            "fixed": f"blocks of {self.window}{summary}",
        }[self.name]

    def hides(self, t: Tensor, s: Tensor) -> Tensor:
        """True where position t must not attend to position s; t and s broadcast."""
        w = self.window
        if self.name == "fixed":
            seen = (s // w == t // w) | (s % w >= w - self.summary_tokens)
        else:
            seen = t - s < w
            if self.name == "strided":
                seen = seen | ((t - s) % w == 0)
        return ~seen | (s > t)

    def mask(self, length: int) -> Tensor:
        """(T, T), true where row t must not attend: a `causal_mask` that hides more."""
        positions = torch.arange(length)
        return self.hides(positions[:, None], positions)

    def seen(self, t: int) -> Tensor:
        """The positions that position t attends to, in order."""
        positions = torch.arange(t + 1)
        return positions[~self.hides(torch.tensor(t), positions)]

    @property
    def near_blocks(self) -> int:
        """The blocks of w tokens, its own included, that hold all near tokens of a position."""
        return 1 if self.name == "fixed" else 2

    def computed(self, length: int) -> int:
        """The keys of each query in `sparse_attention` on a text of `length` tokens, M; those in dense attention are T."""
        n = math.ceil(length / self.window)
        return self.near_blocks * self.window + {"sliding": 0, "strided": n, "fixed": n * self.summary_tokens}[self.name]

    def saves_time(self, queries: int, length: int) -> bool:
        """Whether `sparse_attention` takes less time than a mask: for one query, and with under a quarter of the scores.

        Small products are slower per score than the fused kernel (docs/sparse_attention.md has the times).
        """
        return queries == 1 or (queries == length and 4 * self.computed(length) < length)


def sparse_pattern(config: ModelConfig) -> SparsePattern | None:
    """The pattern that `config` asks for; None: every earlier token."""
    if config.window is None:
        return None
    return SparsePattern(config.attention_pattern, config.window, config.summary_tokens)


def attention_mask(length: int, pattern: SparsePattern | None = None) -> Tensor:
    """(T, T), true where row t must not attend."""
    return causal_mask(length) if pattern is None else pattern.mask(length)


def sparse_attention(
    q: Tensor, k: Tensor, v: Tensor, pattern: SparsePattern, dropout: Callable[[Tensor], Tensor] = lambda weights: weights
) -> Tensor:
    """softmax(QKᵀ/√D + M)V with the mask of `pattern`, from M scores a query instead of T.

    q: (B, H, T, D), k, v: (B, H, N, D) -> (B, H, T, D), where T is N, or 1: the query of the last position, which needs the
    keys that it attends to and no others. The time axis of a whole text is cut into n blocks of w tokens. The near keys of a
    query are in its own block and, with sliding and strided, the one before. The far keys are in earlier blocks: with strided
    the same place of each, with fixed the last c places of each. One softmax goes over both.
    """
    T, N, w = q.shape[-2], k.shape[-2], pattern.window
    if T == 1:
        seen = pattern.seen(N - 1).to(k.device)
        return dropout(_softmax(q @ k[:, :, seen].mT, q)) @ v[:, :, seen]
    q, k, v = (_blocks(x, w) for x in (q, k, v))  # (B, H, n, w, D)
    n = q.shape[2]
    block, place = torch.arange(n, device=q.device)[:, None, None], torch.arange(w, device=q.device)[:, None]
    t = block * w + place  # (n, w, 1)

    near_k, near_v = (_near(x, pattern.near_blocks) for x in (k, v))
    s = (block + 1 - pattern.near_blocks) * w + torch.arange(pattern.near_blocks * w, device=q.device)
    scores = (q @ near_k.mT).masked_fill(pattern.hides(t, s) | (s < 0), -torch.inf)  # (B, H, n, w, near)
    if pattern.name == "sliding":
        weights = dropout(_softmax(scores, q))
        return (weights @ near_v).flatten(2, 3)[:, :, :T]

    too_near = torch.arange(n, device=q.device) > block - pattern.near_blocks  # (n, 1, n)
    if pattern.name == "strided":
        q_far, k_far, v_far = (x.transpose(2, 3) for x in (q, k, v))  # (B, H, w, n, D): a column is a text of n tokens
        far = (q_far @ k_far.mT).transpose(2, 3)  # (B, H, n, w, n)
    else:
        k_far, v_far = (x[:, :, :, -pattern.summary_tokens :].flatten(2, 3)[:, :, None] for x in (k, v))  # (B, H, 1, n·c, D)
        far = q @ k_far.mT  # (B, H, n, w, n·c)
        too_near = too_near.repeat_interleave(pattern.summary_tokens, dim=-1)
    scores = torch.cat([scores, far.masked_fill(too_near, -torch.inf)], dim=-1)
    near, far = torch.split(dropout(_softmax(scores, q)), [near_k.shape[-2], far.shape[-1]], dim=-1)
    far = (far.transpose(2, 3) @ v_far).transpose(2, 3) if pattern.name == "strided" else far @ v_far
    return (near @ near_v + far).flatten(2, 3)[:, :, :T]


def _softmax(scores: Tensor, q: Tensor) -> Tensor:
    return torch.softmax(scores / math.sqrt(q.shape[-1]), dim=-1)


def _blocks(x: Tensor, w: int) -> Tensor:
    """(B, H, T, D) -> (B, H, n, w, D), filled up with zeros at the end, where no position of the text attends."""
    B, H, _, D = x.shape
    return F.pad(x, (0, 0, 0, -x.shape[2] % w)).view(B, H, -1, w, D)


def _near(x: Tensor, blocks: int) -> Tensor:
    """Each block after the `blocks` - 1 before it: (B, H, n, w, D) -> (B, H, n, blocks·w, D); zeros before the first."""
    if blocks == 1:
        return x
    earlier = F.pad(x, (0, 0, 0, 0, 1, 0))[:, :, :-1]
    return torch.cat([earlier, x], dim=3)
