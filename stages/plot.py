"""Runs to a figure."""

from pathlib import Path

import click

from lib.config import Config
from stages import say, stage


@stage("plot", plot=("width", "height", "dpi"))
@click.argument("kind", type=click.Choice(["loss"]), metavar="KIND")
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The figure; .png or .svg."
)
@click.option("--summary", is_flag=True, help="Also sum up the first RUN on stderr: its losses, its sample, what to try next.")
def main(kind: str, folders: tuple[Path, ...], output: Path, summary: bool, config: Config) -> None:
    """Draw a figure of KIND for each RUN. KIND is loss: training and validation loss by step, beside the baselines."""
    from lib import figures, report

    figures.format_of(output)
    figures.save(figures.loss_figure(report.curves(folders), config.plot), output, config.plot, report.provenance(folders))
    if summary:
        say(report.summary(folders[0]))


if __name__ == "__main__":
    main()
