"""A reader's answers to an exercise, checked."""

import contextlib
import json
import sys
from pathlib import Path

import click

from lib.errors import MakegptError
from stages.shared.command import Stage


@click.command("check", cls=Stage)
@click.argument("name", metavar="EXERCISE")
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[FILE]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: passed, checks, and the problem of each.")
def main(name: str, file: Path | None, as_json: bool) -> None:
    """Run the functions of FILE (default: EXERCISE.py) and compare them with this project's; name the first wrong number.

    The exit code is 0 if all is right, else 1. FILE is a program, and is run.
    """
    from lib.exercises.catalog import find_exercise
    from lib.exercises.exercise import check_answers, read_answers

    exercise = find_exercise(name)
    with contextlib.redirect_stdout(sys.stderr):  # what FILE prints
        results = check_answers(exercise, read_answers(file or Path(f"{name.replace('-', '_')}.py")))
    passed = sum(result.problem is None for result in results)
    if as_json:
        checks = [{"check": result.about, "passed": result.problem is None, "problem": result.problem} for result in results]
        click.echo(json.dumps({"exercise": name, "passed": passed, "checks": checks}, indent=2))
    else:
        for result in results:
            click.echo(f"{'right' if result.problem is None else 'WRONG'}  {result.about}")
            if result.problem:
                click.echo(f"       {result.problem}")
        click.echo(f"{passed} of {len(results)} right")
    if wrong := len(results) - passed:
        raise MakegptError(f"{wrong} of {len(results)} checks fail")


if __name__ == "__main__":
    main()
