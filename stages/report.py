"""Runs to one page that tells all about them."""

from pathlib import Path

import click

from lib.artifact.files import STDOUT
from stages.shared.command import Stage
from stages.shared.options import writable
from stages.shared.streams import say


@click.command("report", cls=Stage)
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE|-",
    callback=writable,
    help="Output file (HTML); - is stdout.",
)
def main(folders: tuple[Path, ...], output: Path) -> None:
    """Tell about finished runs in one HTML page: results, learning, samples through training, where all of it comes from.

    The page needs nothing but itself: no script, no network. What is not there yet, such as an evaluation, has a line that
    says how to make it.
    """
    from lib.artifact.io import write_text
    from lib.report.page import report_page

    write_text(output, report_page(folders))
    if output != STDOUT:
        say(f"{output}: a report on {len(folders)} run{'s' if len(folders) > 1 else ''}")


if __name__ == "__main__":
    main()
