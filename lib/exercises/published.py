"""Exercises from the part about published weights."""

import numpy as np
import torch

from lib.exercises.exercise import Check, Exercise
from lib.exercises.numbers import random_numbers

_CONVERSATION = [
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "4."},
    {"role": "user", "content": "Sure?"},
]

EXERCISES = {
    "llama_rows": Exercise(
        "pretrained",
        "Sort the rows of another program's queries.",
        ("lib/gguf/llama.py:split_halves",),
        (
            Check("two heads of six", "split_halves", (np.arange(12), 2)),
            Check("rows of a matrix", "split_halves", (np.arange(24.0).reshape(8, 3), 1)),
        ),
    ),
    "chat_template": Exercise(
        "chat_templates",
        "Write a conversation as one text.",
        ("lib/exercises/solutions.py:chatml_text",),
        (
            Check("a question that waits for its answer", "chatml_text", (_CONVERSATION, True)),
            Check("a conversation to learn from", "chatml_text", (_CONVERSATION[:2], False)),
        ),
    ),
    "quantization": Exercise(
        "other_programs",
        "Keep 32 numbers in 8 bits each.",
        ("lib/generate/blocks.py:quantize_8bit",),
        (
            Check("three numbers", "quantize_8bit", (torch.tensor([0.5, -1.27, 0.003]),)),
            Check("blocks of a matrix", "quantize_8bit", (random_numbers(2, 3, 32),)),
        ),
        "def _half(numbers):\n"
        '    """Rounded to float16, as a scale is stored."""\n'
        "    return numbers.half().float()\n\n\n"
        "def _integers(numbers, low, high):\n"
        '    """The nearest integers from low to high."""\n'
        "    return numbers.round().clamp(low, high)",
    ),
}
