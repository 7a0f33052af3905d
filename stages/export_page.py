"""A run to one HTML file with the model inside."""

from pathlib import Path

import click

from lib.artifact.files import STDOUT
from stages.shared.command import Stage
from stages.shared.options import writable
from stages.shared.streams import say

_WEIGHTS = ("float32", "float16", "int8")


@click.command("export-page", cls=Stage)
@click.argument("folder", type=click.Path(path_type=Path), metavar="RUN")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE|-",
    callback=writable,
    help="Output file, HTML; - is stdout.",
)
@click.option(
    "--weights",
    type=click.Choice(_WEIGHTS),
    default="float32",
    show_default=True,
    help="Format of the matrices; float16 and int8 make the file smaller.",
)
def main(folder: Path, output: Path, weights: str) -> None:
    """Write the live page of `serve` as one HTML file, with the model of the run folder RUN inside.

    A browser opens the file without a server or a network, and computes the model itself: the tokens of a text with their
    probabilities, attention, the logit lens, continuations. A page holds up to 18 MB, about 3 million parameters in float32 and
    13 million in int8. Models and tokenizers that it does not compute are refused by name.
    """
    from lib.artifact.io import write_text
    from lib.page.export import export_page

    page = export_page(folder, weights)
    write_text(output, page.html)
    if output != STDOUT:
        say(f"{output}: {page.summary()}")


if __name__ == "__main__":
    main()
