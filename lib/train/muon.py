"""Muon: steps of a matrix in which every direction counts alike (Jordan et al. 2024).

AdamW treats a matrix as so many single numbers. Its step is then mostly along the few directions in which the
gradient is large. Muon takes the running mean of the gradient and makes all its singular values nearly 1, so that the
rare directions are learned as fast as the common ones.
"""

import torch
from torch import Tensor

#: The quintic aX + bXXᵀX + c(XXᵀ)²X, steep at 0 and between 0.7 and 1.2 near 1 (Jordan et al. 2024).
_A, _B, _C = 3.4445, -4.7750, 2.0315
ITERATIONS = 5
_EPS = 1e-7  # keeps a gradient of 0 from dividing by zero

MOMENTUM = 0.95


def newton_schulz(gradient: Tensor) -> Tensor:
    """U Vᵀ of a matrix U S Vᵀ, nearly: singular values between 0.7 and 1.2, by Newton-Schulz iteration in float32.

    X ← (aI + bXXᵀ + c(XXᵀ)²) X multiplies X from the left only, by a polynomial of XXᵀ. So the iteration may run on
    XXᵀ alone, the small square on X's shorter side, and X is multiplied once, at the end. PyTorch's own Muon iterates
    in bfloat16, for which a CPU without bfloat16 units takes 2.3 s instead of 0.06 s (one matrix of 384 × 1536 on
    2 cores).
    """
    wide = gradient if gradient.shape[0] <= gradient.shape[1] else gradient.T
    x = wide / (wide.norm() + _EPS)  # no singular value above 1
    square, factor = x @ x.T, None
    for left in reversed(range(ITERATIONS)):
        polynomial = torch.addmm(square, square, square, beta=_B, alpha=_C)
        polynomial.diagonal().add_(_A)
        factor = polynomial if factor is None else polynomial @ factor
        if left:
            square = polynomial @ square @ polynomial
    assert factor is not None
    return factor @ x if wide is gradient else (factor @ x).T


class Muon(torch.optim.Optimizer):
    """Nesterov's momentum, made orthogonal, times 0.2·√(larger side): a step as large as AdamW's at the same rate.

    For matrices only (Jordan et al. 2024; the factor and the decay from Liu et al. 2025). State by weight: `momentum`.
    """

    def __init__(self, groups: list[dict[str, object]]) -> None:
        """Each group has its `params`, its `lr` and its `weight_decay`."""
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Do one step with the gradients that are there."""
        for group in self.param_groups:
            lr = group["lr"]
            for weight in group["params"]:
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"]
                momentum.lerp_(weight.grad, 1 - MOMENTUM)
                ahead = weight.grad.lerp(momentum, MOMENTUM)
                weight.mul_(1 - lr * group["weight_decay"])
                weight.add_(newton_schulz(ahead), alpha=-lr * 0.2 * max(weight.shape) ** 0.5)
