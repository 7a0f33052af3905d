"""The loss: cross-entropy, in nats. N positions, C embedding, V vocabulary."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

#: Numbers in the largest buffer of logits: 256 MB of float32. More positions are computed in chunks.
LOGITS_AT_ONCE = 1 << 26

_CACHE_LINE = 16  # numbers of float32


class SoftTargets(NamedTuple):
    """What the targets are mixed with: `rows`, (N, V), a distribution for each position, with the weight `share`."""

    rows: Tensor
    share: float


def naive_cross_entropy(logits: Tensor, targets: Tensor, soft: SoftTargets | None = None) -> Tensor:
    """-ln softmax(logits)[target], summed over the positions, in nats.

    logits: (N, V), targets: (N,) -> a scalar. ln Σ exp is taken after the largest logit is subtracted,
    which changes nothing but keeps exp in range. With `soft`, the mean of -ln softmax(logits) over the mixed targets
    (1 - share)·one-hot + share·rows.
    """
    largest = logits.max(dim=-1, keepdim=True).values
    log_sum = (logits - largest).exp().sum(dim=-1).log() + largest[:, 0]
    nats = log_sum - logits[torch.arange(len(targets), device=logits.device), targets]
    if soft:
        nats = (1 - soft.share) * nats + soft.share * (soft.rows * (log_sum[:, None] - logits)).sum(dim=-1)
    return nats.sum()


def cross_entropy(logits: Tensor, targets: Tensor, soft: SoftTargets | None = None) -> Tensor:
    """PyTorch's fused equivalent of `naive_cross_entropy`."""
    nats = F.cross_entropy(logits, targets, reduction="sum")
    if soft is None:
        return nats
    return (1 - soft.share) * nats + soft.share * F.cross_entropy(logits, soft.rows, reduction="sum")


def linear_cross_entropy(
    x: Tensor, weight: Tensor, targets: Tensor, soft: SoftTargets | None = None, copies: int = 1
) -> Tensor:
    """`cross_entropy` of the logits x Wᵀ, which are never stored as a whole: the head and the loss in one function.

    x: (N, C), weight: (V, C), targets: (N,) -> a scalar. The last row of the weight may stand for `copies` tokens
    (`SharedRowHead`), one class here: none of them is a target, and the last column of `soft` is the probability of all.
    It saves three things over head and loss as two steps: the logits, their softmax and their gradient share one buffer;
    the buffer has at most `LOGITS_AT_ONCE` numbers; its rows are aligned to cache lines, where the matrix product is
    faster (bench/head.py).
    """
    if torch.is_grad_enabled():
        return _LinearCrossEntropy.apply(x, weight, targets, soft, copies)  # type: ignore[no-untyped-call]
    return _nats(x, weight, targets, soft, copies)[0]


class _LinearCrossEntropy(torch.autograd.Function):
    """Computes its gradients in the forward pass, while the softmax is in memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, soft: SoftTargets | None, copies: int) -> Tensor:
        nats, *gradients = _nats(x, weight, targets, soft, copies, gradients=ctx.needs_input_grad[:2])
        ctx.save_for_backward(*gradients)
        return nats

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        dx, dweight = ctx.saved_tensors
        return None if dx is None else dx * gradient, None if dweight is None else dweight.mul_(gradient), None, None, None


def _nats(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    soft: SoftTargets | None,
    copies: int,
    gradients: tuple[bool, bool] = (False, False),
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss, and those of its `gradients` that are asked for, of x and of the weight; all float32, whatever type the
    products use.
    """
    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    factor = weight.to(dtype)
    stride = -(-len(weight) // _CACHE_LINE) * _CACHE_LINE
    rows = max(1, LOGITS_AT_ONCE // stride)
    buffer = x.new_empty((min(rows, len(x)), stride), dtype=torch.float32)[:, : len(weight)]
    nats, dx, dweight = buffer.new_zeros(()), torch.empty_like(x) if gradients[0] else None, None
    for start in range(0, len(x), rows):
        chunk, labels = x[start : start + rows].to(dtype), targets[start : start + rows, None]
        logits = buffer[: len(chunk)]  # (R, V)
        if dtype == logits.dtype:
            torch.mm(chunk, factor.T, out=logits)
        else:
            logits.copy_(chunk @ factor.T)
        if copies > 1:
            logits[:, -1] += math.log(copies)
        logits -= logits.amax(dim=-1, keepdim=True)
        target_logits = logits.gather(1, labels)
        soft_rows = soft.rows[start : start + rows] if soft else None
        share = soft.share if soft else 0.0
        if soft_rows is not None:
            target_logits = (1 - share) * target_logits + share * (soft_rows * logits).sum(dim=-1, keepdim=True)
        sums = logits.exp_().sum(dim=-1, keepdim=True)
        nats += (sums.log() - target_logits).sum()
        if any(gradients):
            logits /= sums  # now the softmax; minus the target, 1 at its place, it is the gradient of the logits
            logits.scatter_add_(1, labels, torch.full_like(target_logits, share - 1.0))
            if soft_rows is not None:
                logits.sub_(soft_rows, alpha=share)
            dlogits = logits.to(dtype)
            if dx is not None:
                dx[start : start + rows] = dlogits @ factor
            if gradients[1]:
                dweight = _add_product(dweight, dlogits.T, chunk)
    return nats, dx, dweight


def _add_product(total: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    """`total` + a b, in place; float32."""
    if total is None:
        return (a @ b).float()
    return total.addmm_(a, b) if total.dtype == a.dtype else total.add_(a @ b)
