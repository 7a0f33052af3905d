"""Runs, or what a config describes, to a figure."""

from pathlib import Path

import click

from lib.config import Config
from lib.errors import UsageError
from stages import say, stage

OF_RUNS = ("loss", "ladder", "attention")
OF_CONFIGS = ("mask", "positions", "architecture", "schedule", "activations", "gradients")


@stage("plot", plot=("prompt", "width", "height", "dpi"))
@click.argument("kind", type=click.Choice([*OF_RUNS, *OF_CONFIGS]), metavar="KIND")
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN...]")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The figure; .png or .svg."
)
@click.option("--panels", is_flag=True, help="For loss: a panel a RUN, side by side, each with its own baselines.")
@click.option("--summary", is_flag=True, help="Also sum up the first RUN on stderr: its losses, its sample, what to try next.")
def main(kind: str, folders: tuple[Path, ...], output: Path, panels: bool, summary: bool, config: Config) -> None:
    """Draw a figure of KIND.

    \b
    loss RUN...     training and validation loss by step, beside the baselines
    attention RUN   what each head looks at as it reads --prompt
    mask            which position may look at which
    architecture    the model's parts and their parameters
    positions       the table of sinusoidal positions
    schedule        the learning rate by step
    activations     ReLU, GELU and SiLU
    gradients       of a deep network, with shortcuts and without

    The kinds without RUN show what --config and --set describe; the last two are the same for all.
    """  # noqa: D301 - click's \b keeps the lines below it apart
    if kind in OF_RUNS and not folders:
        raise UsageError(f"plot {kind} shows a trained run; name its folder")
    if summary and not folders:
        raise UsageError(f"--summary sums up a run, and plot {kind} shows none")
    if panels and kind != "loss":
        raise UsageError(f"--panels is for plot loss; plot {kind} has none")
    if (kind in OF_CONFIGS and folders) or (kind == "attention" and len(folders) > 1):
        raise UsageError(f"plot {kind} takes {'one run' if kind == 'attention' else 'no run, but --config'}; not {folders[-1]}")

    from lib import figures, report

    figures.format_of(output)
    drawn = report.figure(kind, folders, config, panels)
    figures.save(drawn, output, config.plot, report.provenance(kind, folders, config))
    if summary:
        say(report.summary(folders[0]))


if __name__ == "__main__":
    main()
