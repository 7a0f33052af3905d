"""The loss of a head that is mixed with copies of earlier tokens: p = kept · softmax(logits) + what is copied.

N positions, K places that they may copy from, C embedding, V vocabulary
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lib.model.loss import LOGITS_AT_ONCE, SoftTargets

_TINY = torch.finfo(torch.float32).tiny


class Copied(NamedTuple):
    """What each position copies: `ids`, (…, K), with the probabilities `weights`, (…, K). `kept`, (…,), is the head's part, one
    less the sum of them.
    """

    ids: Tensor
    weights: Tensor
    kept: Tensor

    def flatten(self) -> "Copied":
        """The same with one row for each position."""
        return Copied(self.ids.flatten(0, -2), self.weights.flatten(0, -2), self.kept.flatten())


def log_mixture(logits: Tensor, copied: Copied) -> Tensor:
    """Ln p: logits (…, V) -> (…, V), float32."""
    p = torch.softmax(logits.float(), dim=-1) * copied.kept[..., None]
    return p.scatter_add(-1, copied.ids, copied.weights).clamp_min(_TINY).log()


def naive_mixture_loss(logits: Tensor, targets: Tensor, copied: Copied, soft: SoftTargets | None = None) -> Tensor:
    """-ln p[target], summed over the positions, in nats.

    logits: (N, V), targets: (N,) -> a scalar. With `soft`, the mean of -ln p over the mixed targets, as in
    `lib.model.loss.naive_cross_entropy`.
    """
    log_p = log_mixture(logits, copied)
    nats = -log_p.gather(-1, targets[:, None])[:, 0]
    if soft:
        nats = (1 - soft.share) * nats - soft.share * (soft.rows * log_p).sum(dim=-1)
    return nats.sum()


def linear_mixture_loss(
    x: Tensor, weight: Tensor, targets: Tensor, copied: Copied, soft: SoftTargets | None = None, copies: int = 1
) -> Tensor:
    """`naive_mixture_loss` of the logits x Wᵀ, which are never stored as a whole.

    x: (N, C), weight: (V, C), targets: (N,) -> a scalar. The last row of the weight may stand for `copies` tokens, as in
    `lib.model.loss.linear_cross_entropy`. With the targets q, the gradient of p is -q/p, and that of the logits
    softmax · (kept · Σ (q/p · softmax) - kept · q/p): as without copies, with each target's part as the head's share of it.
    """
    if torch.is_grad_enabled():
        ids, weights, kept = copied
        return _LinearMixtureLoss.apply(x, weight, weights, kept, targets, ids, soft, copies)  # type: ignore[no-untyped-call]
    return _nats(x, weight, targets, copied, soft, copies)[0]


class _LinearMixtureLoss(torch.autograd.Function):
    """Computes its gradients in the forward pass, while the softmax is in memory."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        weights: Tensor,
        kept: Tensor,
        targets: Tensor,
        ids: Tensor,
        soft: SoftTargets | None,
        copies: int,
    ) -> Tensor:
        nats, *gradients = _nats(x, weight, targets, Copied(ids, weights, kept), soft, copies, with_gradients=True)
        ctx.save_for_backward(*gradients)
        return nats

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return *(tensor * gradient for tensor in ctx.saved_tensors), None, None, None, None


def _nats(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    copied: Copied,
    soft: SoftTargets | None,
    copies: int,
    with_gradients: bool = False,
) -> tuple[Tensor, ...]:
    """The loss, and its gradients of x, of the weight, of the copies' weights and of what is kept."""
    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    factor = weight.to(dtype)
    rows = max(1, LOGITS_AT_ONCE // len(weight))
    nats = torch.zeros((), device=x.device)
    if with_gradients:
        dx, dweight = torch.empty_like(x), torch.zeros_like(weight)
        dweights, dkept = torch.empty_like(copied.weights), torch.empty_like(copied.kept)
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        chunk, labels = x[part].to(dtype), targets[part, None]
        ids, weights, kept = (tensor[part] for tensor in copied)
        logits = (chunk @ factor.T).float()  # (R, V)
        if copies > 1:
            logits[:, -1] += math.log(copies)
        softmax = torch.softmax(logits, dim=-1, out=logits)
        if soft is None:
            is_target = ids == labels
            p = kept * softmax.gather(1, labels)[:, 0] + (weights * is_target).sum(dim=-1)
            p.clamp_min_(_TINY)
            nats -= p.log().sum()
            if not with_gradients:
                continue
            dkept[part] = -softmax.gather(1, labels)[:, 0] / p
            dweights[part] = is_target / -p[:, None]
            softmax *= -(kept * dkept[part])[:, None]
            softmax.scatter_add_(1, labels, (kept * dkept[part])[:, None])
            dlogits = softmax
        else:
            p = softmax * kept[:, None]
            p.scatter_add_(1, ids, weights).clamp_min_(_TINY)
            q = soft.rows[part] * soft.share
            q.scatter_add_(1, labels, torch.full_like(kept, 1 - soft.share)[:, None])
            nats -= (q * p.log()).sum()
            if not with_gradients:
                continue
            slope = q.div_(p)  # minus the gradient of p
            dweights[part] = -slope.gather(1, ids)
            slope *= softmax
            dkept[part] = -slope.sum(dim=-1)
            softmax *= -dkept[part][:, None]
            dlogits = softmax.sub_(slope).mul_(kept[:, None])
        dlogits = dlogits.to(dtype)
        dx[part] = dlogits @ factor
        dweight += (dlogits.T @ chunk).to(dweight.dtype)
    return (nats, dx, dweight, dweights, dkept) if with_gradients else (nats,)
