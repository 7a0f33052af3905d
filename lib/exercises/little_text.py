"""Exercises from the parts about little text and about several processes."""

import numpy as np
import torch

from lib.exercises.exercise import Check, Exercise
from lib.exercises.numbers import random_ids, random_numbers

_HEAD = torch.tensor([0.5, 0.3, 0.2])

EXERCISES = {
    "first_guess": Exercise(
        "first_guess",
        "Begin with the frequencies of the text.",
        ("lib/exercises/solutions.py:frequency_head",),
        (
            Check("1/2, 1/3, 1/6", "frequency_head", (torch.tensor([1 / 2, 1 / 3, 1 / 6]), 4)),
            Check("another width", "frequency_head", (torch.softmax(random_numbers(5), dim=-1), 7)),
        ),
    ),
    "soft_targets": Exercise(
        "soft_targets",
        "Learn from a distribution instead of one token.",
        ("lib/exercises/solutions.py:soft_cross_entropy",),
        (
            Check(
                "a share of 0 is the plain loss",
                "soft_cross_entropy",
                (random_numbers(3, 5), random_ids(3, 5), torch.softmax(random_numbers(3, 5, seed=2), -1), 0.0),
            ),
            Check(
                "a share of 0.9",
                "soft_cross_entropy",
                (random_numbers(3, 5), random_ids(3, 5), torch.softmax(random_numbers(3, 5, seed=2), -1), 0.9),
            ),
            Check(
                "large logits",
                "soft_cross_entropy",
                (torch.tensor([[1e3, 0.0]]), torch.tensor([0]), torch.tensor([[0.5, 0.5]]), 0.5),
            ),
        ),
    ),
    "pointer": Exercise(
        "pointer",
        "Copy what followed.",
        ("lib/exercises/solutions.py:pointer_mixture",),
        (
            Check("a closed gate", "pointer_mixture", (_HEAD, torch.zeros(2), torch.tensor([2, 0]), 0.0)),
            Check("two followers", "pointer_mixture", (_HEAD, random_numbers(2), torch.tensor([2, 0]), 0.25)),
            Check("one token that followed twice", "pointer_mixture", (_HEAD, random_numbers(3), torch.tensor([2, 0, 2]), 0.5)),
        ),
    ),
    "seen_tokens": Exercise(
        "seen_tokens",
        "Let one row stand for all tokens that the text lacks.",
        ("lib/exercises/solutions.py:shared_row_softmax",),
        (
            Check("two seen, three unseen", "shared_row_softmax", (torch.tensor([0.7, 0.8]), torch.tensor(-0.4), 3)),
            Check("45,000 unseen", "shared_row_softmax", (random_numbers(6), torch.tensor(-9.0), 45_000)),
        ),
    ),
    "ensembles": Exercise(
        "ensembles",
        "Average probabilities, not losses.",
        ("lib/evaluate/extras.py:mixed_nats",),
        (
            Check("two models, two tokens", "mixed_nats", (-np.log(np.array([[0.8, 0.1], [0.2, 0.6]])),)),
            Check("probabilities too small for a float", "mixed_nats", (np.array([[900.0, 2.0], [901.0, 800.0]]),)),
        ),
    ),
    "scaling": Exercise(
        "scaling",
        "Share a batch among processes.",
        ("lib/device/distributed.py:shard_range",),
        (
            Check("seven windows, the first of three", "shard_range", (7, 0, 3)),
            Check("seven windows, the last of three", "shard_range", (7, 2, 3)),
            Check("more processes than windows", "shard_range", (2, 1, 4)),
        ),
    ),
}
