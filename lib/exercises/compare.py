"""What a reader's function returns, compared with what ours returns: the first difference, in words."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

_TOLERANCE = 1e-4  # relative, and absolute for numbers near 0


def first_mismatch(actual: Any, expected: Any) -> str | None:
    """The first number, in order, in which a result differs from the `expected` one; None if there is none.

    Texts are compared by characters, lists, ranges and tuples item by item, everything else as tensors: by shape, then by
    numbers, whatever their precision.
    """
    if isinstance(expected, (str, bytes)):
        return _text_mismatch(actual, expected)
    if isinstance(expected, tuple):
        if not isinstance(actual, (tuple, list)) or len(actual) != len(expected):
            number = len(actual) if isinstance(actual, (tuple, list)) else described_type(actual)
            return f"{len(expected)} results are expected, not {number}"
        return _first_of("result", actual, expected)
    if isinstance(expected, (list, range)):
        if not isinstance(actual, (list, tuple, range)):
            return f"the result is {described_type(actual)}, not a list"
        if len(actual) != len(expected):
            return f"the list has {len(actual)} items, not {len(expected)}"
        return _first_of("item", actual, expected)
    return _number_mismatch(actual, expected)


def _first_of(word: str, actual: Any, expected: Any) -> str | None:
    parts = (first_mismatch(*pair) for pair in zip(actual, expected, strict=True))
    return next((f"{word} {number}: {part}" for number, part in enumerate(parts, 1) if part), None)


def _text_mismatch(actual: Any, expected: str | bytes) -> str | None:
    if not isinstance(actual, type(expected)):
        return f"the result is {described_type(actual)}, not a {type(expected).__name__}"
    if actual == expected:
        return None
    common = next((at for at, pair in enumerate(zip(actual, expected, strict=False)) if pair[0] != pair[1]), None)
    at = min(len(actual), len(expected)) if common is None else common
    here, there = (repr(text[at : at + 1]) if at < len(text) else "the end" for text in (actual, expected))
    return f"character {at + 1} is {here}, not {there}"


def _number_mismatch(actual: Any, expected: Any) -> str | None:
    array = isinstance(expected, np.ndarray)
    expected = torch.as_tensor(expected)
    if not isinstance(actual, (Tensor, int, float, bool, *((np.ndarray, np.generic) if array else ()))):
        return f"the result is {described_type(actual)}, not a tensor of shape {tuple(expected.shape)}"
    actual = torch.as_tensor(actual)
    if actual.is_complex() or actual.layout != torch.strided or actual.device.type != "cpu":
        return f"the result is a tensor of {actual.dtype} on {actual.device}, not of real numbers on the CPU"
    if actual.shape != expected.shape:
        return f"the shape is {tuple(actual.shape)}, not {tuple(expected.shape)}"
    actual, expected = actual.detach().double(), expected.detach().double()
    wrong = (~torch.isclose(actual, expected, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)).nonzero()
    if not len(wrong):
        return None
    index = tuple(wrong[0].tolist())
    place = f"[{', '.join(map(str, index))}]" if index else "the result"
    return f"{place} is {actual[index].item():.6g}, not {expected[index].item():.6g}"


def described_type(value: Any) -> str:
    """What kind of thing `value` is: "None", "a list", "a numpy.ndarray"."""
    if value is None:
        return "None"
    kind = type(value)
    return f"a {kind.__name__}" if kind.__module__ == "builtins" else f"a {kind.__module__}.{kind.__name__}"
