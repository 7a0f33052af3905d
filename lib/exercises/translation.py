"""Exercises from the part about one text and another."""

from typing import Any, Callable

import torch

from lib.exercises.compare import first_mismatch
from lib.exercises.exercise import Check, Exercise
from lib.exercises.numbers import random_ids, random_numbers

_TARGET, _SOURCE = random_numbers(2, 3, 8), random_numbers(2, 5, 8, seed=2)
_PADDING = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
_MATRICES = (random_numbers(8, 8, seed=3), random_numbers(16, 8, seed=4), random_numbers(8, 8, seed=5))


def _depends_on_padding(cross_attention: Callable[..., Any]) -> str | None:
    changed = _SOURCE + _PADDING[..., None]
    outputs = (cross_attention(_TARGET, source, _PADDING, *_MATRICES, 2) for source in (changed, _SOURCE))
    problem = first_mismatch(*outputs)
    return problem and f"other padding gives other vectors: {problem}"


EXERCISES = {
    "cross_attention": Exercise(
        "encoder_decoder",
        "Ask from one text, be answered by another.",
        ("lib/exercises/solutions.py:cross_attention",),
        (
            Check("one head", "cross_attention", (_TARGET, _SOURCE, torch.zeros_like(_PADDING), *_MATRICES, 1)),
            Check("four heads", "cross_attention", (_TARGET, _SOURCE, torch.zeros_like(_PADDING), *_MATRICES, 4)),
            Check("a source with padding", "cross_attention", (_TARGET, _SOURCE, _PADDING, *_MATRICES, 2)),
            Check("padding does not count", "cross_attention", violated=_depends_on_padding),
        ),
    ),
    "label_smoothing": Exercise(
        "original_transformer",
        "Be a little less sure of the right token.",
        ("lib/exercises/solutions.py:smoothed_targets",),
        (
            Check("four tokens: 0.925 and 0.025", "smoothed_targets", (torch.tensor([2]), 4, 0.1)),
            Check("several targets", "smoothed_targets", (random_ids(5, 28), 28, 0.1)),
            Check("a share of 0", "smoothed_targets", (random_ids(3, 6), 6, 0.0)),
        ),
    ),
    "g2p": Exercise(
        "g2p",
        "Count the changes between two sequences.",
        ("lib/evaluate/edit_distance.py:edit_distance",),
        (
            Check("kitten and sitting", "edit_distance", ([*b"kitten"], [*b"sitting"])),
            Check("nothing and something", "edit_distance", ([], [7, 7, 7])),
            Check("two lists of two hundred", "edit_distance", ([0, 1] * 100, [1, 0] * 100)),
        ),
    ),
}
