"""Runs to one HTML page about them."""

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
    help="Output file, HTML; - is stdout.",
)
def main(folders: tuple[Path, ...], output: Path) -> None:
    """Report on finished runs in one HTML page: results, loss curves, samples during training, baselines, provenance.

    The page is self-contained: no script, no network. Where something is missing, such as an evaluation, it shows the command
    that makes it.
    """
    from lib.artifact.io import write_text
    from lib.report.page import report_page

    write_text(output, report_page(folders))
    if output != STDOUT:
        say(f"{output}: a report on {len(folders)} run{'s' if len(folders) > 1 else ''}")


if __name__ == "__main__":
    main()
