"""Messages as JSON: the order of a conversation, and what is refused."""

import re

import pytest

from lib.chat.messages import Message, parse_messages, read_conversation
from lib.errors import MakegptError

USER, ASSISTANT, SYSTEM = ({"role": role, "content": "x"} for role in ("user", "assistant", "system"))


@pytest.mark.parametrize(
    "messages", [[USER], [SYSTEM, USER], [USER, ASSISTANT], [SYSTEM, USER, ASSISTANT, USER, ASSISTANT, USER]]
)
def test_user_and_assistant_take_turns_after_the_system(messages: list[dict[str, str]]) -> None:
    assert parse_messages(messages) == [Message(message["role"], "x") for message in messages]


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([], "at least one message"),
        ("Hi", "must be a list"),
        (["Hi"], 'message 1 must be an object with the texts "role" and "content"'),
        ([{"role": "user"}], "message 1 must be an object"),
        ([{"role": "user", "content": 1}], "message 1 must be an object"),
        ([{"role": "uesr", "content": "x"}], "message 1 has the role 'uesr'; did you mean 'user'?"),
        ([USER, {"role": "assistant", "content": " \n"}], "message 2, of the assistant, is empty"),
        ([USER, USER], "message 2 is of the user, but it is the turn of the assistant"),
        ([ASSISTANT], "message 1 is of the assistant, but it is the turn of the user"),
        ([USER, SYSTEM], "message 2 is of the system"),
        ([SYSTEM, SYSTEM, USER], "message 2 is of the system"),
        ([SYSTEM], "no message of the user"),
    ],
)
def test_another_order_is_refused(messages: object, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        parse_messages(messages)


@pytest.mark.parametrize(
    "line", ['"Hi"', '{"prompt": "Hi", "id": 7}', '{"messages": [{"role": "user", "content": "Hi"}], "id": 7}']
)
def test_a_line_is_a_message_or_a_conversation(line: str) -> None:
    messages, fields = read_conversation(line, "line 1")
    assert messages == [Message("user", "Hi")]
    assert fields.get("id", 7) == 7


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "Expecting property name"),
        ("[]", "messages or a prompt is needed"),
        ("{}", "messages or a prompt is needed"),
        ('{"prompt": "Hi", "messages": []}', "messages or a prompt is needed"),
        ('{"prompt": 1}', "message 1 must be an object"),
        ('""', "message 1, of the user, is empty"),
        ('"\\ud800"', "surrogates not allowed"),
        ('{"prompt": "Hi", "n": NaN}', "NaN is not JSON"),
        ('{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "x"}]}', "is an answer already"),
        ("[" * 100_000, "line 4"),
    ],
)
def test_another_line_is_refused_with_its_place(line: str, problem: str) -> None:
    with pytest.raises(MakegptError) as error:
        read_conversation(line, "line 4")
    assert str(error.value).startswith("line 4: ")
    assert problem in str(error.value)
