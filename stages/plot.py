"""Runs, or what a config describes, to a figure."""

import inspect
import os
import sys
from pathlib import Path

import click
from click.core import ParameterSource

from lib.artifact.files import check_writable
from lib.config.schema import Config
from lib.errors import UsageError
from lib.plot.kinds import KINDS, Request, Takes, check_arguments
from stages.shared import tokens
from stages.shared.command import Stage
from stages.shared.options import config_named, config_options, parameter, text_path, writable
from stages.shared.streams import say
from stages.shared.terminal import colored


@click.command("plot", cls=Stage)
@click.argument("name", type=click.Choice(list(KINDS)), metavar="KIND")
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN...]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE|-",
    callback=writable,
    help="Output file: .png or .svg, or .html for tokens; - is stdout (PNG or HTML). Without it tokens prints to the terminal.",
)
@click.option("--panels", is_flag=True, help="For loss: one panel per RUN, side by side, each with its own baselines.")
@click.option(
    "--text",
    "text_file",
    type=text_path,
    metavar="FILE|-",
    help="For tokens: the text to read instead of --prompt; a file, or - for stdin.",
)
@click.option("--summary", is_flag=True, help="Also print a summary of the first RUN on stderr: losses, sample, next steps.")
@parameter("plot.prompt")
@parameter("plot.width")
@parameter("plot.height")
@parameter("plot.dpi")
@config_options()
def main(
    name: str,
    folders: tuple[Path, ...],
    output: Path | None,
    panels: bool,
    text_file: str | None,
    summary: bool,
    config: Config,
) -> None:
    """Draw a figure of KIND."""
    kind = KINDS[name]
    options = {"panels": panels, "text": text_file is not None, "summary": summary}
    check_arguments(kind, folders, [option for option, present in options.items() if present])
    if kind.draw is None:
        _tokens(folders[0], text_file, output, config)
        return
    if output is None:
        raise UsageError(f"plot {name} needs an output file; give -o FILE.png or -o FILE.svg")

    from lib.plot.style import figure_format, save_figure
    from lib.report.summary import run_summary
    from lib.run.provenance import figure_provenance

    figure_format(output)
    named = [str(word) for word in folders if kind.takes is Takes.MODELS and _is_config(word)]
    configs = {word: config_named(word) for word in named}
    figure = kind.draw(Request(config=config, folders=folders, configs=configs, panels=panels))
    report = run_summary(folders[0], output) if summary else None
    save_figure(figure, output, config.plot, figure_provenance(name, folders, config, configs=configs))
    if report is not None:
        say(report)


def _help() -> str:
    """The help text with a line for each kind."""
    labels = {kind: f"{kind.name} {kind.takes.metavar}".strip() for kind in KINDS.values()}
    width = max(map(len, labels.values())) + 2
    lines = [f"{label:<{width}}{kind.help}" for kind, label in labels.items()]
    about = "Without RUN the figure shows what --config and --set describe."
    return "\n".join([inspect.cleandoc(main.help or ""), "", "\b", *lines, "", about])


main.help = _help()


def _is_config(word: Path) -> bool:
    """Whether a word that may be a run's folder can only be the name of a config."""
    return os.sep not in str(word) and not word.is_dir()


def _tokens(folder: Path, text_file: str | None, output: Path | None, config: Config) -> None:
    """A text colored by surprisal: an HTML page, or in the terminal; one line per token if there are no colors."""
    prompt_given = click.get_current_context().get_parameter_source("plot_prompt") is ParameterSource.COMMANDLINE
    if text_file is not None and prompt_given:
        raise UsageError("give --text or --prompt, not both: plot tokens reads one text")
    if output is not None and output.suffix.lower() not in (".html", ".htm") and (output.suffix or check_writable(output)):
        raise UsageError(f"{output}: plot tokens writes HTML; give -o FILE.html, or no -o for the terminal")

    from lib.artifact.io import write_text
    from lib.data.text import check_word
    from lib.device.hardware import choose_device
    from lib.evaluate.evaluation import score_tokens
    from lib.evaluate.span import text_span
    from lib.report.html import visible_text
    from lib.report.surprisal import draw_surprisal, surprisal_level, surprisal_pieces
    from lib.run.folder import load_run
    from stages.shared.reading import read_text_span

    cpu = choose_device("cpu")
    trained = load_run(folder, cpu)
    if text_file is None:
        span = text_span([check_word(config.plot.prompt, "plot.prompt")], trained.tokenizer, "--prompt")
    else:
        span = read_text_span(text_file, folder, trained, config.tokenize.errors)
    if output is not None:
        write_text(output, draw_surprisal(folder, trained, span))
    elif colored(sys.stdout):
        for piece in surprisal_pieces(trained, span, cpu):
            click.echo(tokens.passage(visible_text(piece.text), surprisal_level(piece.nats)), nl=False)
        click.echo()
        say("the darker, the higher the surprisal; -o FILE.html shows the numbers of each token")
    else:
        click.echo(tokens.HEAD)
        for token in score_tokens(trained, span, cpu):
            click.echo(tokens.line(token, colored=False))


if __name__ == "__main__":
    main()
