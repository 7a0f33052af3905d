"""A run and a prompt to new text."""

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterator, Sequence

import click

from lib.artifact.files import STDOUT
from lib.artifact.io import write_text
from lib.config.schema import Config
from lib.data.text import check_word, read_line
from lib.errors import MakegptError, UsageError
from stages.shared import terminal, tokens
from stages.shared.command import Stage
from stages.shared.options import check_one_value, config_options, device_option, output_file_option, parameter, text_path
from stages.shared.streams import say
from stages.shared.weights import Weights, weights_option

if TYPE_CHECKING:
    from lib.generate.request import Prompt, Request


_ESCAPE = re.compile(r"\\(?:[nrtabfv0\\]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})")


@click.command("generate", cls=Stage)
@click.argument("folder", type=click.Path(path_type=Path), metavar="RUN")
@click.argument("prompt", required=False, metavar="[PROMPT|-]")
@click.option(
    "--prompts",
    type=text_path,
    metavar="FILE|-",
    help='A line of JSON a prompt: "…", or {"prompt": "…"} with more, which is handed on.',
)
@click.option("--interactive", is_flag=True, help="Ask for one prompt after another.")
@click.option(
    "--from-endoftext", is_flag=True, help="Begin with the token <|endoftext|>, as GPT-2's release does; PROMPT follows."
)
@click.option(
    "--num-samples", type=click.IntRange(1), default=1, show_default=True, help="Texts a prompt, each with the next seed."
)
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be repeated.")
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Texts side by side; what they say stays the same.",
)
@click.option("--strict", is_flag=True, help="Refuse a prompt longer than the model's context, instead of taking its end.")
@click.option("--cache/--no-cache", default=True, show_default=True, help="Remember what was read, or read it anew each time.")
@click.option("--echo", is_flag=True, help="Put the prompt before the continuation.")
@click.option("--explain", is_flag=True, help="Show each token's probability and rank, and the likeliest tokens.")
@click.option(
    "--json", "as_json", is_flag=True, help="A line of JSON a text: prompt, text, tokens, logprobs, finish_reason, seed."
)
@weights_option
@output_file_option
@device_option
@parameter("generate.max_new_tokens")
@parameter("generate.temperature")
@parameter("generate.top_k")
@parameter("generate.top_p")
@parameter("generate.min_p")
@parameter("generate.repetition_penalty")
@parameter("generate.seed")
@config_options()
def main(
    folder: Path,
    prompt: str | None,
    prompts: str | None,
    interactive: bool,
    from_endoftext: bool,
    num_samples: int,
    stop: tuple[str, ...],
    batch_size: int,
    strict: bool,
    cache: bool,
    echo: bool,
    explain: bool,
    as_json: bool,
    weights: Weights,
    output: Path | None,
    device_name: str,
    config: Config,
) -> None:
    """Continue PROMPT with the model of the run folder RUN; - reads the prompt from stdin.

    Without a PROMPT the text begins after a line break, that of an imported GPT-2 after <|endoftext|>. stdout is the
    continuation only, as it is made; of several, each is followed by a line of ---.
    """
    if (prompt is not None) + (prompts is not None) + interactive > 1:
        raise UsageError("give one of PROMPT, --prompts and --interactive")
    if prompt is not None:
        check_one_value("PROMPT", prompt, "generate.prompt")
    if interactive and output is not None:
        raise UsageError("--interactive answers on stdout; leave -o")
    if "" in stop:
        raise UsageError("--stop '' would end every text at once; give at least one character")
    for ending in stop:
        check_word(ending, "--stop")
        if escape := _ESCAPE.search(ending):
            mark, rest = escape[0], escape[0][1:]
            say(f"--stop {ending}: {mark} is a backslash and {rest!r}; in bash $'{mark}' is the character meant")

    # the weights in large pages, which are read faster; torch looks for it at its first allocation
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    from lib.device.hardware import choose_device
    from lib.generate.engine import generate, in_request_order
    from lib.generate.kernel import why_no_kernel
    from lib.generate.quantize import quantize
    from lib.generate.request import encode_prompt, make_requests, read_prompt, read_prompts
    from lib.run.folder import is_gpt2_release, load_run

    output = output or STDOUT
    colored = output == STDOUT and terminal.colored(sys.stdout)
    chosen = choose_device(device_name)
    trained = load_run(folder, chosen, weights.saved)
    made, context = trained.tokenizer, trained.model.context_length
    if not quantize(trained.model, weights.format) and weights.format != "float32":
        reason = why_no_kernel() if chosen.type == "cpu" else f"on {chosen.type}"
        say(f"{reason or 'with its parts written out'}, {weights.format} weights take less memory, but not less time")

    def continued(prompts: Sequence["Prompt"]) -> Iterator[str]:
        """The text that answers, piece by piece."""
        for prompt in prompts:
            _check_length(prompt, context, strict)
        texts = make_requests(made, prompts, config.generate, num_samples, stop=stop, scored=as_json, explained=explain)
        pieces = in_request_order(generate(trained.model, texts, chosen, batch_size=batch_size, cached=cache))
        end = "\n---\n" if len(prompts) * num_samples > 1 else "\n"
        if as_json:
            return _as_json(pieces)
        return _explained(pieces, echo, end, colored) if explain else _as_text(pieces, echo, end)

    def encoded(words: str | None) -> "Prompt":
        """The prompt in `words`; without any an imported GPT-2 begins as its release does."""
        begins = from_endoftext or (not words and is_gpt2_release(folder, made))
        return encode_prompt(made, words, from_endoftext=begins)

    if interactive:
        _converse(lambda line: continued([encoded(line)]))
        return
    if prompts is not None:
        with sys.stdin.buffer if prompts == "-" else open(prompts, "rb") as lines:
            name = "stdin" if prompts == "-" else prompts
            asked = list(read_prompts(lines, made, name, from_endoftext=from_endoftext))
    elif prompt == "-":
        asked = [encoded(read_prompt(sys.stdin.buffer))]
    else:
        asked = [encoded(config.generate.prompt if prompt is None else prompt)]
    write_text(output, continued(asked))


