"""A run and a prompt to new text."""

import json
import sys
from pathlib import Path

import click

from lib import artifact
from lib.config import Config
from stages import device_option, output_file_option, stage, weights_option


@stage("generate", generate=("max_new_tokens", "temperature", "top_k", "seed"))
@click.argument("folder", type=click.Path(path_type=Path), metavar="RUN")
@click.argument("prompt", required=False, metavar="[PROMPT|-]")
@click.option("--echo", is_flag=True, help="Put the prompt before the continuation.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: prompt, text, tokens, logprobs, finish_reason, seed.")
@weights_option
@output_file_option
@device_option
def main(
    folder: Path,
    prompt: str | None,
    echo: bool,
    as_json: bool,
    weights: str,
    output: Path | None,
    device_name: str,
    config: Config,
) -> None:
    """Continue PROMPT with the model of the run folder RUN; - reads the prompt from stdin.

    Without a PROMPT the text begins after a line break. stdout is the continuation only, as it is made.
    """
    from lib import device, generation, run

    if prompt == "-":
        prompt = generation.read_prompt(sys.stdin.buffer)
    elif prompt is None:
        prompt = config.generate.prompt
    chosen = device.choose(device_name)
    trained = run.load(folder, chosen, weights)
    made = generation.Continuation(trained.model, trained.tokenizer, prompt, config.generate, chosen)
    if as_json:
        pieces = iter([json.dumps(made.finished(), ensure_ascii=False) + "\n"])
    else:
        pieces = made.text(echo)
    if output is not None and str(output) != "-":
        artifact.write_text(output, "".join(pieces))
        return
    for piece in pieces:
        sys.stdout.buffer.write(piece.encode("utf-8"))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
