"""A run to Hugging Face's GPT-2 layout, with a certificate."""

from pathlib import Path

import click

from lib.artifact.provenance import timestamp
from stages.shared.command import Stage
from stages.shared.streams import say


@click.command("export-weights", cls=Stage)
@click.argument("folder", type=click.Path(path_type=Path), metavar="RUN")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Output folder.")
def main(folder: Path, output: Path) -> None:
    """Write the model of the run folder RUN for Hugging Face's AutoModelForCausalLM.from_pretrained("DIR").

    Its logits are compared with an independent implementation that reads the exported files; certificate.json
    in DIR says how well they agree. Models with options beyond GPT-2's design are refused.
    """
    from lib.artifact.io import read_json
    from lib.huggingface.convert import export_weights
    from lib.huggingface.parity import PARITY_FILE, parity_summary
    from lib.huggingface.tokenizer import HF_TOKENIZER_FILE

    manifest = export_weights(folder, output, started=timestamp())
    if HF_TOKENIZER_FILE not in manifest.outputs:
        say(f"{output}: without a tokenizer, since that of {folder} has no form in Hugging Face's layout")
    say(f"{output}: {parity_summary(read_json(output / PARITY_FILE))}")


if __name__ == "__main__":
    main()
