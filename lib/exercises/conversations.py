"""Exercises from the part about conversations: masks, adapters, classes, preferences, rewards."""

from typing import Any, Callable

import torch

from lib.exercises.compare import first_mismatch
from lib.exercises.exercise import Check, Exercise
from lib.exercises.numbers import random_numbers

_PAIRS = tuple(-3 * random_numbers(4, 5).abs())
_REWARDS = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])


def _never_negative(kl_terms: Callable[..., Any]) -> str | None:
    lowest = kl_terms(random_numbers(50).abs(), random_numbers(50, seed=2).abs()).min().item()
    return None if lowest >= 0 else f"the estimate is {lowest:.3g} at some token; it is never negative"


def _zero_gradient_when_sure(preference_loss: Callable[..., Any]) -> str | None:
    sure = torch.tensor([800.0], requires_grad=True)
    loss = preference_loss(sure, -sure.detach(), torch.zeros(1), torch.zeros(1), 1.0)
    (gradient,) = torch.autograd.grad(loss.sum(), sure)
    return first_mismatch(gradient, torch.zeros(1))


EXERCISES = {
    "masks": Exercise(
        "masks",
        "Keep texts apart, and learn the answers alone.",
        ("lib/exercises/solutions.py:packed_mask", "lib/exercises/solutions.py:learned_mean"),
        (
            Check("one text: the causal mask", "packed_mask", (torch.zeros(4, dtype=torch.long),)),
            Check("three texts in a window", "packed_mask", (torch.tensor([0, 0, 1, 1, 1, 2]),)),
            Check(
                "2 tokens of 1 nat, 8 of 3: 2.6",
                "learned_mean",
                (torch.tensor([[1.0] * 8, [3.0] * 8]), torch.tensor([[True] * 2 + [False] * 6, [True] * 8])),
            ),
        ),
    ),
    "lora": Exercise(
        "lora",
        "Merge an adapter into its matrix.",
        ("lib/exercises/solutions.py:merged_weight",),
        (
            Check(
                "rank 1",
                "merged_weight",
                (
                    torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]]),
                    torch.tensor([[1.0, 1.0, 0.0]]),
                    torch.tensor([[1.0], [-1.0]]),
                    2.0,
                ),
            ),
            Check(
                "B is 0: nothing changes", "merged_weight", (random_numbers(4, 3), random_numbers(2, 3), torch.zeros(4, 2), 8.0)
            ),
            Check(
                "α/r, not α",
                "merged_weight",
                (random_numbers(4, 3), random_numbers(2, 3, seed=2), random_numbers(4, 2, seed=3), 8.0),
            ),
        ),
    ),
    "wilson": Exercise(
        "classes",
        "Say how well an accuracy is known.",
        ("lib/evaluate/classification.py:wilson_interval",),
        (
            Check("95% of 300", "wilson_interval", (285, 300)),
            Check("all of them", "wilson_interval", (20, 20)),
            Check("none of them", "wilson_interval", (0, 5)),
        ),
        "from statistics import NormalDist\n\n_CONFIDENCE = 0.95",
    ),
    "dpo": Exercise(
        "dpo",
        "Prefer the answer that people chose.",
        ("lib/exercises/solutions.py:preference_loss",),
        (
            Check("nothing learned yet: ln 2", "preference_loss", (*2 * (torch.tensor([-2.5]), torch.tensor([-2.0])), 0.5)),
            Check("five pairs", "preference_loss", (*_PAIRS, 0.5)),
            Check("a margin of -900 does not overflow", "preference_loss", (torch.tensor([-900.0]), *torch.zeros(3, 1), 1.0)),
            Check("no gradient where it is sure", "preference_loss", violated=_zero_gradient_when_sure),
        ),
    ),
    "reward": Exercise(
        "reward",
        "Compare an answer with the others to its question.",
        ("lib/train/grpo.py:advantages", "lib/train/grpo.py:kl_terms"),
        (
            Check("one right answer of four", "advantages", (_REWARDS,)),
            Check("equal models", "kl_terms", (*2 * (random_numbers(6).abs(),),)),
            Check("any tokens", "kl_terms", (random_numbers(6).abs(), random_numbers(6, seed=2).abs())),
            Check("never negative", "kl_terms", violated=_never_negative),
        ),
    ),
}
