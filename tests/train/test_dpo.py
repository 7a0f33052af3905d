"""Direct preference optimization: the loss and its gradient, compared with TRL's and by hand; trainings on pairs."""

import json
import math
from pathlib import Path

import pytest
import torch

from lib.train.dpo import PairLogProbs, dpo_loss, pair_values, rewards
from tests.train.trl_dpo import BETA, random_log_probs, trl_dpo

GOLDEN = json.loads((Path(__file__).parent / "dpo.json").read_text(encoding="utf-8"))


def pairs(log_probs: torch.Tensor) -> PairLogProbs:
    return PairLogProbs(*log_probs.sum(dim=1).chunk(2))


def test_before_the_first_step_every_loss_is_ln_2_and_every_margin_0() -> None:
    same = pairs(random_log_probs()[0])
    assert dpo_loss(same, same, BETA).tolist() == pytest.approx([math.log(2)] * 5, abs=1e-7)
    values = pair_values(same, same, BETA)
    assert (values["rewards/margins"], values["rewards/accuracies"]) == (0.0, 0.0)


def test_loss_gradient_and_metrics_are_those_of_trl() -> None:
    policy, reference = random_log_probs()
    policy.requires_grad_()
    loss = dpo_loss(pairs(policy), pairs(reference), BETA).mean()
    loss.backward()
    assert policy.grad is not None
    values = {name: value / 5 for name, value in pair_values(pairs(policy), pairs(reference), BETA).items()}
    ours = {"trl": GOLDEN["trl"], "loss": loss.item(), "gradient": policy.grad[:, 0].tolist(), **values}
    assert ours.keys() == GOLDEN.keys()
    for name, value in ours.items():
        assert value == (GOLDEN[name] if name == "trl" else pytest.approx(GOLDEN[name], rel=1e-5)), name


def test_the_goldens_are_what_trl_computes() -> None:
    trl = pytest.importorskip("trl", reason="needs the package `trl`")
    computed = {"trl": trl.__version__, **trl_dpo(*random_log_probs())}
    for name in GOLDEN.keys() - {"trl"}:
        assert computed[name] == pytest.approx(GOLDEN[name], rel=1e-5), name


def test_the_gradient_of_one_pair_by_hand() -> None:
    chosen, rejected = torch.tensor([-2.0], requires_grad=True), torch.tensor([-3.0], requires_grad=True)
    reference = PairLogProbs(torch.tensor([-2.5]), torch.tensor([-2.0]))
    dpo_loss(PairLogProbs(chosen, rejected), reference, 0.5).sum().backward()
    # the chosen answer gained 0.5 and the rejected one lost 1: a margin of 0.5 · 1.5
    slope = 0.5 * (1 - 1 / (1 + math.exp(-0.75)))
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert (chosen.grad.item(), rejected.grad.item()) == pytest.approx((-slope, slope))
    gained = rewards(PairLogProbs(chosen, rejected), reference, 0.5)
    assert (gained.chosen.item(), gained.rejected.item()) == (0.25, -0.5)