def _converse(continued: Callable[[str], Iterator[str]]) -> None:
    """A line of stdin a prompt, to its end; Ctrl-C ends a text, and between two texts the conversation."""
    first = True
    while True:
        if sys.stdin.isatty():
            click.echo("> ", err=True, nl=False)
        if not (line := sys.stdin.buffer.readline()):
            return
        try:
            write_text(STDOUT, continued(read_line(line, "the prompt", first=first)))
        except KeyboardInterrupt:
            write_text(STDOUT, "\n")
        except MakegptError as error:  # a prompt that cannot be read ends nothing
            click.echo(str(error), err=True)
        first = False


def _check_length(prompt: "Prompt", context: int, strict: bool) -> None:
    """Say that a prompt is longer than what the model sees; MakegptError where that is not wanted."""
    if (length := len(prompt.ids)) <= context:
        return
    which = f"the prompt {prompt.text[:20]!r}…"
    if strict:
        raise MakegptError(f"{which} has {length:,} tokens, the model sees {context:,}; shorten it, or leave --strict")
    say(f"{which} has {length:,} tokens; the model sees the last {context:,} of them")


Pieces = Iterator[tuple["Request", str]]


def _as_json(pieces: Pieces) -> Iterator[str]:
    for text, _ in pieces:
        if text.finish_reason:
            yield json.dumps(text.finished(), ensure_ascii=False) + "\n"


def _as_text(pieces: Pieces, echo: bool, end: str) -> Iterator[str]:
    begins = True
    for text, piece in pieces:
        yield (text.prompt.text if echo and begins else "") + piece
        if begins := text.finish_reason is not None:
            yield end


def _explained(pieces: Pieces, echo: bool, end: str, colored: bool) -> Iterator[str]:
    begins = True
    for text, _ in pieces:
        if begins:
            yield f"{tokens.HEAD}\n"
            shown = 0
        for token in text.analysed[shown:]:
            yield f"{tokens.line(vars(token), colored)}\n"
        shown = len(text.analysed)
        if begins := text.finish_reason is not None:
            yield f"\n{text.prompt.text if echo else ''}{text.text}{end}"


if __name__ == "__main__":
    main()
