"""An exercise: which functions are to be written, the file with the holes, and the checks of an answer."""

import ast
import importlib
from dataclasses import dataclass
from typing import Any, Callable

from lib.book import source_lines

HOLE = "raise NotImplementedError"

_HEAD = '''"""{about}

Fill in the functions below, then run `check {name}`. The page is `explain {page}`.
"""

from __future__ import annotations

import math

import numpy as np
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
    lines that define what their first lines need. Each check is worth one point.
    """

    page: str
    about: str
    sources: tuple[str, ...]
    checks: tuple[Check, ...]
    names: str = ""

    @property
    def solutions(self) -> dict[str, Callable[..., Any]]:
        """Our functions, by name."""
        places = [source.split(":") for source in self.sources]
        modules = {name: importlib.import_module(file.removesuffix(".py").replace("/", ".")) for file, name in places}
        return {name: getattr(module, name) for name, module in modules.items()}


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
    return "\n".join(lines) + f"\n    {HOLE}\n"
