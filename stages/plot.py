"""Runs, or what a config describes, to a figure."""

import os
import sys
from pathlib import Path

import click
from click.core import ParameterSource

from lib.artifact.files import check_writable
from lib.config.schema import Config
from lib.errors import UsageError
from stages.shared import tokens
from stages.shared.command import Stage
from stages.shared.options import config_named, config_options, parameter, text_path, writable
from stages.shared.streams import say
from stages.shared.terminal import colored

OF_RUNS = ("loss", "ladder", "attention", "tokens")
OF_CONFIGS = ("model", "mask", "positions", "schedule", "activations", "gradients")
_SUMMED_UP = ("loss", "ladder", "attention")
_TAKES = {"attention": "one run", "tokens": "one run"}


@click.command("plot", cls=Stage)
@click.argument("kind", type=click.Choice([*OF_RUNS, *OF_CONFIGS]), metavar="KIND")
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN...]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE|-",
    callback=writable,
    help="The figure; .png or .svg, .html for tokens, which may also go to the terminal; - is stdout, as PNG or HTML.",
)
@click.option("--panels", is_flag=True, help="For loss: a panel a RUN, side by side, each with its own baselines.")
@click.option(
    "--text",
    "text_file",
    type=text_path,
    metavar="FILE|-",
    help="For tokens: the text to read, a file or stdin, and not --prompt.",
)
@click.option("--summary", is_flag=True, help="Also sum up the first RUN on stderr: its losses, its sample, what to try next.")
@parameter("plot.prompt")
@parameter("plot.width")
@parameter("plot.height")
@parameter("plot.dpi")
@config_options()
def main(
    kind: str,
    folders: tuple[Path, ...],
    output: Path | None,
    panels: bool,
    text_file: str | None,
    summary: bool,
    config: Config,
) -> None:
    """Draw a figure of KIND.

    \b
    loss RUN...     training and validation loss by step and by tokens, beside the baselines
    ladder RUN...   bits/byte against parameters, beside the baselines
    attention RUN   what each head looks at as it reads --prompt
    tokens RUN      --text or --prompt, colored by how surprised the model was by each token
    model           the model's parts, the shapes of its weights and of what flows; of RUNs or named configs too
    mask            which position may look at which
    positions       the table of sinusoidal positions
    schedule        the learning rate by step
    activations     ReLU, GELU and SiLU
    gradients       of a deep network, with shortcuts and without

    The kinds without RUN show what --config and --set describe; the last two are the same for all.
    """  # noqa: D301 - click's \b keeps the lines below it apart
    if kind in OF_RUNS and not folders:
        raise UsageError(f"plot {kind} shows a trained run; name its folder")
    if summary and kind not in _SUMMED_UP:
        raise UsageError(f"--summary sums up a run beside its figure: plot loss, ladder or attention; plot {kind} has none")
    if panels and kind != "loss":
        raise UsageError(f"--panels is for plot loss; plot {kind} has none")
    if text_file is not None and kind != "tokens":
        raise UsageError(f"--text is for plot tokens; plot {kind} reads none")
    if text_file is not None and _given("plot_prompt"):
        raise UsageError("give --text or --prompt, not both: plot tokens reads one text")
    if (kind in OF_CONFIGS and folders and kind != "model") or (kind in _TAKES and len(folders) > 1):
        raise UsageError(f"plot {kind} takes {_TAKES.get(kind, 'no run, but --config')}; not {folders[-1]}")
    if kind == "tokens":
        _tokens(folders[0], text_file, output, config)
        return
    if output is None:
        raise UsageError(f"plot {kind} makes a picture; give -o FILE, .png or .svg")

    from lib.plot.kinds import draw_figure
    from lib.plot.style import figure_format, save_figure
    from lib.report.summary import run_summary
    from lib.run.provenance import figure_provenance

    figure_format(output)
    configs = {str(word): config_named(str(word)) for word in folders if _is_config(word)} if kind == "model" else {}
    drawn = draw_figure(kind, folders, config, panels=panels, configs=configs)
    told = run_summary(folders[0], output) if summary else None
    save_figure(drawn, output, config.plot, figure_provenance(kind, folders, config, configs=configs))
    if told is not None:
        say(told)


def _given(option: str) -> bool:
    """Whether an option stands in the command itself."""
    return click.get_current_context().get_parameter_source(option) is ParameterSource.COMMANDLINE


def _is_config(word: Path) -> bool:
    """Whether a word that may be a run's folder can only be the name of a config."""
    return os.sep not in str(word) and not word.is_dir()


def _tokens(folder: Path, text_file: str | None, output: Path | None, config: Config) -> None:
    """A text, colored: a page of HTML, or in the terminal; a line a token where nothing shows colors."""
    if output is not None and output.suffix.lower() not in (".html", ".htm") and (output.suffix or check_writable(output)):
        raise UsageError(f"{output}: plot tokens makes a page; give -o FILE.html, or no -o for the terminal")

    from lib.artifact.io import write_text
    from lib.data.text import check_word
    from lib.device.hardware import choose_device
    from lib.evaluate.evaluation import score_tokens
    from lib.evaluate.span import text_span
    from lib.report.surprisal import draw_surprisal, printable_html, surprisal_level, surprisal_pieces
    from lib.run.folder import load_run
    from stages.shared.reading import read_text_span

    cpu = choose_device("cpu")
    trained = load_run(folder, cpu)
    if text_file is None:
        stretch = text_span([check_word(config.plot.prompt, "plot.prompt")], trained.tokenizer, "--prompt")
    else:
        stretch = read_text_span(text_file, folder, trained, config.tokenize.errors)
    if output is not None:
        write_text(output, draw_surprisal(folder, trained, stretch))
    elif colored(sys.stdout):
        for piece in surprisal_pieces(trained, stretch, cpu):
            click.echo(tokens.passage(printable_html(piece.text), surprisal_level(piece.nats)), nl=False)
        click.echo()
        say("the darker, the less likely the model found it; -o FILE.html tells of each token")
    else:
        click.echo(tokens.HEAD)
        for token in score_tokens(trained, stretch, cpu):
            click.echo(tokens.line(token, colored=False))


if __name__ == "__main__":
    main()
