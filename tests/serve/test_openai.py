"""The client that most programs use, the `openai` package, as it is."""

from typing import Any, Iterator

import pytest

from tests.serve.running import Running

openai: Any = pytest.importorskip("openai", reason="openai is not installed: make setup EXTRAS=dev,parity")

ASKED = [{"role": "user", "content": "q"}]


@pytest.fixture(scope="module")
def client(two_models: Running) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{two_models.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_models_are_listed_and_found(client: Any) -> None:
    assert {model.id for model in client.models.list()} == {"run", "chat"}


def test_completions_of_texts_and_of_ids(client: Any) -> None:
    settings = {"model": "run", "max_tokens": 12, "temperature": 0}
    answer = client.completions.create(prompt="be", logprobs=2, **settings)
    assert answer.object == "text_completion"
    assert len(answer.choices[0].logprobs.tokens) == answer.usage.completion_tokens == 12
    for prompt in (list(b"be"), ["be"], [list(b"be")]):
        assert client.completions.create(prompt=prompt, **settings).choices[0].text == answer.choices[0].text
    several = client.completions.create(prompt=["be", "to"], n=2, echo=True, model="run", max_tokens=4, seed=1)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert [choice.text[:2] for choice in several.choices] == ["be", "be", "to", "to"]


def test_completions_in_a_stream(client: Any) -> None:
    settings = {"model": "run", "prompt": "The naïve", "max_tokens": 20, "temperature": 0}
    whole = client.completions.create(**settings)
    chunks = list(client.completions.create(stream=True, stream_options={"include_usage": True}, **settings))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == "length"


def test_chats(client: Any) -> None:
    settings = {"model": "chat", "messages": ASKED, "temperature": 0, "max_completion_tokens": 8}
    answer = client.chat.completions.create(logprobs=True, top_logprobs=3, **settings)
    message = answer.choices[0].message
    assert message.role == "assistant"
    tokens = answer.choices[0].logprobs.content
    assert bytes(byte for token in tokens for byte in token.bytes).decode("utf-8", "replace") == message.content
    assert [len(token.top_logprobs) for token in tokens] == [3] * 8
    chunks = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **settings))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == message.content
    assert chunks[-1].usage == answer.usage


def test_the_package_s_own_accumulator_reads_our_stream(client: Any) -> None:
    settings = {"model": "chat", "messages": ASKED, "temperature": 0, "max_completion_tokens": 8}
    stop = client.chat.completions.create(**settings).choices[0].message.content[3:5]
    with client.chat.completions.stream(stop=stop, **settings) as stream:
        content = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    answer = client.chat.completions.create(stop=stop, **settings)
    assert content == final.choices[0].message.content == answer.choices[0].message.content
    assert final.choices[0].finish_reason == "stop"


def test_errors_are_the_package_s_exceptions(client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="gpt-5", prompt="be")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.completions.create(model="run", prompt="be", temperature=-1)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.BadRequestError, match="context is 32 tokens") as long:
        client.completions.create(model="run", prompt="a" * 40)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        client.chat.completions.create(model="run", messages=ASKED)


def test_a_text_that_nobody_reads_to_its_end_can_be_closed(client: Any) -> None:
    stream = client.completions.create(model="run", prompt="be", max_tokens=1000, stream=True)
    next(iter(stream))
    stream.close()
    assert client.completions.create(model="run", prompt="be", max_tokens=2).choices[0].finish_reason == "length"
