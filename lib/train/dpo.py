"""Direct preference optimization: learn from pairs of answers which one people chose (Rafailov et al. 2023).

Of a pair, let h be by how much more the model likes the chosen answer than the rejected one, and h_ref the same of the model
that the training starts from, the reference. The loss is small where h has grown:

    reward(answer)  =  β · (ln p(answer) - ln p_ref(answer))
    margin          =  reward(chosen) - reward(rejected)  =  β · (h - h_ref)
    loss            =  -ln σ(margin)

Before the first step model and reference are equal: the margin is 0 and the loss ln 2. Only the reference's log-probabilities
are needed. They do not change, so they are computed once and kept.

B pairs
"""

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F


class PairLogProbs(NamedTuple):
    """ln p of the answers of B pairs, each as a whole: (B,) each."""

    chosen: Tensor
    rejected: Tensor


def rewards(policy: PairLogProbs, reference: PairLogProbs, beta: float) -> PairLogProbs:
    """How much more likely than for the reference the answers are, times `beta`: (B,) each."""
    return PairLogProbs(*(beta * (ours - theirs) for ours, theirs in zip(policy, reference, strict=True)))


def dpo_loss(policy: PairLogProbs, reference: PairLogProbs, beta: float) -> Tensor:
    """-ln σ(margin) of each pair, (B,). Equation 7 of the paper."""
    chosen, rejected = rewards(policy, reference, beta)
    return -F.logsigmoid(chosen - rejected)


def pair_values(policy: PairLogProbs, reference: PairLogProbs, beta: float) -> dict[str, float]:
    """What is reported of some pairs, summed over them, by the names that TRL gives their means."""
    chosen, rejected = rewards(policy, reference, beta)
    values = {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/accuracies": chosen > rejected,
        "rewards/margins": chosen - rejected,
        "logps/chosen": policy.chosen,
        "logps/rejected": policy.rejected,
    }
    return {name: value.detach().double().sum().item() for name, value in values.items()}
