"""Exercises from the part about the whole model: its size, training, files, generation, evaluation."""

import json
from types import SimpleNamespace
from typing import Any, Callable

import numpy as np
import torch

from lib.exercises.compare import first_mismatch
from lib.exercises.exercise import Check, Exercise
from lib.exercises.numbers import random_numbers

_LOGITS = torch.tensor([2.0, 1.0, 0.5, -1.0, -3.0])
_BLOCKS = np.array([30.0, 20.0, 24.0, 28.0, 22.0, 26.0, 27.0, 23.0])


def _adamw(step: int, weight_decay: float) -> Callable[[Callable[..., Any]], str | None]:
    def compare(naive_adamw: Callable[..., Any]) -> str | None:
        from lib.train import optimizer

        tensors = (
            random_numbers(3),
            random_numbers(3, seed=2),
            0.1 * random_numbers(3, seed=3),
            random_numbers(3, seed=4) ** 2,
        )
        options: Any = {"lr": 0.1, "beta1": 0.9, "beta2": 0.95, "weight_decay": weight_decay}
        return first_mismatch(naive_adamw(*tensors, step, **options), optimizer.naive_adamw(*tensors, step, **options))

    return compare


def _training(**changes: Any) -> SimpleNamespace:
    given = {"learning_rate": 0.008, "warmup_steps": 10, "max_steps": 240, "schedule": "cosine", "min_lr_ratio": 0.1}
    return SimpleNamespace(**{**given, **changes})


def _header(text: str) -> bytes:
    return len(text.encode()).to_bytes(8, "little") + text.encode() + bytes(36)


def _same(read_header: Callable[..., Any], text: str) -> str | None:
    result, expected = read_header(_header(text)), json.loads(text)
    return None if result == expected else f"the header is {result!r:.60}, not {expected!r:.60}"


EXERCISES = {
    "parameters": Exercise(
        "gpt",
        "Count the parameters of any GPT.",
        ("lib/exercises/solutions.py:parameter_count",),
        (
            Check("the decoder: 618,752", "parameter_count", (65, 64, 128, 3, False, False)),
            Check("GPT-2 small: 124,439,808", "parameter_count", (50_257, 1024, 768, 12, True, True)),
            Check("GPT-2 XL", "parameter_count", (50_257, 1024, 1600, 48, True, True)),
        ),
    ),
    "adamw": Exercise(
        "training",
        "Take steps of equal size.",
        ("lib/train/optimizer.py:naive_adamw",),
        (
            Check("the first step", "naive_adamw", violated=_adamw(1, 0.0)),
            Check("a later step", "naive_adamw", violated=_adamw(7, 0.0)),
            Check("with weight decay", "naive_adamw", violated=_adamw(7, 0.5)),
        ),
        "EPS = 1e-8",
    ),
    "schedule": Exercise(
        "training",
        "Raise the learning rate, then lower it.",
        ("lib/train/schedule.py:learning_rate",),
        (
            Check("the first step of a warm-up", "learning_rate", (0, _training())),
            Check("the peak", "learning_rate", (9, _training())),
            Check("halfway along the cosine", "learning_rate", (125, _training())),
            Check("along a line to 0", "learning_rate", (182, _training(schedule="linear", min_lr_ratio=0.0))),
            Check("a short run shortens the warm-up", "learning_rate", (3, _training(max_steps=12))),
        ),
    ),
    "safetensors": Exercise(
        "save_and_load",
        "Read what a file of weights says about itself.",
        ("lib/exercises/solutions.py:read_header",),
        (
            Check("one tensor", "read_header", violated=lambda read: _same(read, '{"w": {"dtype": "F32", "shape": [3, 3]}}')),
            Check(
                "a header of more than 255 bytes",
                "read_header",
                violated=lambda read: _same(read, '{"w": "' + "x" * 300 + '"}'),
            ),
            Check("lengths count bytes, not characters", "read_header", violated=lambda read: _same(read, '{"größe": 1}')),
        ),
        "import json",
    ),
    "sampling": Exercise(
        "generation",
        "Choose among the likely tokens.",
        (
            "lib/generate/sampling.py:temperature_scaled",
            "lib/generate/sampling.py:keep_top_k",
            "lib/generate/sampling.py:keep_top_p",
            "lib/generate/sampling.py:keep_min_p",
        ),
        (
            Check("a high temperature", "temperature_scaled", (_LOGITS, 2.0)),
            Check("a low temperature does not overflow", "temperature_scaled", (_LOGITS, 1e-3)),
            Check("the two most likely", "keep_top_k", (_LOGITS, 2)),
            Check("more than there are", "keep_top_k", (_LOGITS, 9)),
            Check("the fewest that reach 0.8", "keep_top_p", (_LOGITS, 0.8)),
            Check("the most likely token stays", "keep_top_p", (_LOGITS, 0.01)),
            Check("a tenth of the most likely", "keep_min_p", (_LOGITS, 0.1)),
        ),
    ),
    "kv_cache": Exercise(
        "generation",
        "Compute one token, and keep what the next one needs.",
        ("lib/exercises/solutions.py:cached_attention",),
        (
            Check("the first token of all", "cached_attention", (*random_numbers(3, 2, 1, 4), *random_numbers(2, 2, 0, 4))),
            Check("after three tokens", "cached_attention", (*random_numbers(3, 2, 1, 4), *random_numbers(2, 2, 3, 4, seed=2))),
        ),
    ),
    "kneser_ney": Exercise(
        "evaluation",
        "Count pairs, and leave something for those that were not seen.",
        ("lib/exercises/solutions.py:kneser_ney_bigram",),
        (
            Check("abracadabra!", "kneser_ney_bigram", ([0, 1, 4, 0, 2, 0, 3, 0, 1, 4, 0, 5], 6)),
            Check("a token that nothing follows", "kneser_ney_bigram", ([0, 0, 1, 0, 1, 2], 4)),
        ),
    ),
    "standard_error": Exercise(
        "evaluation",
        "Say how well a loss is known.",
        ("lib/evaluate/metrics.py:ratio_with_se",),
        (
            Check("eight blocks of ten tokens", "ratio_with_se", (_BLOCKS, np.full(8, 10.0))),
            Check("blocks of different lengths", "ratio_with_se", (_BLOCKS, np.arange(8.0, 16.0))),
        ),
        "MIN_BLOCKS = 8",
    ),
}
