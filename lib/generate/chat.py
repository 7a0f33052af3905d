"""Conversations to prompts: messages written by a template, up to where the answer begins."""

from typing import Any, BinaryIO, Iterator, Sequence

from lib.chat.messages import Message, check_messages, read_conversation
from lib.chat.template import ChatTemplate, encode_segments, special_id
from lib.data.text import read_line
from lib.errors import MakegptError
from lib.generate.request import Prompt
from lib.tokenizer.base import Tokenizer, UnknownText


def encode_messages(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    messages: Sequence[Message],
    line: dict[str, Any] | None = None,
    name: str = "the conversation",
) -> Prompt:
    """The prompt that a model answers after `messages`, the last of which is the user's; its text is that of the last one.

    MakegptError, about `name`, for messages in another order and for text that the vocabulary lacks.
    """
    try:
        check_messages(messages)
        ids, _ = encode_segments(template.segments(messages, answer=True), tokenizer)
    except (ValueError, UnknownText) as error:
        raise MakegptError(f"{name}: {error}") from None
    return Prompt(messages[-1].content, ids, line or {}, special_id(template.end, tokenizer))


def read_conversations(
    file: BinaryIO, tokenizer: Tokenizer, template: ChatTemplate, name: str, first: Sequence[Message] = ()
) -> Iterator[Prompt]:
    """The prompts of a JSON Lines file, one conversation a line as in `read_conversation`; empty lines are skipped.

    `first`: the message of the system for conversations without one. A MakegptError names the line that is wrong.
    """
    for number, line in enumerate(file, 1):
        place = f"{name}, line {number}"
        content = read_line(line, place, first=number == 1)
        if content.strip():
            messages, fields = read_conversation(content, place)
            if messages[0].role != "system":
                messages = [*first, *messages]
            yield encode_messages(tokenizer, template, messages, fields, place)


class Dialog:
    """A conversation that goes on: questions and answers so far, of which the oldest are forgotten when the context is full."""

    def __init__(
        self, tokenizer: Tokenizer, template: ChatTemplate, context_length: int, *, reserve: int, system: str | None = None
    ) -> None:
        """`reserve`: how many tokens of the context are kept for an answer; `system`: the message of the system."""
        self._tokenizer, self._template = tokenizer, template
        self._room = max(1, context_length - reserve)
        self._first = [] if system is None else [Message("system", system)]
        self.forgotten = 0  # messages
        self._messages: list[Message] = []

    def ask(self, question: str) -> Prompt:
        """The prompt of the user's next message. MakegptError if it is empty or alone longer than the context."""
        asked = [*self._messages, Message("user", question)]
        while True:
            prompt = encode_messages(self._tokenizer, self._template, [*self._first, *asked], name="the message")
            if len(prompt.ids) <= self._room:
                break
            if len(asked) == 1:
                raise MakegptError(
                    f"the message takes {len(prompt.ids):,} tokens with its template, and {self._room:,} fit before an answer; "
                    "shorten it, or lower --max-new-tokens"
                )
            asked = asked[2:]
            self.forgotten += 2
        self._messages = asked
        return prompt

    def answered(self, answer: str) -> None:
        """Keep the answer to the last question; an empty one takes the question back."""
        self._messages = [*self._messages, Message("assistant", answer)] if answer.strip() else self._messages[:-1]

    def reset(self) -> None:
        """Begin a new conversation."""
        self._messages, self.forgotten = [], 0
