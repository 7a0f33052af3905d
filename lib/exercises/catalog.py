"""The exercises by name, in the order of the book, and their checks."""

from typing import Any, Callable

import torch
from torch import Tensor

from lib.errors import UsageError, nearest
from lib.exercises.exercise import Check, Exercise, first_mismatch
from lib.exercises.solutions import multi_head_attention


def find_exercise(name: str) -> Exercise:
    """The exercise called `name`, with - or _; UsageError if there is none."""
    key = name.replace("-", "_")
    if key not in EXERCISES:
        raise UsageError(f"there is no exercise {name!r}; {nearest(key, EXERCISES)}")
    return EXERCISES[key]


def _numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _softmax() -> list[Check]:
    def sums_to_one(softmax: Callable[..., Any]) -> str | None:
        return first_mismatch(softmax(_numbers(3, 5)).sum(dim=-1), torch.ones(3))

    return [
        Check("two equal scores", "softmax", (torch.tensor([1.0, 1.0]),)),
        Check("every row sums to 1", "softmax", violated=sums_to_one),
        Check("rows of a matrix", "softmax", (_numbers(3, 5),)),
        Check("large scores do not overflow", "softmax", (torch.tensor([1000.0, 999.0, 0.0]),)),
        Check("attention without weights", "simplified_attention", (_numbers(4, 3),)),
    ]


def _gradient_descent() -> list[Check]:
    arguments = (torch.tensor([3.0]), torch.tensor([[2.0]]), torch.tensor([0.0]), 0.01)
    return [
        Check("one weight, one example: 3 - 0.01 · 24", "gradient_step", arguments),
        Check("several weights and examples", "gradient_step", (_numbers(4), _numbers(6, 4), _numbers(6), 0.1)),
    ]


def _bigram() -> list[Check]:
    return [
        Check("aab with three tokens", "add_one_bigram", (torch.tensor([0, 0, 1]), 3)),
        Check("a longer text", "add_one_bigram", (torch.randint(5, (40,), generator=torch.Generator().manual_seed(1)), 5)),
    ]


def _loss() -> list[Check]:
    uniform = (torch.zeros(2, 4), torch.tensor([0, 3]))
    return [
        Check("equal logits: 2 ln 4", "naive_cross_entropy", uniform),
        Check("any logits, summed", "naive_cross_entropy", (_numbers(5, 7), torch.tensor([0, 6, 2, 2, 1]))),
        Check("large logits do not overflow", "naive_cross_entropy", (torch.tensor([[2000.0, 1000.0]]), torch.tensor([1]))),
    ]


def _causal_attention() -> list[Check]:
    q, k = _numbers(1, 4, 3), _numbers(1, 4, 3, seed=2)
    mask = torch.ones(4, 4, dtype=torch.bool).triu(diagonal=1)

    def leaks(attention_weights: Callable[..., Any]) -> str | None:
        weights = torch.as_tensor(attention_weights(q, k, mask))
        if weights.shape != (1, 4, 4):
            return f"the shape is {tuple(weights.shape)}, not (1, 4, 4)"
        future = weights[0][mask]
        return None if (future == 0).all() else f"a position attends to a later one with weight {future.max():.3g}, not 0"

    return [
        Check("the mask of four positions", "causal_mask", (4,)),
        Check("no weight on the future", "attention_weights", violated=leaks),
        Check("scores, scaled, masked, softmax", "attention_weights", (q, k, mask)),
    ]


def _attention() -> list[Check]:
    x, W_qkv, W_out = _numbers(2, 5, 8), 0.4 * _numbers(24, 8, seed=2), _numbers(8, 8, seed=3)

    def shape(attention: Callable[..., Any]) -> str | None:
        result = attention(x, W_qkv, W_out, 2)
        return None if getattr(result, "shape", None) == x.shape else f"the result is no tensor of shape {tuple(x.shape)}"

    def leaks(attention: Callable[..., Any]) -> str | None:
        changed = x.clone()
        changed[:, 3] += 1
        problem = first_mismatch(attention(changed, W_qkv, W_out, 2)[:, :3], attention(x, W_qkv, W_out, 2)[:, :3])
        return problem and f"another token at position 3 changes an earlier position: {problem}"

    def rows_apart(attention: Callable[..., Any]) -> str | None:
        problem = first_mismatch(attention(x[1:], W_qkv, W_out, 2), multi_head_attention(x, W_qkv, W_out, 2)[1:])
        return problem and f"a text depends on the others of its batch: {problem}"

    name = "multi_head_attention"
    return [
        Check("the shape of the input comes back", name, violated=shape),
        Check("no look into the future", name, violated=leaks),
        Check("one head", name, (x, W_qkv, W_out, 1)),
        Check("two heads", name, (x, W_qkv, W_out, 2)),
        Check("eight heads of one number", name, (x, W_qkv, W_out, 8)),
        Check("each text for itself", name, violated=rows_apart),
    ]


