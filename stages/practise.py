"""An exercise of the book as a file with holes."""

from itertools import groupby
from pathlib import Path

import click

from lib.artifact.files import STDOUT
from lib.artifact.io import write_text
from lib.errors import UsageError
from stages.shared.command import Stage
from stages.shared.options import output_file_option
from stages.shared.streams import say


@click.command("practise", cls=Stage)
@click.argument("name", required=False, metavar="[EXERCISE]")
@output_file_option
def main(name: str | None, output: Path | None) -> None:
    """Write the file of EXERCISE: functions whose bodies are for you to write; without EXERCISE, list them by part of the book.

    The file is EXERCISE.py in the current folder, or that of -o; `check EXERCISE` says what is right. An existing file is
    not replaced.
    """
    from lib.book import find_page
    from lib.exercises.catalog import EXERCISES, find_exercise
    from lib.exercises.exercise import practice_file

    if name is None:
        for part, exercises in groupby(EXERCISES.items(), lambda item: find_page(item[1].page).part):
            click.echo(f"{part}:")
            for known, exercise in exercises:
                click.echo(f"  {known:20}{exercise.about}")
        return
    exercise = find_exercise(name)
    name = name.replace("-", "_")
    path = output or Path(f"{name}.py")
    if path != STDOUT and path.exists():
        raise UsageError(f"{path} exists already; name another file with -o, or remove it")
    write_text(path, [practice_file(name, exercise)])
    if path != STDOUT:
        say(f"{path}: fill it in, then run `check {name}{f' {path}' if output else ''}`; the page is `explain {exercise.page}`")


if __name__ == "__main__":
    main()
