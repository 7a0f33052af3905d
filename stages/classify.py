"""Texts to their classes: a label and its probability per line."""

import json
import sys
from pathlib import Path
from typing import Iterator

import click

from lib.errors import UsageError
from stages.shared.command import Stage
from stages.shared.options import device_option
from stages.shared.streams import say


@click.command("classify", cls=Stage)
@click.argument("folder", type=click.Path(path_type=Path), metavar="RUN")
@click.argument("texts", nargs=-1, metavar="[TEXT...|-]")
@click.option("--strict", is_flag=True, help="Refuse a text longer than the context instead of cutting its end.")
@click.option(
    "--json", "as_json", is_flag=True, help="JSON Lines: text, label, probability, and the probability of each class."
)
@device_option
def main(folder: Path, texts: tuple[str, ...], strict: bool, as_json: bool, device_name: str) -> None:
    """Print the most probable class of each TEXT, and its probability; - reads one text per line from stdin.

    RUN is a classifier, made with `train --task classify`.
    """
    if not texts:
        raise UsageError(f"no TEXT given; for example `classify {folder} 'You have won'`, or - for lines of stdin")
    if "-" in texts and len(texts) > 1:
        raise UsageError("- is stdin, and goes without other texts")

    from lib.data.text import check_word
    from lib.device.hardware import choose_device
    from lib.evaluate.classify import classify_texts, read_lines
    from lib.run.folder import load_classifier

    device = choose_device(device_name)
    trained = load_classifier(folder, device)

    def places() -> Iterator[tuple[str, str]]:
        if texts == ("-",):
            yield from read_lines(sys.stdin.buffer, "stdin")
        for number, text in enumerate(() if texts == ("-",) else texts, 1):
            yield f"text {number}", check_word(text, f"text {number}")

    cut = 0
    for answer in classify_texts(trained, places(), device, strict=strict):
        cut += answer.cut
        click.echo(json.dumps(answer.to_json(), ensure_ascii=False) if as_json else f"{answer.label}\t{answer.probability:.4f}")
    if cut:
        say(f"{cut:,} texts were longer than the context of {trained.config.context_length} tokens, and cut at their end")


if __name__ == "__main__":
    main()
