"""Preferences to learn from: a question and two answers, of which people chose one, in the shapes that TRL documents.

{"prompt": "…", "chosen": "…", "rejected": "…"}                   texts without a template
{"prompt": [messages], "chosen": [messages], "rejected": …}       conversations
{"chosen": [messages], "rejected": [messages]}                    the same with an implicit prompt: what both begin with
{"instruction": "…", "input": "…", "chosen": "…", "rejected": …}  Alpaca's, with two answers
"""

from dataclasses import replace
from itertools import takewhile
from typing import Any, NamedTuple

from lib.chat.examples import alpaca_messages, learned, text_segments
from lib.chat.messages import Message, parse_messages
from lib.chat.template import ChatTemplate, Segment


class PairSegments(NamedTuple):
    """Two texts that begin alike: of each, the answer is learned."""

    chosen: list[Segment]
    rejected: list[Segment]


def is_pair(value: Any) -> bool:
    """Whether an example compares two answers."""
    return isinstance(value, dict) and ("chosen" in value or "rejected" in value)


def pair_segments(value: dict[str, Any], template: ChatTemplate, format: str = "messages") -> PairSegments:
    """What a model sees of a pair; `format` as in `example_segments`.

    ValueError, with the reason, if the pair has none of the shapes above, or an answer is empty.
    """
    missing = next((key for key in ("chosen", "rejected") if key not in value), None)
    if missing:
        raise ValueError(f'a pair has "chosen" and "rejected"; "{missing}" is missing')
    chosen, rejected = value["chosen"], value["rejected"]
    if format == "alpaca":
        return PairSegments(*(learned(template.segments(alpaca_messages(value, key))) for key in ("chosen", "rejected")))
    if isinstance(chosen, str) and isinstance(rejected, str):
        prompt = value["prompt"] if "prompt" in value else _common_text(chosen, rejected)
        if not isinstance(prompt, str):
            raise ValueError('"prompt" must be a text, as "chosen" and "rejected" are')
        start = 0 if "prompt" in value else len(prompt)
        return PairSegments(*(learned(text_segments(prompt, answer[start:], template)) for answer in (chosen, rejected)))
    if isinstance(chosen, list) and isinstance(rejected, list):
        return _of_messages(value.get("prompt"), chosen, rejected, template)
    raise ValueError('"chosen" and "rejected" must be two texts or two lists of messages')


def _of_messages(prompt: Any, chosen: list[Any], rejected: list[Any], template: ChatTemplate) -> PairSegments:
    if prompt is None:
        pairs = zip(chosen, rejected, strict=False)
        prompt = [message for message, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
        prompt = prompt[: _last_question(prompt)]
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    if not isinstance(prompt, list):
        raise ValueError('"prompt" must be a list of messages, as "chosen" and "rejected" are')

    def segments(answer: list[Any]) -> list[Segment]:
        messages: list[Message] = parse_messages([*prompt, *answer])
        context = [replace(message, trained=False) for message in messages[: len(prompt)]]
        return learned(template.segments([*context, *messages[len(prompt) :]]))

    return PairSegments(segments(chosen), segments(rejected))


def _last_question(messages: list[Any]) -> int:
    """How many `messages` there are up to the last one of the user: an answer that is common to both is still an answer."""
    roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
    return len(roles) - roles[::-1].index("user") if "user" in roles else 0


def _common_text(chosen: str, rejected: str) -> str:
    """The words that both texts begin with, up to the last blank: the word after it may be cut differently into tokens."""
    pairs = zip(chosen, rejected, strict=False)
    common = "".join(letter for letter, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return common[: max(0, common.rfind(" "))]
