"""A run to a format of other programs, with a certificate."""

from pathlib import Path

import click

from lib.artifact.provenance import timestamp
from lib.errors import UsageError
from stages.shared.command import Stage
from stages.shared.streams import say

_QUANTIZE = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")


@click.command("export-weights", cls=Stage)
@click.argument("folder", type=click.Path(path_type=Path), metavar="RUN")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Output folder.")
@click.option(
    "--to",
    type=click.Choice(["hf", "gguf", "peft"]),
    default="hf",
    show_default=True,
    help="Format: Hugging Face's folder, GGUF for llama.cpp and Ollama, or PEFT's adapter.",
)
@click.option(
    "--quantize",
    type=click.Choice(_QUANTIZE),
    metavar="TYPE",
    help=f"With gguf, the type of the matrices: {', '.join(_QUANTIZE)}.  [default: f32]",
)
def main(folder: Path, output: Path, to: str, quantize: str | None) -> None:
    """Write the model of the run folder RUN for other programs.

    --to hf: for Hugging Face's AutoModelForCausalLM.from_pretrained("DIR"). --to gguf: model.gguf for llama.cpp, and a
    Modelfile for Ollama. certificate.json in DIR says how well what the files compute agrees with the model: in an
    independent implementation for hf, in llama.cpp itself for gguf (`make llama-cpp` installs it).
    Models with options that the format does not have are refused. --to peft: of a run trained with train.finetune=lora, only
    its adapters, for PEFT's PeftModel.from_pretrained(BASE, "DIR"), where BASE is the export of the run it was trained from.
    """
    from lib.artifact.io import read_json
    from lib.gguf.certificate import certificate_summary
    from lib.gguf.export import export_gguf
    from lib.huggingface.convert import export_weights
    from lib.huggingface.parity import PARITY_FILE, parity_summary
    from lib.huggingface.peft_export import export_adapter
    from lib.huggingface.tokenizer import HF_TOKENIZER_FILE

    if to == "gguf":
        export_gguf(folder, output, quantize=quantize or "f32", started=timestamp())
        say(f"{output}: {certificate_summary(read_json(output / PARITY_FILE))}")
        return
    if quantize:
        raise UsageError(f"--quantize {quantize} needs --to gguf")
    if to == "peft":
        adapter = export_adapter(folder, output, started=timestamp())
        say(f"{output}: adapters with {adapter.metadata['parameters']:,} parameters")
        return
    manifest = export_weights(folder, output, started=timestamp())
    if HF_TOKENIZER_FILE not in manifest.outputs:
        say(f"{output}: without a tokenizer, since that of {folder} has no form in Hugging Face's layout")
    say(f"{output}: {parity_summary(read_json(output / PARITY_FILE))}")


if __name__ == "__main__":
    main()
