"""A conversation: messages with roles, in an order that a template can write down."""

from dataclasses import dataclass
from typing import Any, Sequence

from lib.artifact.strict_json import loads_copied_json
from lib.errors import MakegptError, nearest

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Message:
    """What one side says. `role`: "system", which sets the tone, "user", who asks, or "assistant", who answers.

    `trained`: whether a model learns it, if it is an answer.
    """

    role: str
    content: str
    trained: bool = True

    @property
    def is_trained(self) -> bool:
        """Whether it is an answer that a model learns."""
        return self.role == "assistant" and self.trained


def parse_messages(value: Any) -> list[Message]:
    """The messages of a JSON list of {"role": …, "content": …}; ValueError says which one is wrong, counted from 1."""
    if not isinstance(value, list) or not value:
        raise ValueError("messages must be a list with at least one message")
    return check_messages([_parse(item, number) for number, item in enumerate(value, 1)])


def _parse(item: Any, number: int) -> Message:
    role, content = (item.get("role"), item.get("content")) if isinstance(item, dict) else (None, None)
    if not isinstance(role, str) or not isinstance(content, str):
        raise ValueError(f'message {number} must be an object with the texts "role" and "content"')
    return Message(role, content)


def check_messages(messages: Sequence[Message]) -> list[Message]:
    """The `messages` themselves: at most one of the system, first; then user and assistant in turn. ValueError for others."""
    expected = "user"
    for number, message in enumerate(messages, 1):
        if message.role not in ROLES:
            raise ValueError(f"message {number} has the role {message.role!r}; {nearest(message.role, ROLES)}")
        if not message.content.strip():
            raise ValueError(f"message {number}, of the {message.role}, is empty")
        if message.role == "system" and number == 1:
            continue
        if message.role != expected:
            raise ValueError(f"message {number} is of the {message.role}, but it is the turn of the {expected}")
        expected = "assistant" if expected == "user" else "user"
    if all(message.role == "system" for message in messages):
        raise ValueError("there is no message of the user")
    return list(messages)


def read_conversation(line: str, place: str) -> tuple[list[Message], dict[str, Any]]:
    """The messages to be answered in a line of JSON, and its other keys.

    A line is a string, the user's message, or an object with "messages", or with a string called "prompt". MakegptError, with
    the `place` of the line, for anything else, and for a conversation that ends with an answer.
    """
    try:
        value = loads_copied_json(line)
        fields = {"prompt": value} if isinstance(value, str) else value
        if not isinstance(fields, dict) or ("prompt" in fields) == ("messages" in fields):
            raise ValueError("either messages or a prompt is needed")
        given = fields.get("messages", [{"role": "user", "content": fields.get("prompt")}])
        messages = parse_messages(given)
        if messages[-1].role == "assistant":
            raise ValueError("the last message is an answer already")
    except (ValueError, RecursionError) as error:
        raise MakegptError(
            f'{place}: {error}; a line must be a JSON string, {{"prompt": "…"}}, or {{"messages": […]}} that ends with the user'
        ) from None
    return messages, fields
