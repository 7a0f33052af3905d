"""Run and prompt to text."""

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator, Sequence

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


_AHEAD = 4  # tokens that a draft proposes


@click.command("generate", cls=Stage)
@click.argument("folder", type=click.Path(path_type=Path), metavar="RUN")
@click.argument("prompt", required=False, metavar="[PROMPT|-]")
@click.option(
    "--prompts",
    type=text_path,
    metavar="FILE|-",
    help='JSON Lines, one prompt per line: "…", {"prompt": "…"}, or with --chat {"messages": […]}; extra keys are copied.',
)
@click.option("--interactive", is_flag=True, help="Read prompts line by line and answer each.")
@click.option(
    "--chat", is_flag=True, help="PROMPT is a message to be answered; without any, a conversation (/reset: a new one)."
)
@click.option("--system", metavar="TEXT", help="With --chat: the message of the system  [default: the template's]")
@click.option("--from-endoftext", is_flag=True, help="Put the token <|endoftext|> before the prompt, as GPT-2's release does.")
@click.option(
    "--num-samples", type=click.IntRange(1), default=1, show_default=True, help="Samples per prompt, each with the next seed."
)
@click.option("--stop", multiple=True, metavar="TEXT", help="Stop before this text; may be repeated.")
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Batch size; does not change the output.",
)
@click.option("--strict", is_flag=True, help="Refuse a prompt longer than the context instead of keeping its end.")
@click.option(
    "--draft",
    "draft_folder",
    type=click.Path(path_type=Path),
    metavar="SMALL",
    help="Speculative decoding: the run SMALL, its published weights, proposes tokens that RUN checks, text by text.",
)
@click.option(
    "--ahead", type=click.IntRange(1), metavar="N", help=f"With --draft: tokens proposed at a time.  [default: {_AHEAD}]"
)
@click.option("--cache/--no-cache", default=True, show_default=True, help="Use a KV cache.")
@click.option("--echo", is_flag=True, help="Print the prompt before the continuation.")
@click.option("--explain", is_flag=True, help="Show each token's probability and rank, and the most likely tokens.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="JSON Lines, one text per line: prompt, text, tokens, logprobs, finish_reason, seed.",
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
    chat: bool,
    system: str | None,
    from_endoftext: bool,
    num_samples: int,
    stop: tuple[str, ...],
    batch_size: int,
    strict: bool,
    draft_folder: Path | None,
    ahead: int | None,
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

    Without a PROMPT the text begins after a line break, or after <|endoftext|> for an imported GPT-2. stdout receives the
    continuation only, token by token; if there are several, each is followed by a line of ---.

    An encoder-decoder reads PROMPT as its source, and writes the target.

    With --chat the model answers PROMPT instead. It has to know conversations, as SmolLM2 does (`make demo`).
    """
    if (prompt is not None) + (prompts is not None) + interactive > 1:
        raise UsageError("give one of PROMPT, --prompts and --interactive")
    if prompt is not None:
        check_one_value("PROMPT", prompt, "generate.prompt")
    interactive = interactive or (chat and prompt is None and prompts is None and config.generate.prompt is None)
    if interactive and output is not None:
        raise UsageError("a conversation and --interactive write to stdout; leave -o")
    if chat and from_endoftext:
        raise UsageError("--from-endoftext is for texts; with --chat the template begins the text")
    if system is not None and not chat:
        raise UsageError("--system goes with --chat")
    if draft_folder is not None and not cache:
        raise UsageError("--draft needs the KV cache; leave --no-cache")
    if draft_folder is None and ahead is not None:
        raise UsageError("--ahead goes with --draft")
    if "" in stop:
        raise UsageError("--stop '' ends every text at once; give at least one character")
    for ending in stop:
        check_word(ending, "--stop")
        if escape := _ESCAPE.search(ending):
            mark, rest = escape[0], escape[0][1:]
            say(f"--stop {ending}: {mark} is a backslash and {rest!r}; for the character itself, write $'{mark}' in bash")

    # large pages for the weights, which are read faster; torch reads this at its first allocation
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    from lib.api import Model
    from lib.chat.messages import Message
    from lib.generate.chat import read_conversations
    from lib.generate.request import in_request_order, make_requests, read_prompt, read_prompts, stream_text
    from lib.generate.speculative import Speculation, stream_speculatively

    output = output or STDOUT
    colored = output == STDOUT and terminal.colored(sys.stdout)
    model = Model.from_run(folder, checkpoint=weights.saved, weights=weights.format, device=device_name)
    if notice := model.kernel_notice():
        say(notice)
    draft = None if draft_folder is None else Model.from_run(draft_folder, weights=weights.format, device=device_name)
    if draft is not None:
        model.check_draft(draft)
    speculation = Speculation()

    def requests_for(prompts: Sequence["Prompt"]) -> list["Request"]:
        for prompt in prompts:
            _check_length(prompt, model.config.context_length, strict or chat)
        settings: dict[str, Any] = {"stop": stop, "logprobs": as_json, "explain": explain}
        return list(make_requests(model.tokenizer, prompts, config.generate, num_samples, **settings))

    def output_of(requests: Sequence["Request"]) -> Iterator[str]:
        """The output for all `requests`, piece by piece."""
        if draft is None:
            pieces = stream_text(model.network, requests, model.device, batch_size=batch_size, cached=cache)
        else:
            pieces = stream_speculatively(
                model.network, draft.network, requests, model.device, ahead=ahead or _AHEAD, counted=speculation
            )
        pieces = in_request_order(pieces)
        end = "\n---\n" if len(requests) > 1 else "\n"
        if as_json:
            return _as_json(pieces)
        return _explained(pieces, echo, end, colored) if explain else _as_text(pieces, echo, end)

    first = [] if system is None else [Message("system", check_word(system, "--system"))]

    def encode(text: str | None) -> "Prompt":
        if chat:
            return model.encode_messages([*first, Message("user", text or "")], name="the message")
        return model.encode_prompt(text, from_endoftext=from_endoftext)

    if interactive and chat:
        dialog = model.dialog(reserve=config.generate.max_new_tokens, system=system)

        def reply(line: str) -> Iterator[str]:
            if line.strip() == "/reset":
                dialog.reset()
                return
            requests = requests_for([dialog.ask(line)])
            try:
                yield from output_of(requests)
            finally:  # interrupted as well
                dialog.answered(requests[0].text)

        _converse(reply)
        return
    if interactive:
        _converse(lambda line: output_of(requests_for([encode(line)])))
        return
    if prompts is not None:
        with sys.stdin.buffer if prompts == "-" else open(prompts, "rb") as file:
            name = "stdin" if prompts == "-" else prompts
            if chat:
                encoded = list(read_conversations(file, model.tokenizer, model.chat_template, name, first))
            else:
                settings = {"from_endoftext": from_endoftext, "is_source": model.config.has_encoder}
                encoded = list(read_prompts(file, model.tokenizer, name, **settings))
    elif prompt == "-":
        encoded = [encode(read_prompt(sys.stdin.buffer))]
    else:
        encoded = [encode(config.generate.prompt if prompt is None else prompt)]
    write_text(output, output_of(requests_for(encoded)))
    if speculation.proposed:
        say(f"{speculation.accepted:,} of {speculation.proposed:,} proposed tokens were accepted")


def _converse(answer: Callable[[str], Iterator[str]]) -> None:
    """Answer each line of stdin; Ctrl-C ends the text, or the conversation between two texts."""
    first = True
    while True:
        if sys.stdin.isatty():
            click.echo("> ", err=True, nl=False)
        if not (line := sys.stdin.buffer.readline()):
            return
        try:
            write_text(STDOUT, answer(read_line(line, "the prompt", first=first)))
        except KeyboardInterrupt:
            write_text(STDOUT, "\n")
        except MakegptError as error:  # an invalid prompt does not end the conversation
            click.echo(str(error), err=True)
        first = False


def _check_length(prompt: "Prompt", context_length: int, strict: bool) -> None:
    """Say that a prompt is longer than the context; MakegptError with --strict."""
    if (length := len(prompt.source or prompt.ids)) <= context_length:
        return
    subject = f"the prompt {prompt.text[:20]!r}…"
    if prompt.source:
        raise MakegptError(
            f"{subject} has {length:,} tokens, and the model reads sources of at most {context_length:,}; shorten it"
        )
    if strict:
        raise MakegptError(f"{subject} has {length:,} tokens, the model sees {context_length:,}; shorten it, or leave --strict")
    say(f"{subject} has {length:,} tokens; the model sees the last {context_length:,} of them")


StreamedText = Iterator[tuple["Request", str]]


def _as_json(pieces: StreamedText) -> Iterator[str]:
    for request, _ in pieces:
        if request.finish_reason:
            yield json.dumps(request.to_json(), ensure_ascii=False) + "\n"


def _as_text(pieces: StreamedText, echo: bool, end: str) -> Iterator[str]:
    is_first = True
    for request, piece in pieces:
        yield (request.prompt.text if echo and is_first else "") + piece
        if is_first := request.finish_reason is not None:
            yield end


def _explained(pieces: StreamedText, echo: bool, end: str, colored: bool) -> Iterator[str]:
    is_first = True
    for request, _ in pieces:
        if is_first:
            yield f"{tokens.HEAD}\n"
            printed = 0
        for score in request.token_scores[printed:]:
            yield f"{tokens.line(vars(score), colored)}\n"
        printed = len(request.token_scores)
        if is_first := request.finish_reason is not None:
            yield f"\n{request.prompt.text if echo else ''}{request.text}{end}"


if __name__ == "__main__":
    main()
