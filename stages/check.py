"""A reader's answers to exercises, checked."""

import json
from pathlib import Path

import click

from lib.errors import MakegptError, UsageError
from stages.shared.command import Stage


@click.command("check", cls=Stage)
@click.argument("name", required=False, metavar="[EXERCISE]")
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[FILE]")
@click.option("--all", "folder", type=click.Path(path_type=Path), help="Check EXERCISE.py of every exercise in this folder.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: points, and the problem of each check.")
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True, help="Time limit of a check."
)
def main(name: str | None, file: Path | None, folder: Path | None, as_json: bool, seconds: float) -> None:
    """Run the functions of FILE (default: EXERCISE.py) and compare them with this project's; name the first wrong number.

    Each check is a point. The exit code is 0 if all is right, else 1. FILE is a program, and is run, in a separate process;
    what it prints goes to stderr.
    """
    from lib.exercises.catalog import EXERCISES
    from lib.exercises.process import grade

    if (name is None) == (folder is None):
        raise UsageError("give an exercise, `check attention`, or a folder with answers, `check --all answers`")
    if folder is not None and not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; --all takes the folder that has the files of `practise`")
    if folder is not None:
        grades = [grade(known, folder / f"{known}.py", seconds) for known in EXERCISES]
    else:
        assert name is not None
        grades = [grade(name, file or Path(f"{name.replace('-', '_')}.py"), seconds)]
    points, most = sum(graded.points for graded in grades), sum(len(graded.results) for graded in grades)
    if as_json:
        objects = [graded.as_json() for graded in grades]
        whole = {"points": points, "max_points": most, "exercises": objects}
        click.echo(json.dumps(whole if folder is not None else objects[0], indent=2))
    for graded in [] if as_json else grades:
        if folder is not None:
            click.echo(f"{graded.points:3} of {len(graded.results)}  {graded.exercise}")
            continue
        for result in graded.results:
            click.echo(f"{'right' if result.problem is None else 'WRONG'}  {result.about}")
            if result.problem:
                click.echo(f"       {result.problem}")
    if not as_json:
        click.echo(f"{points} of {most} right")
    if wrong := most - points:
        raise MakegptError(f"{wrong} of {most} checks fail")


if __name__ == "__main__":
    main()
