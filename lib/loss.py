"""How wrong a prediction is: cross-entropy, in nats."""

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy_by_hand(logits: Tensor, targets: Tensor) -> Tensor:
    """-ln softmax(logits)[target], summed: what the model would have needed to be told, in nats.

    logits: (N, V), targets: (N,) -> a scalar. ln Σ exp is taken after the largest logit is subtracted,
    which changes nothing but keeps exp in range.
    """
    largest = logits.max(dim=-1, keepdim=True).values
    log_sum = (logits - largest).exp().sum(dim=-1).log() + largest[:, 0]
    return (log_sum - logits[torch.arange(len(targets)), targets]).sum()


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """PyTorch's fused twin of `cross_entropy_by_hand`."""
    return F.cross_entropy(logits, targets, reduction="sum")
