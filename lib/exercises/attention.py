"""Exercises from the part about attention."""

from typing import Any, Callable

import torch

from lib.exercises.compare import first_mismatch
from lib.exercises.exercise import Check, Exercise
from lib.exercises.numbers import random_numbers
from lib.exercises.solutions import multi_head_attention

_Q, _K = random_numbers(1, 4, 3), random_numbers(1, 4, 3, seed=2)
_MASK = torch.ones(4, 4, dtype=torch.bool).triu(diagonal=1)
_X, _W_QKV, _W_OUT = random_numbers(2, 5, 8), 0.4 * random_numbers(24, 8, seed=2), random_numbers(8, 8, seed=3)
_TOKENS = random_numbers(4, 6)
_MATRICES = tuple(0.5 * random_numbers(6, 3, seed=seed) for seed in (2, 3, 4))


def _sums_to_one(softmax: Callable[..., Any]) -> str | None:
    return first_mismatch(softmax(random_numbers(3, 5)).sum(dim=-1), torch.ones(3))


def _order_does_not_matter(self_attention: Callable[..., Any]) -> str | None:
    order = torch.tensor([2, 0, 3, 1])
    problem = first_mismatch(self_attention(_TOKENS[order], *_MATRICES), self_attention(_TOKENS, *_MATRICES)[order])
    return problem and f"other positions of the tokens give other vectors: {problem}"


def _weights_leak(attention_weights: Callable[..., Any]) -> str | None:
    weights = torch.as_tensor(attention_weights(_Q, _K, _MASK))
    if weights.shape != (1, 4, 4):
        return f"the shape is {tuple(weights.shape)}, not (1, 4, 4)"
    future = weights[0][_MASK]
    return None if (future == 0).all() else f"a position attends to a later one with weight {future.max():.3g}, not 0"


def _shape(attention: Callable[..., Any]) -> str | None:
    result = attention(_X, _W_QKV, _W_OUT, 2)
    return None if getattr(result, "shape", None) == _X.shape else f"the result is no tensor of shape {tuple(_X.shape)}"


def _attention_leaks(attention: Callable[..., Any]) -> str | None:
    changed = _X.clone()
    changed[:, 3] += 1
    problem = first_mismatch(attention(changed, _W_QKV, _W_OUT, 2)[:, :3], attention(_X, _W_QKV, _W_OUT, 2)[:, :3])
    return problem and f"another token at position 3 changes an earlier position: {problem}"


def _depends_on_batch(attention: Callable[..., Any]) -> str | None:
    expected = multi_head_attention(_X, _W_QKV, _W_OUT, 2)[1:]
    problem = first_mismatch(attention(_X[1:], _W_QKV, _W_OUT, 2), expected)
    return problem and f"a text depends on the others of its batch: {problem}"


EXERCISES = {
    "softmax": Exercise(
        "simplified_attention",
        "Turn scores into probabilities, and mix vectors by them.",
        ("lib/model/simplified_attention.py:softmax", "lib/model/simplified_attention.py:simplified_attention"),
        (
            Check("two equal scores", "softmax", (torch.tensor([1.0, 1.0]),)),
            Check("every row sums to 1", "softmax", violated=_sums_to_one),
            Check("rows of a matrix", "softmax", (random_numbers(3, 5),)),
            Check("large scores do not overflow", "softmax", (torch.tensor([1000.0, 999.0, 0.0]),)),
            Check("attention without weights", "simplified_attention", (random_numbers(4, 3),)),
        ),
    ),
    "self_attention": Exercise(
        "self_attention",
        "Ask with queries, be found by keys, pass on values.",
        ("lib/exercises/solutions.py:self_attention",),
        (
            Check("four tokens", "self_attention", (_TOKENS, *_MATRICES)),
            Check("a query of zeros takes the mean", "self_attention", (_TOKENS, torch.zeros(6, 3), *_MATRICES[1:])),
            Check("no position is told from another", "self_attention", violated=_order_does_not_matter),
        ),
    ),
    "causal_attention": Exercise(
        "causal_attention",
        "Hide the future.",
        (
            "lib/model/causal_attention.py:causal_mask",
            "lib/exercises/solutions.py:window_mask",
            "lib/model/causal_attention.py:attention_weights",
        ),
        (
            Check("the mask of four positions", "causal_mask", (4,)),
            Check("the mask of a window of two", "window_mask", (5, 2)),
            Check("no weight on the future", "attention_weights", violated=_weights_leak),
            Check("scores, scaled, masked, softmax", "attention_weights", (_Q, _K, _MASK)),
        ),
    ),
    "heads": Exercise(
        "heads",
        "Split a vector into heads, and join them again.",
        ("lib/exercises/solutions.py:split_heads", "lib/exercises/solutions.py:merge_heads"),
        (
            Check("two tokens, two heads of two", "split_heads", (torch.arange(8.0).view(1, 2, 4), 2)),
            Check("three heads", "split_heads", (random_numbers(2, 5, 6), 3)),
            Check("and joined", "merge_heads", (random_numbers(2, 3, 5, 2),)),
        ),
    ),
    "attention": Exercise(
        "attention",
        "Several heads in one matrix product.",
        ("lib/exercises/solutions.py:multi_head_attention",),
        (
            Check("the shape of the input comes back", "multi_head_attention", violated=_shape),
            Check("no look into the future", "multi_head_attention", violated=_attention_leaks),
            Check("one head", "multi_head_attention", (_X, _W_QKV, _W_OUT, 1)),
            Check("two heads", "multi_head_attention", (_X, _W_QKV, _W_OUT, 2)),
            Check("eight heads of one number", "multi_head_attention", (_X, _W_QKV, _W_OUT, 8)),
            Check("each text for itself", "multi_head_attention", violated=_depends_on_batch),
        ),
    ),
}