def _norms() -> list[Check]:
    x = torch.tensor([[1.0, 2.0, 3.0, 6.0]])
    return [
        Check("mean 0 and variance 1", "layer_norm", (x, torch.ones(4), torch.zeros(4), 1e-5)),
        Check("scale and shift", "layer_norm", (_numbers(2, 3, 4), _numbers(4), _numbers(4, seed=2), 1e-5)),
        Check("a constant vector", "layer_norm", (torch.full((1, 4), 5.0), torch.ones(4), torch.zeros(4), 1e-5)),
        Check("the norm without a mean", "rms_norm", (_numbers(2, 3, 4), _numbers(4), 1e-5)),
    ]


def _activations() -> list[Check]:
    x = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0])
    return [Check("GELU, by tanh", "gelu", (x,)), Check("SiLU", "silu", (x,))]


def _lstm() -> list[Check]:
    return [
        Check("all gates half open", "lstm_step", (torch.zeros(1, 8), torch.ones(1, 2))),
        Check("any gates", "lstm_step", (_numbers(3, 8), _numbers(3, 2, seed=2))),
    ]


def _adamw() -> list[Check]:
    def call(step: int, weight_decay: float) -> Callable[[Callable[..., Any]], str | None]:
        def compare(naive_adamw: Callable[..., Any]) -> str | None:
            from lib.train import optimizer

            tensors = (_numbers(3), _numbers(3, seed=2), 0.1 * _numbers(3, seed=3), _numbers(3, seed=4) ** 2)
            options: Any = {"lr": 0.1, "beta1": 0.9, "beta2": 0.95, "weight_decay": weight_decay}
            return first_mismatch(naive_adamw(*tensors, step, **options), optimizer.naive_adamw(*tensors, step, **options))

        return compare

    return [
        Check("the first step", "naive_adamw", violated=call(1, 0.0)),
        Check("a later step", "naive_adamw", violated=call(7, 0.0)),
        Check("with weight decay", "naive_adamw", violated=call(7, 0.5)),
    ]


def _sampling() -> list[Check]:
    logits = torch.tensor([2.0, 1.0, 0.5, -1.0, -3.0])
    return [
        Check("a high temperature", "temperature_scaled", (logits, 2.0)),
        Check("a low temperature does not overflow", "temperature_scaled", (logits, 1e-3)),
        Check("the two most likely", "keep_top_k", (logits, 2)),
        Check("more than there are", "keep_top_k", (logits, 9)),
        Check("the fewest that reach 0.8", "keep_top_p", (logits, 0.8)),
        Check("the most likely token stays", "keep_top_p", (logits, 0.01)),
    ]


EXERCISES = {
    "gradient_descent": Exercise(
        "training_loop",
        "Change a weight so that an error shrinks.",
        ("lib/exercises/solutions.py:gradient_step",),
        _gradient_descent,
    ),
    "bigram": Exercise("bigram", "Count which token follows which.", ("lib/exercises/solutions.py:add_one_bigram",), _bigram),
    "loss": Exercise("loss", "Say how wrong a prediction is.", ("lib/model/loss.py:naive_cross_entropy",), _loss),
    "softmax": Exercise(
        "simplified_attention",
        "Turn scores into probabilities, and mix vectors by them.",
        ("lib/model/simplified_attention.py:softmax", "lib/model/simplified_attention.py:simplified_attention"),
        _softmax,
    ),
    "causal_attention": Exercise(
        "causal_attention",
        "Hide the future.",
        ("lib/model/causal_attention.py:causal_mask", "lib/model/causal_attention.py:attention_weights"),
        _causal_attention,
    ),
    "attention": Exercise(
        "attention",
        "Several heads in one matrix product.",
        ("lib/exercises/solutions.py:multi_head_attention",),
        _attention,
    ),
    "norms": Exercise(
        "layer_norm", "Bring vectors to one size.", ("lib/model/norm.py:layer_norm", "lib/model/norm.py:rms_norm"), _norms
    ),
    "activations": Exercise(
        "feed_forward",
        "Bend a straight line.",
        ("lib/model/feed_forward.py:gelu", "lib/model/feed_forward.py:silu"),
        _activations,
    ),
    "lstm": Exercise("lstm", "Remember and forget by gates.", ("lib/model/lstm.py:lstm_step",), _lstm),
    "adamw": Exercise("training", "Take steps of equal size.", ("lib/train/optimizer.py:naive_adamw",), _adamw, "EPS = 1e-8"),
    "sampling": Exercise(
        "generation",
        "Choose among the likely tokens.",
        (
            "lib/generate/sampling.py:temperature_scaled",
            "lib/generate/sampling.py:keep_top_k",
            "lib/generate/sampling.py:keep_top_p",
        ),
        _sampling,
    ),
}
