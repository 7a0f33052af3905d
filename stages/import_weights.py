"""A pretrained model to a run: from Hugging Face's layout, or a GGUF file."""

from pathlib import Path

import click

from lib.artifact.provenance import timestamp
from stages.shared.command import Stage
from stages.shared.streams import say


@click.command("import-weights", cls=Stage)
@click.argument("source", type=click.Path(path_type=Path), metavar="SOURCE")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="RUN", help="Run folder to create.")
@click.option(
    "--base",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="SOURCE is a LoRA adapter in PEFT's files: merge it into the model of this run.",
)
def main(source: Path, output: Path, base: Path | None) -> None:
    """Convert the model in SOURCE to a run folder, for generation, evaluation or further training.

    SOURCE is a folder with config.json and safetensors in Hugging Face's layout, a GPT-2, Llama or Qwen3 of any size; or a
    single model.safetensors of one of GPT-2's released sizes. The folder's tokenizer is used if it has one, else GPT-2's.
    A SOURCE that ends in .gguf, or a folder with model.gguf, is llama.cpp's format, of architecture gpt2, llama or qwen3,
    with its tokenizer inside.

    With --base, SOURCE is a folder with adapter_config.json and adapter_model.safetensors. An adapter of another model than
    that of RUN is refused.
    """
    from lib.gguf.convert import find_gguf, import_gguf
    from lib.huggingface.convert import import_weights
    from lib.huggingface.peft_import import import_adapter

    if base:
        merged = import_adapter(source, base, output, started=timestamp())
        say(f"{output}: {merged.metadata['parameters']:,} parameters, those of {base} with the adapter merged")
        return
    file = find_gguf(source)
    manifest = import_gguf(file, output, started=timestamp()) if file else import_weights(source, output, started=timestamp())
    if dropped := manifest.metadata.get("dropped_rows"):
        say(f"{dropped:,} padding rows of the embeddings were dropped; the other logits are the same")
    say(f"{output}: {manifest.metadata['parameters']:,} parameters, {manifest.parameters['model']['vocab_size']:,} tokens")


if __name__ == "__main__":
    main()
