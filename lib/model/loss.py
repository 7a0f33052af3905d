"""How wrong a prediction is: cross-entropy, in nats. N positions, C embedding, V vocabulary."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

#: Numbers in the largest table of logits: 256 MB of float32. More positions than fit are taken in turns.
LOGITS_AT_ONCE = 1 << 26

_CACHE_LINE = 16  # numbers of float32


def naive_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-ln softmax(logits)[target], summed over the positions, in nats.

    logits: (N, V), targets: (N,) -> a scalar. ln Σ exp is taken after the largest logit is subtracted,
    which changes nothing but keeps exp in range.
    """
    largest = logits.max(dim=-1, keepdim=True).values
    log_sum = (logits - largest).exp().sum(dim=-1).log() + largest[:, 0]
    return (log_sum - logits[torch.arange(len(targets)), targets]).sum()


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """PyTorch's fused equivalent of `naive_cross_entropy`."""
    return F.cross_entropy(logits, targets, reduction="sum")


def linear_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """`cross_entropy` of the logits x Wᵀ, which are never kept: the head and the loss in one.

    x: (N, C), weight: (V, C), targets: (N,) -> a scalar. Three savings over head and loss one after the other: the
    logits, their softmax and their gradient are one table in one place; no more than `LOGITS_AT_ONCE` of it is there at a
    time; its rows begin at whole cache lines, where the matrix product is faster (bench/head.py).
    """
    if torch.is_grad_enabled():
        return _LinearCrossEntropy.apply(x, weight, targets)  # type: ignore[no-untyped-call]
    return _nats(x, weight, targets)[0]


class _LinearCrossEntropy(torch.autograd.Function):
    """Makes its gradients on the way forward, while the softmax is at hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        nats, *gradients = _nats(x, weight, targets, gradients=True)
        ctx.save_for_backward(*gradients)
        return nats

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        dx, dweight = ctx.saved_tensors
        return dx * gradient, dweight.mul_(gradient), None


def _nats(x: Tensor, weight: Tensor, targets: Tensor, gradients: bool = False) -> tuple[Tensor, ...]:
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
        table -= table.amax(dim=-1, keepdim=True)
        right = table.gather(1, labels)
        sums = table.exp_().sum(dim=-1, keepdim=True)
        nats += (sums.log() - right).sum()
        if gradients:
            table /= sums  # the softmax; less 1 at the target it is the gradient of the logits
            table.scatter_add_(1, labels, torch.full_like(right, -1.0))
            change = table.to(low)
            dx[start : start + rows] = change @ factor
            dweight = _added(dweight, change.T, part)
    return (nats, dx, dweight) if gradients and dweight is not None else (nats,)


def _added(total: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    """`total` + a b, in its place; float32."""
    if total is None:
        return (a @ b).float()
    return total.addmm_(a, b) if total.dtype == a.dtype else total.add_(a @ b)
