"""Exercises from the part about the block: norms, activation functions, shortcuts, dropout."""

import torch
from torch import Tensor

from lib.exercises.exercise import Check, Exercise
from lib.exercises.numbers import random_numbers

_CURVE = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0])
_KEPT = torch.tensor([[1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0]])


def _double(x: Tensor) -> Tensor:
    return 2 * x


def _shift(x: Tensor) -> Tensor:
    return x + 1


def _zero(x: Tensor) -> Tensor:
    return 0 * x


EXERCISES = {
    "norms": Exercise(
        "layer_norm",
        "Bring vectors to one size.",
        ("lib/model/norm.py:layer_norm", "lib/model/norm.py:rms_norm"),
        (
            Check(
                "mean 0 and variance 1",
                "layer_norm",
                (torch.tensor([[1.0, 2.0, 3.0, 6.0]]), torch.ones(4), torch.zeros(4), 1e-5),
            ),
            Check(
                "scale and shift", "layer_norm", (random_numbers(2, 3, 4), random_numbers(4), random_numbers(4, seed=2), 1e-5)
            ),
            Check("a constant vector", "layer_norm", (torch.full((1, 4), 5.0), torch.ones(4), torch.zeros(4), 1e-5)),
            Check("the norm without a mean", "rms_norm", (random_numbers(2, 3, 4), random_numbers(4), 1e-5)),
        ),
    ),
    "activations": Exercise(
        "feed_forward",
        "Bend a straight line.",
        ("lib/model/feed_forward.py:gelu", "lib/model/feed_forward.py:silu"),
        (Check("GELU, by tanh", "gelu", (_CURVE,)), Check("SiLU", "silu", (_CURVE,))),
    ),
    "feed_forward": Exercise(
        "feed_forward",
        "Process each position: wider, bent, and back.",
        ("lib/exercises/solutions.py:feed_forward",),
        (
            Check(
                "a smooth absolute value",
                "feed_forward",
                (
                    torch.tensor([[-2.0], [1.0]]),
                    torch.tensor([[1.0], [-1.0], [0.0], [0.0]]),
                    torch.zeros(4),
                    torch.ones(1, 4),
                    torch.zeros(1),
                ),
            ),
            Check(
                "any weights, a batch of texts",
                "feed_forward",
                (
                    random_numbers(2, 3, 4),
                    random_numbers(16, 4, seed=2),
                    random_numbers(16, seed=3),
                    random_numbers(4, 16, seed=4),
                    random_numbers(4, seed=5),
                ),
            ),
        ),
        "from lib.model.feed_forward import gelu",
    ),
    "shortcut": Exercise(
        "shortcut",
        "Follow a slope through many layers.",
        ("lib/exercises/solutions.py:path_slope",),
        (
            Check("three layers without shortcuts", "path_slope", ([0.1, 0.1, 0.1], False)),
            Check("three layers with shortcuts", "path_slope", ([0.1, 0.1, 0.1], True)),
            Check("a layer whose slope is 0", "path_slope", ([0.5, 0.0, -0.2], True)),
            Check("no layer at all", "path_slope", ([], False)),
        ),
    ),
    "dropout": Exercise(
        "dropout",
        "Drop numbers, and keep the mean.",
        ("lib/exercises/solutions.py:masked_dropout",),
        (
            Check("a quarter dropped, 3 becomes 4", "masked_dropout", (torch.full((2, 4), 3.0), _KEPT, 0.25)),
            Check("any numbers, half of them", "masked_dropout", (random_numbers(2, 4), _KEPT, 0.5)),
            Check("a rate of 0", "masked_dropout", (random_numbers(2, 4), torch.ones(2, 4), 0.0)),
        ),
    ),
    "block": Exercise(
        "block",
        "Put the parts of a block in their order.",
        ("lib/exercises/solutions.py:pre_norm_block",),
        (
            Check(
                "parts that return 0: nothing changes",
                "pre_norm_block",
                (random_numbers(1, 2, 4), _zero, _zero, _shift, _shift),
            ),
            Check(
                "the norm comes before its part", "pre_norm_block", (random_numbers(1, 2, 4), _double, _zero, _shift, _shift)
            ),
            Check(
                "feed-forward reads what attention added",
                "pre_norm_block",
                (random_numbers(1, 2, 4), _double, _double, _shift, _double),
            ),
        ),
    ),
}
