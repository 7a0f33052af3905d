"""A reader's answers: the functions that a file defines, and what the checks of an exercise say of them."""

import copy
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping

from lib.errors import MakegptError
from lib.exercises.compare import first_mismatch
from lib.exercises.exercise import Check, Exercise


@dataclass(frozen=True)
class CheckResult:
    """`problem`: what is wrong; None if nothing is."""

    about: str
    problem: str | None


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


def check_answers(exercise: Exercise, answers: Mapping[str, Any]) -> Iterator[CheckResult]:
    """The result of each check of `exercise`, in order."""
    solutions = exercise.solutions
    for check in exercise.checks:
        yield CheckResult(check.about, _problem(check, answers.get(check.function), solutions))


def _problem(check: Check, answer: Any, solutions: Mapping[str, Callable[..., Any]]) -> str | None:
    if not callable(answer):
        return f"the function {check.function} is missing"
    try:
        if check.violated:
            return check.violated(answer)
        return first_mismatch(
            answer(*copy.deepcopy(check.arguments)), solutions[check.function](*copy.deepcopy(check.arguments))
        )
    except NotImplementedError:
        return f"{check.function} is not written yet"
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"{check.function} fails: {_describe(error)}"


def _describe(error: BaseException) -> str:
    """The error in one line."""
    lines = str(error).strip().splitlines()
    return textwrap.shorten(f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": "), 200)
