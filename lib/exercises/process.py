"""A reader's file, checked in a separate process: what it prints, a crash and an endless loop do not reach the caller.

This protects from mistakes, not from malice: the file runs with the rights of the user. A grader of unknown files runs
`check` in a container.
"""

import multiprocessing
import os
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lib.errors import MakegptError
from lib.exercises.answers import CheckResult, check_answers, read_answers
from lib.exercises.catalog import find_exercise


@dataclass(frozen=True)
class Graded:
    """The results of all checks of one exercise, a point for each that is right."""

    exercise: str
    file: Path
    results: tuple[CheckResult, ...]

    @property
    def points(self) -> int:
        """How many checks are right."""
        return sum(result.problem is None for result in self.results)

    def as_json(self) -> dict[str, Any]:
        """The object that `check --json` prints; docs/teaching/grading.md explains its keys."""
        checks = [
            {"check": result.about, "points": int(result.problem is None), "problem": result.problem} for result in self.results
        ]
        return {
            "exercise": self.exercise,
            "file": str(self.file),
            "points": self.points,
            "max_points": len(self.results),
            "checks": checks,
        }


def grade(name: str, file: Path, seconds: float) -> Graded:
    """The checks of the exercise `name` on `file`, each of which may take `seconds`; UsageError for an unknown name.

    What goes wrong as a whole, a file that does not run, say, is the problem of every check that it concerns.
    """
    name, exercise = name.replace("-", "_"), find_exercise(name)
    abouts = [check.about for check in exercise.checks]
    if not file.is_file():
        absent = f"{file} does not exist; `practise {name}` writes it"
        return Graded(name, file, tuple(CheckResult(about, absent) for about in abouts))
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_check, args=(sender, name, file), daemon=True)
    process.start()
    sender.close()
    try:
        results, problem = _receive(receiver, len(abouts), file, seconds)
    finally:
        process.kill()
        process.join()
    reason = problem or f"{file} ended the process before this check"
    missing = [CheckResult(about, reason) for about in abouts[len(results) :]]
    return Graded(name, file, (*results, *missing))


_START_SECONDS = 60.0  # to start Python and to import torch on a busy machine


def _receive(receiver: Connection, count: int, file: Path, seconds: float) -> tuple[list[CheckResult], str | None]:
    """The results that come in time, and what prevented the others."""
    results: list[CheckResult] = []
    deadline = time.monotonic() + _START_SECONDS
    while len(results) < count:
        if not receiver.poll(max(0.0, deadline - time.monotonic())):
            return results, f"{file} takes longer than {seconds:g} s; is there an endless loop?"
        try:
            message = receiver.recv()
        except EOFError:
            return results, None
        if isinstance(message, str):
            return results, message
        if message is not None:
            results.append(message)
        deadline = time.monotonic() + seconds
    return results, None


def _check(sender: Connection, name: str, file: Path) -> None:
    """In the new process: send None when the file is about to run, then each result, or why there is none."""
    os.dup2(2, 1)  # what the file prints goes to stderr: stdout is the result of `check`
    exercise = find_exercise(name)
    sender.send(None)
    try:
        answers = read_answers(file)
    except MakegptError as error:
        sender.send(str(error))
        return
    for result in check_answers(exercise, answers):
        sender.send(result)
