"""A GPT-2 from elsewhere, in Hugging Face's layout, to a run."""

from pathlib import Path

import click

from lib.artifact.provenance import timestamp
from stages.shared.command import Stage
from stages.shared.streams import say


@click.command("import-weights", cls=Stage)
@click.argument("source", type=click.Path(path_type=Path), metavar="SOURCE")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="RUN", help="Run folder to create.")
def main(source: Path, output: Path) -> None:
    """Make a run folder of the GPT-2 in SOURCE, to generate from, to evaluate or to begin a training with.

    SOURCE is a folder with config.json and model.safetensors, as Hugging Face lays them out, of any size; or a
    model.safetensors alone, of one of the released sizes. The folder's own tokenizer is taken, else GPT-2's.
    """
    from lib.huggingface.convert import import_weights

    manifest = import_weights(source, output, started=timestamp())
    if spare := manifest.metadata.get("dropped_rows"):
        say(f"{spare:,} rows of its tables belong to no token of a text and were dropped; the other logits are the same")
    say(f"{output}: {manifest.metadata['parameters']:,} parameters, {manifest.parameters['model']['vocab_size']:,} tokens")


if __name__ == "__main__":
    main()
