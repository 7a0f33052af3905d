"""An exercise: which functions are to be written, the file with the holes, and how an answer is checked.

A check calls the reader's function and ours with the same arguments and reports the first number in which they differ.
"""

import ast
import importlib
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping

import torch
from torch import Tensor

from lib.book import source_lines
from lib.errors import MakegptError

_TOLERANCE = 1e-4  # relative, and absolute for numbers near 0
_HOLE = "raise NotImplementedError"

_HEAD = '''"""{about}

Fill in the functions below, then run `check {name}`. The page is `explain {page}`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
'''


@dataclass(frozen=True)
class Check:
    """A call of `function` with `arguments`, whose result is compared with ours; or, with `violated`, a property of it:
    that gets the reader's function and returns what is wrong, or None.
    """

    about: str
    function: str
    arguments: tuple[Any, ...] = ()
    violated: Callable[[Callable[..., Any]], str | None] | None = None


@dataclass(frozen=True)
class Exercise:
    """`sources`: the functions to be written, as FILE.py:name; `page`: the page of the book that explains them; `names`:
    lines that define what their first lines need.
    """

    page: str
    about: str
    sources: tuple[str, ...]
    checks: Callable[[], list[Check]]
    names: str = ""

    @property
    def solutions(self) -> dict[str, Callable[..., Any]]:
        """Our functions, by name."""
        places = [source.split(":") for source in self.sources]
        modules = {name: importlib.import_module(file.removesuffix(".py").replace("/", ".")) for file, name in places}
        return {name: getattr(module, name) for name, module in modules.items()}


@dataclass(frozen=True)
class CheckResult:
    """`problem`: what is wrong; None if nothing is."""

    about: str
    problem: str | None


def practice_file(name: str, exercise: Exercise) -> str:
    """The file to be filled in: the functions with their docstrings, and a hole for each body."""
    head = _HEAD.format(about=exercise.about, name=name, page=exercise.page)
    names = f"\n{exercise.names}\n" if exercise.names else ""
    return "\n\n".join([head + names, *map(_with_hole, exercise.sources)])


def _with_hole(source: str) -> str:
    """A function without its body."""
    text = source_lines(source)
    function = ast.parse(text).body[0]
    assert isinstance(function, ast.FunctionDef)
    docstring = function.body[0]
    assert docstring.end_lineno is not None
    lines = text.splitlines()[: docstring.end_lineno]
    return "\n".join(lines) + f"\n    {_HOLE}\n"


def read_answers(path: Path) -> dict[str, Any]:
    """What the file `path` defines. MakegptError if it cannot be read or run."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MakegptError(f"{path} cannot be read: {error}; `practise NAME` writes the file of an exercise") from None
    names: dict[str, Any] = {"__name__": path.stem}
    try:
        exec(compile(text, str(path), "exec"), names)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() too, which would end `check` as if all were right
        raise MakegptError(f"{path} does not run: {_describe(error)}") from None
    return names


def check_answers(exercise: Exercise, answers: Mapping[str, Any]) -> list[CheckResult]:
    """Every check of `exercise`, in order."""
    solutions = exercise.solutions
    return [CheckResult(check.about, _problem(check, answers.get(check.function), solutions)) for check in exercise.checks()]


def _problem(check: Check, answer: Any, solutions: Mapping[str, Callable[..., Any]]) -> str | None:
    if not callable(answer):
        return f"the function {check.function} is missing"
    try:
        if check.violated:
            return check.violated(answer)
        result = answer(*_copied(check.arguments))
    except NotImplementedError:
        return f"{check.function} is not written yet"
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"{check.function} fails: {_describe(error)}"
    return first_mismatch(result, solutions[check.function](*_copied(check.arguments)))


def _copied(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments, none of which a function can change for the next one."""
    return tuple(argument.clone() if isinstance(argument, Tensor) else argument for argument in arguments)


def first_mismatch(actual: Any, expected: Any) -> str | None:
    """The first number, in order, in which a result differs from the `expected` one; None if there is none."""
    if isinstance(expected, tuple):
        if not isinstance(actual, tuple) or len(actual) != len(expected):
            number = len(actual) if isinstance(actual, tuple) else _described_type(actual)
            return f"{len(expected)} results are expected, not {number}"
        parts = (first_mismatch(*pair) for pair in zip(actual, expected, strict=True))
        return next((f"result {number}: {part}" for number, part in enumerate(parts, 1) if part), None)
    expected = torch.as_tensor(expected)
    if not isinstance(actual, (Tensor, int, float, bool)):
        return f"the result is {_described_type(actual)}, not a tensor of shape {tuple(expected.shape)}"
    actual = torch.as_tensor(actual)
    if actual.shape != expected.shape:
        return f"the shape is {tuple(actual.shape)}, not {tuple(expected.shape)}"
    actual, expected = actual.detach().double(), expected.detach().double()
    wrong = (~torch.isclose(actual, expected, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)).nonzero()
    if not len(wrong):
        return None
    index = tuple(wrong[0].tolist())
    place = f"[{', '.join(map(str, index))}]" if index else "the result"
    return f"{place} is {actual[index].item():.6g}, not {expected[index].item():.6g}"


def _described_type(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _describe(error: BaseException) -> str:
    """The error in one line."""
    lines = str(error).strip().splitlines()
    return textwrap.shorten(f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": "), 200)
