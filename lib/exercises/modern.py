"""Exercises from the part about what came after GPT-2."""

from typing import Any, Callable

import torch

from lib.exercises.compare import first_mismatch
from lib.exercises.exercise import Check, Exercise
from lib.exercises.numbers import random_ids, random_numbers

_ANGLES = torch.arange(5.0)[:, None] * torch.tensor([1.0, 0.01])
_SCORES = {"a": -3.0, "b": -3.0, "ab": -4.0, "ba": -3.5, "abba": -9.0}
_Q, _K = random_numbers(5, 4), random_numbers(5, 4, seed=2)


def _keeps_lengths(rotate: Callable[..., Any]) -> str | None:
    x = random_numbers(1, 1, 5, 4)
    return first_mismatch(rotate(x, _ANGLES.cos(), _ANGLES.sin()).norm(dim=-1), x.norm(dim=-1))


def _ignores_length(normalized_scores: Callable[..., Any]) -> str | None:
    scale = torch.ones(4)
    return first_mismatch(normalized_scores(10 * _Q, _K, scale, scale, 0.0), normalized_scores(_Q, 3 * _K, scale, scale, 0.0))


EXERCISES = {
    "sinusoidal": Exercise(
        "sinusoidal",
        "Turn a position into the hands of clocks.",
        ("lib/model/positions.py:frequencies", "lib/model/positions.py:angles", "lib/model/positions.py:wave_table"),
        (
            Check("two waves: 1 and 0.01", "frequencies", (4,)),
            Check("four positions", "angles", (4, 4)),
            Check("sines and cosines in turn", "wave_table", (4, 4)),
            Check("another base", "wave_table", (7, 6, 100.0)),
        ),
        "ROTARY_BASE = 10_000.0",
    ),
    "rotary": Exercise(
        "rotary",
        "Turn queries and keys by their position.",
        ("lib/exercises/solutions.py:rotate",),
        (
            Check(
                "a hand that points right",
                "rotate",
                (torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[0.0]]), torch.tensor([[1.0]])),
            ),
            Check("five positions, two pairs", "rotate", (random_numbers(2, 3, 5, 4), _ANGLES.cos(), _ANGLES.sin())),
            Check("lengths stay", "rotate", violated=_keeps_lengths),
        ),
    ),
    "swiglu": Exercise(
        "swiglu",
        "Let one sum decide how much of another passes.",
        ("lib/exercises/solutions.py:swiglu",),
        (
            Check(
                "silu(2) · 3",
                "swiglu",
                (
                    torch.tensor([[2.0, 3.0]]),
                    torch.tensor([[1.0, 0.0]]),
                    torch.tensor([[0.0, 1.0]]),
                    torch.tensor([[1.0], [0.0]]),
                ),
            ),
            Check(
                "any weights",
                "swiglu",
                (
                    random_numbers(2, 3, 4),
                    random_numbers(8, 4, seed=2),
                    random_numbers(8, 4, seed=3),
                    random_numbers(4, 8, seed=4),
                ),
            ),
        ),
        "from lib.model.feed_forward import silu",
    ),
    "grouped_query": Exercise(
        "grouped_query",
        "Let several heads share their keys.",
        ("lib/exercises/solutions.py:share_heads",),
        (
            Check("two heads of keys for four queries", "share_heads", (torch.tensor([1.0, 2.0]).view(1, 2, 1, 1), 4)),
            Check("one for all", "share_heads", (random_numbers(2, 1, 3, 4), 3)),
            Check("as many as queries", "share_heads", (random_numbers(2, 3, 3, 4), 3)),
        ),
    ),
    "query_key_norm": Exercise(
        "query_key_norm",
        "Bound a score, however long its vectors are.",
        ("lib/exercises/solutions.py:normalized_scores",),
        (
            Check(
                "(7, 1) and (1, 7)",
                "normalized_scores",
                (*2 * (torch.tensor([[7.0, 1.0], [1.0, 7.0]]),), *torch.ones(2, 2), 0.0),
            ),
            Check("any vectors and scales", "normalized_scores", (_Q, _K, random_numbers(4), random_numbers(4, seed=3), 1e-5)),
            Check("lengths do not count", "normalized_scores", violated=_ignores_length),
        ),
    ),
    "tied_head": Exercise(
        "tied_head",
        "Add the two gradients of one matrix.",
        ("lib/exercises/solutions.py:tied_gradient",),
        (
            Check(
                "a token that is read twice",
                "tied_gradient",
                (torch.tensor([0, 0]), torch.ones(2, 3), *torch.zeros(2, 2, 3), 3),
            ),
            Check(
                "reading and writing",
                "tied_gradient",
                (random_ids(4, 6), *random_numbers(2, 4, 3), random_numbers(4, 6, seed=2), 6),
            ),
        ),
    ),
    "ngram_embeddings": Exercise(
        "ngram_embeddings",
        "Find a row for each n-gram.",
        ("lib/model/ngram_embeddings.py:ngram_hashes",),
        (
            Check("pairs", "ngram_hashes", (torch.tensor([[-1, 0, 1, 0, 1]]), 2)),
            Check("triples", "ngram_hashes", (random_ids(12, 50_000).view(2, 6), 3)),
        ),
        "from lib.model.ngram_embeddings import FACTOR, PRIME, hashes_of",
    ),
    "unigram": Exercise(
        "unigram",
        "Cut a text in the most probable way.",
        ("lib/tokenizer/unigram.py:best_segmentation",),
        (
            Check("abba", "best_segmentation", ("abba", _SCORES, -19.0, 4)),
            Check("an unknown character", "best_segmentation", ("abca", _SCORES, -19.0, 4)),
            Check("no text, no piece", "best_segmentation", ("", _SCORES, -19.0, 4)),
            Check("sixty characters in time", "best_segmentation", (15 * "abba", _SCORES, -19.0, 4)),
        ),
        "from typing import Mapping",
    ),
}
