"""Examples to learn from: a JSON object each, in the shapes that TRL documents, or in Alpaca's, as segments of a template.

{"messages": [{"role": …, "content": …}, …]}       a conversation; its answers are learned
{"prompt": [messages], "completion": [messages]}   one of which the completion's answers are learned
{"prompt": "…", "completion": "…"}                 a text without a template, of which the completion is learned
{"text": "…"}                                      a text that is learned whole
{"instruction": "…", "input": "…", "output": "…"}  Alpaca's: a question, maybe with a text it is about, and the answer
"""

import json
from dataclasses import replace
from itertools import chain
from typing import Any, Iterable, Iterator

from lib.chat.messages import Message, parse_messages
from lib.chat.template import ChatTemplate, Segment
from lib.errors import MakegptError

FORMATS = ("messages", "alpaca")


def read_examples(pieces: Iterable[str], name: str) -> Iterator[tuple[str, Any]]:
    """The JSON values of a file, JSON Lines or one list, whose text comes in `pieces`; each with its place, for messages.

    Empty lines are skipped. MakegptError, with the place, for what is not JSON.
    """
    lines = ((number, line) for number, line in enumerate(read_text_lines(pieces), 1) if line.strip())
    first = next(lines, None)
    if first is None:
        return
    if first[1].lstrip().startswith("["):
        values = _parse("".join([first[1], *(line for _, line in lines)]), name)
        yield from ((f"{name}, example {number}", value) for number, value in enumerate(values, 1))
        return
    for number, line in chain([first], lines):
        yield f"{name}, line {number}", _parse(line, f"{name}, line {number}")


def read_text_lines(pieces: Iterable[str]) -> Iterator[str]:
    """The lines of a text in `pieces`, each with its line break. Only LF and CR LF end a line: JSON may hold the others."""
    rest: list[str] = []
    for piece in pieces:
        *whole, last = piece.split("\n")
        for line in whole:
            yield "".join([*rest, line, "\n"])
            rest = []
        rest.append(last)
    yield "".join(rest)


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MakegptError(f"{place}: not valid JSON: {error}") from None


def example_segments(value: Any, template: ChatTemplate, format: str = "messages") -> list[Segment]:
    """What a model sees and learns of one example. `format`: "alpaca" for Alpaca's shape, else the others.

    ValueError, with the reason, if the example has none of these shapes, or nothing that is learned.
    """
    if not isinstance(value, dict):
        raise ValueError("an example must be a JSON object")
    if format == "alpaca":
        return learned(template.segments(alpaca_messages(value)))
    if isinstance(text := value.get("text"), str):
        return learned(text_segments("", text, template))
    prompt, completion = value.get("prompt"), value.get("completion")
    if isinstance(prompt, str) and isinstance(completion, str):
        if not prompt:
            raise ValueError('all of it is learned: its prompt is empty; a text that is learned whole is {"text": …}')
        return learned(text_segments(prompt, completion, template))
    if isinstance(prompt, list) and isinstance(completion, list):
        messages = parse_messages([*prompt, *completion])
        context = [replace(message, trained=False) for message in messages[: len(prompt)]]
        return learned(template.segments([*context, *messages[len(prompt) :]]))
    if "messages" in value:
        return learned(template.segments(parse_messages(value["messages"])))
    raise ValueError('an example has "messages", "prompt" and "completion", or "text"; for Alpaca\'s shape use --format alpaca')


def text_segments(prompt: str, completion: str, template: ChatTemplate) -> list[Segment]:
    """A text without a template: of `prompt` and `completion` the latter is learned, and that the text then ends."""
    begin = [Segment(prompt)] if prompt else []
    end = Segment(template.end, special=True, trained=True)
    return [*begin, Segment(completion, trained=bool(completion.strip())), end]


def alpaca_messages(value: dict[str, Any], answer: str = "output") -> list[Message]:
    """Question and answer of an example of Alpaca's shape; `answer`: the key that has it."""
    parts = [value.get("instruction"), value.get("input", ""), value.get(answer)]
    instruction, about, output = parts
    if not isinstance(instruction, str) or not isinstance(about, str) or not isinstance(output, str):
        raise ValueError(f'an example of Alpaca\'s shape has the texts "instruction", "input" and "{answer}"')
    question = f"{instruction}\n\n### Input:\n{about}" if about.strip() else instruction
    return parse_messages([{"role": "user", "content": question}, {"role": "assistant", "content": output}])


def learned(segments: list[Segment]) -> list[Segment]:
    """The `segments` themselves; ValueError if nothing of them is learned."""
    if not any(segment.trained and not segment.special for segment in segments):
        raise ValueError("nothing is learned of it: it has no answer of the assistant")
    return segments
