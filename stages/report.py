"""Runs to one HTML page about them, or to event files of TensorBoard."""

from pathlib import Path

import click

from lib.artifact.files import STDOUT, check_writable
from lib.errors import UsageError
from stages.shared.command import Stage
from stages.shared.streams import say


@click.command("report", cls=Stage)
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--to",
    type=click.Choice(["html", "tensorboard"]),
    default="html",
    show_default=True,
    help="Format: one page, or a folder of TensorBoard's event files.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE|-|DIR",
    help="Output file, HTML; - is stdout. With --to tensorboard a folder, in which each run has its own.",
)
def main(folders: tuple[Path, ...], to: str, output: Path) -> None:
    """Report on finished runs in one HTML page: results, loss curves, samples during training, baselines, provenance.

    The page is self-contained: no script, no network. Where something is missing, such as an evaluation, it shows the command
    that makes it.

    --to tensorboard writes the metrics of runs, also of those that are still trained, as event files: `tensorboard --logdir
    DIR` shows them. Each step is there once, whatever was killed and resumed.
    """
    if to == "tensorboard":
        _write_events(folders, output)
        return
    check_writable(output)

    from lib.artifact.io import write_text
    from lib.report.page import report_page

    write_text(output, report_page(folders))
    if output != STDOUT:
        say(f"{output}: a report on {len(folders)} run{'s' if len(folders) > 1 else ''}")


def _write_events(folders: tuple[Path, ...], output: Path) -> None:
    from lib.report.tensorboard import write_events

    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise UsageError("two runs have the same name, and each needs a folder of that name; report on them one by one")
    if output == STDOUT:
        raise UsageError("--to tensorboard writes a folder; name one with -o")
    for folder, name in zip(folders, names, strict=True):
        say(f"{output / name}: {write_events(folder, output / name):,} points")


if __name__ == "__main__":
    main()
