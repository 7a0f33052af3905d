"""/v1/chat/completions over a socket: answers, streams, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from lib import Model
from lib.chat.messages import Message
from tests.serve.running import Running
from tests.serve.test_completions import events

PATH = "/v1/chat/completions"
ASKED = [{"role": "user", "content": "q"}]
GREEDY = {"temperature": 0, "max_completion_tokens": 8}


def chat(server: Running, status: int = 200, **body: Any) -> Any:
    return server.post(PATH, {"messages": ASKED} | body, status)


def test_an_answer_is_that_of_generate(chat_server: Running, chat_run: Path) -> None:
    model = Model.from_run(chat_run, device="cpu")
    expected = model.answer("q", temperature=0, max_new_tokens=8, top_k=None)
    answer = chat(chat_server, model="chat", **GREEDY)
    assert answer["object"] == "chat.completion"
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": expected, "refusal": None},
            "logprobs": None,
            "finish_reason": "length",
        }
    ]
    prompt = len(model.encode_messages([Message("user", "q")]).ids)
    assert answer["usage"] == {"prompt_tokens": prompt, "completion_tokens": 8, "total_tokens": prompt + 8}


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": [{"type": "text", "text": "q"}]}],
        [{"role": "user", "content": [{"type": "text", "text": ""}, {"type": "text", "text": "q"}], "name": "Ann"}],
    ],
)
def test_content_may_be_a_list_of_texts(chat_server: Running, messages: Any) -> None:
    assert chat(chat_server, messages=messages, **GREEDY)["choices"] == chat(chat_server, **GREEDY)["choices"]


def test_a_developer_is_the_system(chat_server: Running) -> None:
    answers = [
        chat(chat_server, messages=[{"role": role, "content": "Be kind."}, *ASKED], logprobs=True, **GREEDY)["choices"]
        for role in ("system", "developer")
    ]
    assert answers[0] == answers[1]


def test_without_a_number_the_answer_may_fill_the_context(chat_server: Running) -> None:
    answer = chat(chat_server, temperature=0)
    assert answer["choices"][0]["finish_reason"] in ("length", "stop")
    assert answer["usage"]["total_tokens"] <= 96
    old = chat(chat_server, temperature=0, max_tokens=8)
    assert old["choices"] == chat(chat_server, **GREEDY)["choices"]


def test_a_stream_begins_with_the_role_and_ends_with_the_reason_alone(chat_server: Running) -> None:
    answer = chat(chat_server, **GREEDY)["choices"][0]
    chunks = events(chat_server, PATH, messages=ASKED, stream_options={"include_usage": True}, **GREEDY)
    first, *middle, last, usage = chunks
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"][0] == {
        "index": 0,
        "delta": {"role": "assistant", "content": ""},
        "logprobs": None,
        "finish_reason": None,
    }
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in middle) == answer["message"]["content"]
    assert last["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": answer["finish_reason"]}
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 8)


def test_several_answers_are_told_apart_by_their_index_in_a_stream_too(chat_server: Running) -> None:
    body = {"messages": ASKED, "n": 3, "seed": 1, "max_tokens": 6}
    answers = [choice["message"]["content"] for choice in chat(chat_server, **body)["choices"]]
    chunks = [chunk["choices"][0] for chunk in events(chat_server, PATH, **body)]
    for index, answer in enumerate(answers):
        assert answer == "".join(chunk["delta"].get("content", "") for chunk in chunks if chunk["index"] == index)
    assert len(set(answers)) == 3


def test_log_probabilities_come_with_bytes(chat_server: Running) -> None:
    choice = chat(chat_server, logprobs=True, top_logprobs=2, **GREEDY)["choices"][0]
    content = choice["logprobs"]["content"]
    assert len(content) == 8
    together = bytes(byte for token in content for byte in token["bytes"])
    assert together.decode("utf-8", "replace") == choice["message"]["content"]
    for token in content:
        assert token["top_logprobs"][0] == {name: token[name] for name in ("token", "logprob", "bytes")}
        assert token["top_logprobs"][0]["logprob"] >= token["top_logprobs"][1]["logprob"]
    chunks = events(chat_server, PATH, messages=ASKED, logprobs=True, top_logprobs=2, **GREEDY)
    parts = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    assert [token for part in parts if part for token in part["content"]] == content


@pytest.mark.parametrize(
    ("body", "param", "complaint"),
    [
        ({"messages": None}, "messages", "messages is missing"),
        ({"messages": []}, "messages", "at least one message"),
        ({"messages": "q"}, "messages", "must be a list"),
        ({"messages": ["q"]}, "messages", "message 1 must be an object"),
        ({"messages": [{"role": "user"}]}, "messages", "message 1 must be an object"),
        ({"messages": [{"role": "tool", "content": "q"}]}, "messages", "'tool'"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages", "is empty"),
        ({"messages": [{"role": "user", "content": "\udfff"}]}, "messages", "surrogate"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", "type text"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "messages", "must be a string"),
        ({"messages": [*ASKED, {"role": "assistant", "content": "a"}]}, "messages", "an answer already"),
        ({"messages": [*ASKED, *ASKED]}, "messages", "turn of the assistant"),
        ({"messages": [{"role": "user", "content": "long " * 40}]}, "messages", "context is 96 tokens"),
        ({"tools": [{"type": "function"}]}, "tools", "call no functions"),
        ({"response_format": {"type": "json_object"}}, "response_format", "answers are text"),
        ({"top_logprobs": 2}, "top_logprobs", "logprobs"),
        ({"logprobs": 2}, "logprobs", "true or false"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "between 0 and 20"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "between 1 and"),
        ({"max_tokens": 10**20}, "max_tokens", "between 1 and"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(chat_server: Running, body: Any, param: str, complaint: str) -> None:
    error = chat(chat_server, 400, **body)["error"]
    assert error["param"] == param
    assert complaint in error["message"]


def test_neutral_values_of_unsupported_fields_are_accepted(chat_server: Running) -> None:
    neutral = {"tools": [], "response_format": {"type": "text"}, "logit_bias": {}, "presence_penalty": 0, "n": None}
    assert chat(chat_server, **neutral, **GREEDY)["choices"] == chat(chat_server, **GREEDY)["choices"]


def test_a_model_without_a_template_says_what_to_do(server: Running) -> None:
    error = chat(server, 400)["error"]
    assert "no chat template; use /v1/completions" in error["message"]
    assert error["param"] == "model"
