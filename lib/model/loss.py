"""How wrong a prediction is: cross-entropy, in nats. N positions, C embedding, V vocabulary."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

#: Numbers in the largest table of logits: 256 MB of float32. More positions than fit are taken in turns.
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
    nats = log_sum - logits[torch.arange(len(targets)), targets]
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
    """`cross_entropy` of the logits x Wᵀ, which are never kept: the head and the loss in one.

    x: (N, C), weight: (V, C), targets: (N,) -> a scalar. The last row of the weight may stand for `copies` tokens
    (`SharedRowHead`), one class here: none of them is a target, and the last column of `soft` is the probability of all.
    Three savings over head and loss one after the other: the logits, their softmax and their gradient are one table in one
    place; no more than `LOGITS_AT_ONCE` of it is there at a time; its rows begin at whole cache lines, where the matrix
    product is faster (bench/head.py).
    """
    if torch.is_grad_enabled():
        return _LinearCrossEntropy.apply(x, weight, targets, soft, copies)  # type: ignore[no-untyped-call]
    return _nats(x, weight, targets, soft, copies)[0]


class _LinearCrossEntropy(torch.autograd.Function):
    """Makes its gradients on the way forward, while the softmax is at hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, soft: SoftTargets | None, copies: int) -> Tensor:
        nats, *gradients = _nats(x, weight, targets, soft, copies, gradients=True)
        ctx.save_for_backward(*gradients)
        return nats

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        dx, dweight = ctx.saved_tensors
        return dx * gradient, dweight.mul_(gradient), None, None, None


def _nats(
    x: Tensor, weight: Tensor, targets: Tensor, soft: SoftTargets | None, copies: int, gradients: bool = False
) -> tuple[Tensor, ...]:
    """The loss, and with `gradients` those of x and of the weight as well; all float32, whatever the products are done in."""
    low = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    factor = weight.to(low)
    stride = -(-len(weight) // _CACHE_LINE) * _CACHE_LINE
    rows = max(1, LOGITS_AT_ONCE // stride)
    memory = x.new_empty((min(rows, len(x)), stride), dtype=torch.float32)[:, : len(weight)]
    nats, dx, dweight = memory.new_zeros(()), torch.empty_like(x), None
    for start in range(0, len(x), rows):
        part, labels = x[start : start + rows].to(low), targets[start : start + rows, None]
        table = memory[: len(part)]  # the logits, (R, V)
        if low == table.dtype:
            torch.mm(part, factor.T, out=table)
        else:
            table.copy_(part @ factor.T)
        if copies > 1:
            table[:, -1] += math.log(copies)
        table -= table.amax(dim=-1, keepdim=True)
        right = table.gather(1, labels)
        aims = soft.rows[start : start + rows] if soft else None
        share = soft.share if soft else 0.0
        if aims is not None:
            right = (1 - share) * right + share * (aims * table).sum(dim=-1, keepdim=True)
        sums = table.exp_().sum(dim=-1, keepdim=True)
        nats += (sums.log() - right).sum()
        if gradients:
            table /= sums  # the softmax; less the target, 1 at its place, it is the gradient of the logits
            table.scatter_add_(1, labels, torch.full_like(right, share - 1.0))
            if aims is not None:
                table.sub_(aims, alpha=share)
            change = table.to(low)
            dx[start : start + rows] = change @ factor
            dweight = _added(dweight, change.T, part)
    return (nats, dx, dweight) if gradients and dweight is not None else (nats,)


def _added(total: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    """`total` + a b, in its place; float32."""
    if total is None:
        return (a @ b).float()
    return total.addmm_(a, b) if total.dtype == a.dtype else total.add_(a @ b)
