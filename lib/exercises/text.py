"""Exercises from the first part of the book: derivatives, tokens, counts, losses, embeddings, recurrence."""

from typing import Any, Callable

import torch

from lib.exercises.compare import first_mismatch
from lib.exercises.exercise import Check, Exercise
from lib.exercises.numbers import random_ids, random_numbers


def _sums_to_one(add_one_bigram: Callable[..., Any]) -> str | None:
    return first_mismatch(add_one_bigram(random_ids(40, 5), 5).sum(dim=1), torch.ones(5))


_TOKEN_TABLE, _POSITION_TABLE = random_numbers(7, 4), random_numbers(6, 4, seed=2)
_LOOKUP = torch.tensor([[2, 0, 2], [1, 6, 5]])

EXERCISES = {
    "backward": Exercise(
        "notation",
        "Backpropagate through a matrix.",
        ("lib/exercises/solutions.py:linear_backward",),
        (
            Check(
                "one input, one output: dx = dy · w, dw = dy · x",
                "linear_backward",
                (torch.tensor([[2.0]]), torch.tensor([[3.0]]), torch.tensor([[12.0]])),
            ),
            Check(
                "the shapes of x and W", "linear_backward", (random_numbers(5, 3), random_numbers(2, 3), random_numbers(5, 2))
            ),
        ),
    ),
    "bpe": Exercise(
        "tokens",
        "Learn which neighbors to merge.",
        ("lib/tokenizer/merges.py:learn_merges_naively",),
        (
            Check("three merges of aaabdaaabac", "learn_merges_naively", ({"aaabdaaabac": 1}, 3)),
            Check(
                "counts of words weigh the pairs", "learn_merges_naively", ({"low": 5, "lower": 2, "newest": 6, "widest": 3}, 6)
            ),
            Check("equal counts: the lowest pair", "learn_merges_naively", ({"ba": 1, "ab": 1}, 1)),
            Check("fewer merges than asked for", "learn_merges_naively", ({"ab": 3}, 5)),
        ),
        "from collections import Counter\nfrom itertools import pairwise\n\nBYTES = 256  # the first merge is chr(256)\n\n\n"
        "def _pairs(word):\n"
        '    """The pairs of neighbors of a word, from left to right."""\n'
        "    return (a + b for a, b in pairwise(word))",
    ),
    "bigram": Exercise(
        "bigram",
        "Count which token follows which.",
        ("lib/exercises/solutions.py:add_one_bigram",),
        (
            Check("aab with three tokens", "add_one_bigram", (torch.tensor([0, 0, 1]), 3)),
            Check("every row sums to 1", "add_one_bigram", violated=_sums_to_one),
            Check("a longer text", "add_one_bigram", (random_ids(40, 5), 5)),
        ),
    ),
    "loss": Exercise(
        "loss",
        "Say how wrong a prediction is.",
        ("lib/model/loss.py:naive_cross_entropy", "lib/exercises/solutions.py:loss_units"),
        (
            Check("equal logits: 2 ln 4", "naive_cross_entropy", (torch.zeros(2, 4), torch.tensor([0, 3]))),
            Check("any logits, summed", "naive_cross_entropy", (random_numbers(5, 7), torch.tensor([0, 6, 2, 2, 1]))),
            Check("large logits do not overflow", "naive_cross_entropy", (torch.tensor([[2000.0, 1000.0]]), torch.tensor([1]))),
            Check("ten tokens of 1.5 nats, ten bytes", "loss_units", (15.0, 10, 10)),
            Check("two tokens of 6 nats, ten bytes", "loss_units", (12.0, 2, 10)),
        ),
    ),
    "gradient_descent": Exercise(
        "training_loop",
        "Change a weight so that an error shrinks.",
        ("lib/exercises/solutions.py:gradient_step",),
        (
            Check(
                "one weight, one example: 3 - 0.01 · 24",
                "gradient_step",
                (torch.tensor([3.0]), torch.tensor([[2.0]]), torch.tensor([0.0]), 0.01),
            ),
            Check(
                "several weights and examples",
                "gradient_step",
                (random_numbers(4), random_numbers(6, 4), random_numbers(6), 0.1),
            ),
        ),
    ),
    "embeddings": Exercise(
        "embeddings",
        "Look up rows, and see that this is a matrix product.",
        ("lib/exercises/solutions.py:one_hot", "lib/exercises/solutions.py:embed"),
        (
            Check("the rows of ids 2, 0, 2", "one_hot", (torch.tensor([2, 0, 2]), 3)),
            Check("token plus position", "embed", (_LOOKUP, _TOKEN_TABLE, _POSITION_TABLE)),
        ),
    ),
    "lstm": Exercise(
        "lstm",
        "Remember and forget by gates.",
        ("lib/model/lstm.py:lstm_step",),
        (
            Check("all gates half open", "lstm_step", (torch.zeros(1, 8), torch.ones(1, 2))),
            Check("any gates", "lstm_step", (random_numbers(3, 8), random_numbers(3, 2, seed=2))),
        ),
    ),
}
