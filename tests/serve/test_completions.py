"""/v1/completions over a socket: prompts of every form, echoes, scores, streams, and what is refused."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lib import Model
from lib.serve.logprobs import spelling
from tests.conftest import Stage
from tests.serve.running import Running

GREEDY = {"temperature": 0, "max_tokens": 12}
#: A bytes model, which is asked to begin with half of these characters.
EURO = list("€".encode())


def complete(server: Running, status: int = 200, **body: Any) -> Any:
    return server.post("/v1/completions", body, status)


def events(server: Running, path: str, **body: Any) -> list[Any]:
    """The objects of a stream, which must end with [DONE]."""
    response, content = server.ask("POST", path, body | {"stream": True})
    assert response.status == 200, content
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    *lines, done, end = content.decode("utf-8").split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def stream(server: Running, **body: Any) -> list[Any]:
    return events(server, "/v1/completions", **body)


def text_of(chunks: list[Any], index: int = 0) -> str:
    return "".join(choice["text"] for chunk in chunks for choice in chunk["choices"] if choice["index"] == index)


def unspelled(token: str) -> bytes:
    """The bytes of a token as /v1/completions spells it."""
    if token.startswith("bytes:"):
        return bytes.fromhex(token.removeprefix("bytes:").replace("\\x", ""))
    return token.encode()


@pytest.fixture(scope="module")
def model(small: Path) -> Model:
    return Model.from_run(small / "run", device="cpu")


def test_a_completion_is_what_generate_writes(server: Running, model: Model) -> None:
    answer = complete(server, model="run", prompt="The naïve", **GREEDY)
    assert answer["object"] == "text_completion"
    assert answer["model"] == "run"
    assert answer["id"].startswith("cmpl-")
    assert answer["choices"] == [
        {
            "text": model.generate("The naïve", temperature=0, max_new_tokens=12, top_k=None),
            "index": 0,
            "logprobs": None,
            "finish_reason": "length",
        }
    ]
    assert answer["usage"] == {"prompt_tokens": 10, "completion_tokens": 12, "total_tokens": 22}
    assert complete(server, prompt="The naïve", **GREEDY)["id"] != answer["id"]


def test_sampling_is_that_of_generate_with_the_same_seed(server: Running, model: Model) -> None:
    sampling = {"temperature": 0.9, "top_k": 20, "top_p": 0.95, "min_p": 0.01, "repetition_penalty": 1.1, "seed": 7}
    answer = complete(server, prompt="be", max_tokens=20, **sampling)
    assert answer["choices"][0]["text"] == model.generate("be", max_new_tokens=20, **sampling)
    assert answer["seed"] == 7


def test_a_random_seed_is_reported_and_repeats_the_text(server: Running) -> None:
    answer = complete(server, prompt="be", max_tokens=20)
    again = complete(server, prompt="be", max_tokens=20, seed=answer["seed"])
    assert again["choices"] == answer["choices"]
    assert again["system_fingerprint"] == answer["system_fingerprint"]
    assert complete(server, prompt="be", max_tokens=20)["seed"] != answer["seed"]


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("be", ["be"]),
        (["be", "to"], ["be", "to"]),
        (list(b"be"), ["be"]),
        ([list(b"be"), list(b"to")], ["be", "to"]),
        ([list(b"be"), "to"], ["be", "to"]),
        ("", [""]),
    ],
)
def test_prompts_are_texts_and_ids_alone_and_in_lists(server: Running, model: Model, prompt: Any, texts: list[str]) -> None:
    answer = complete(server, prompt=prompt, **GREEDY)
    expected = model.generate(texts, temperature=0, max_new_tokens=12, top_k=None)
    assert [choice["text"] for choice in answer["choices"]] == expected
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(texts)))


def test_n_texts_of_each_prompt_have_seeds_in_a_row(server: Running, model: Model) -> None:
    answer = complete(server, prompt=["be", "to"], n=2, best_of=2, max_tokens=8, seed=3)
    sampling = {"temperature": 1.0, "top_k": None, "max_new_tokens": 8}
    expected = [model.generate(prompt, seed=seed, **sampling) for prompt in ("be", "to") for seed in (3, 4)]
    assert [choice["text"] for choice in answer["choices"]] == expected
    assert answer["usage"] == {"prompt_tokens": 4, "completion_tokens": 32, "total_tokens": 36}


def test_a_text_ends_before_a_stop_text_that_tokens_share(server: Running) -> None:
    whole = complete(server, prompt="The naïve", temperature=0, max_tokens=20)["choices"][0]["text"]
    stop = whole[3:7]  # four tokens of the bytes model
    for choice in (
        complete(server, prompt="The naïve", temperature=0, max_tokens=20, stop=stop)["choices"][0],
        complete(server, prompt="The naïve", temperature=0, max_tokens=20, stop=["\x00", stop])["choices"][0],
    ):
        assert choice["text"] == whole[: whole.index(stop)]
        assert choice["finish_reason"] == "stop"
    chunks = stream(server, prompt="The naïve", temperature=0, max_tokens=20, stop=stop)
    assert text_of(chunks) == whole[: whole.index(stop)]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_stream_has_the_same_text_in_whole_characters(server: Running) -> None:
    body = {"prompt": "5 ", "temperature": 0, "max_tokens": 24}
    whole = complete(server, **body)["choices"][0]
    chunks = stream(server, **body)
    assert text_of(chunks) == whole["text"]
    assert "—" in text_of(chunks), "a character of three tokens"
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert all("usage" not in chunk for chunk in chunks)


def test_ids_that_end_inside_a_character_are_continued_by_the_whole_one(server: Running) -> None:
    for echo in (False, True):
        answer = complete(server, prompt=[97, *EURO[:2]], echo=echo, logprobs=0, temperature=0, max_tokens=24)
        choice = answer["choices"][0]
        assert choice["text"].startswith("a" if echo else "")
        spelled = choice["logprobs"]["tokens"]
        content = b"".join(map(unspelled, spelled))
        held = b"" if echo else bytes(EURO[:2])
        assert choice["text"] == (held + content).decode("utf-8", "replace")
    body = {"prompt": [97, *EURO[:2]], "temperature": 0, "max_tokens": 24}
    assert text_of(stream(server, **body)) == complete(server, **body)["choices"][0]["text"]


def test_several_texts_of_a_stream_are_told_apart_by_their_index(server: Running) -> None:
    body = {"prompt": ["be", "to"], "n": 2, "max_tokens": 8, "seed": 3}
    chunks = stream(server, **body)
    texts = [choice["text"] for choice in complete(server, **body)["choices"]]
    assert [text_of(chunks, index) for index in range(4)] == texts


def test_the_usage_comes_last_and_without_choices(server: Running) -> None:
    *chunks, last = stream(server, prompt="be", stream_options={"include_usage": True}, **GREEDY)
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 2, "completion_tokens": 12, "total_tokens": 14}


def test_log_probabilities_are_those_of_generate_to_the_last_bit(server: Running, small: Path, stage: Stage) -> None:
    words = ("generate", small / "run", "The naïve", "--json", "--max-new-tokens", 12, "--temperature", 0)
    expected = json.loads(stage(*words).stdout)
    choice = complete(server, prompt="The naïve", logprobs=3, **GREEDY)["choices"][0]
    logprobs = choice["logprobs"]
    assert logprobs["token_logprobs"] == expected["logprobs"]
    assert logprobs["tokens"] == [spelling(bytes([id])) for id in expected["tokens"]]
    for token, logprob, top in zip(*(logprobs[name] for name in ("tokens", "token_logprobs", "top_logprobs")), strict=True):
        assert len(top) == 3
        assert top[token] == logprob == max(top.values())
    assert len(choice["text"][: logprobs["text_offset"][-1]].encode()) <= 11
    streamed = [chunk["choices"][0]["logprobs"] for chunk in stream(server, prompt="The naïve", logprobs=3, **GREEDY)]
    for name, values in logprobs.items():
        assert [value for part in streamed for value in part[name]] == values


def test_an_echo_has_the_prompt_and_its_scores(server: Running, small: Path, stage: Stage) -> None:
    text = "The naïve café — to be, or not to be — costs 5 €."  # longer than the context of 32
    scores = stage("evaluate", small / "run", "-", "--per-token", input=text).stdout.splitlines()
    expected = [json.loads(line)["logprob"] for line in scores]
    for prompt in (text, list(text.encode())):
        choice = complete(server, prompt=prompt, echo=True, logprobs=1, max_tokens=0)["choices"][0]
        assert choice["text"] == text
        assert choice["finish_reason"] == "length"
        logprobs = choice["logprobs"]
        assert logprobs["token_logprobs"] == [None, *expected]
        assert logprobs["top_logprobs"][0] is None
        assert logprobs["text_offset"][:7] == [0, 1, 2, 3, 4, 5, 6]
        assert "".join(text[offset] for offset in sorted(set(logprobs["text_offset"]))) == text


def test_an_echo_without_scores_is_the_prompt_and_the_text(server: Running) -> None:
    text = complete(server, prompt="be", **GREEDY)["choices"][0]["text"]
    assert complete(server, prompt="be", echo=True, **GREEDY)["choices"][0]["text"] == f"be{text}"
    chunks = stream(server, prompt="be", echo=True, **GREEDY)
    assert text_of(chunks) == f"be{text}"
    assert complete(server, prompt="be", max_tokens=0)["choices"][0]["text"] == ""


def test_the_generated_token_stands_after_an_echo_even_if_it_ends_the_text(chat_server: Running) -> None:
    any_token = {"temperature": 1e6, "max_tokens": 1, "n": 64}
    for seed in range(0, 6400, 64):
        answer = complete(chat_server, prompt="q", echo=True, logprobs=1, seed=seed, **any_token)
        for choice in answer["choices"]:
            assert len(choice["logprobs"]["tokens"]) == 2
            if choice["finish_reason"] == "stop":
                assert choice["logprobs"]["tokens"] == ["q", "<|endoftext|>"]
                assert "<|endoftext|>" in choice["logprobs"]["top_logprobs"][1]
                assert choice["text"] == "q"
                assert answer["usage"]["completion_tokens"] == 64
                return
    pytest.fail("of 6,400 tokens none was the end of the text")


def test_each_token_is_explained_for_the_page(server: Running) -> None:
    chunks = stream(server, prompt=list(b"5 "), explain=True, logprobs=5, temperature=0, max_tokens=24)
    explained = [chunk["choices"][0]["makegpt"] for chunk in chunks if "makegpt" in chunk["choices"][0]]
    assert len(explained) == 24, "one chunk per token, whole character or not"
    assert bytes(byte for token in explained for byte in token["bytes"]).decode("utf-8", "replace") == text_of(chunks)
    for token in explained:
        assert token["rank"] == 1
        assert token["alternatives"][0]["id"] == token["id"]
        assert len(token["alternatives"]) == 5
        assert token["end_of_text"] is False


@pytest.mark.parametrize(
    ("body", "param", "complaint"),
    [
        ({}, "prompt", "prompt is missing"),
        ({"prompt": []}, "prompt", "prompt is missing"),
        ({"prompt": [[]]}, "prompt", "at least one"),
        ({"prompt": [256]}, "prompt", "the token id 256; the model's ids are 0 to 255"),
        ({"prompt": [-1]}, "prompt", "-1"),
        ({"prompt": [1.5]}, "prompt", "1.5 must be a text or a list of token ids"),
        ({"prompt": [True]}, "prompt", "true must be a text"),
        ({"prompt": {"text": "be"}}, "prompt", "must be a text"),
        ({"prompt": [1, [2]]}, "prompt", "must be a list of token ids"),
        ({"prompt": ["be", None]}, "prompt", "null must be a text"),
        ({"prompt": "\ud800"}, "prompt", "surrogate"),
        ({"prompt": "be", "max_tokens": -1}, "max_tokens", "between 0 and 4,096"),
        ({"prompt": "be", "max_tokens": 10**30}, "max_tokens", "between 0 and 4,096"),
        ({"prompt": "be", "max_tokens": True}, "max_tokens", "true must be an integer"),
        ({"prompt": "be", "temperature": -1}, "temperature", "between 0 and"),
        ({"prompt": "be", "temperature": "hot"}, "temperature", "must be a number"),
        ({"prompt": "be", "n": 0}, "n", "between 1 and"),
        ({"prompt": ["be"] * 60, "n": 2}, "n", "120 texts"),
        ({"prompt": "be", "logprobs": 21}, "logprobs", "between 0 and 20"),
        ({"prompt": "be", "logprobs": 20, "n": 60, "max_tokens": 4000}, "logprobs", "are too many"),
        ({"prompt": "be", "stop": ""}, "stop", "empty text"),
        ({"prompt": "be", "best_of": 2}, "best_of", "not supported"),
        ({"prompt": "be", "suffix": "."}, "suffix", "not supported"),
        ({"prompt": "be", "logit_bias": {"1": 2}}, "logit_bias", "not supported"),
        ({"prompt": "be", "presence_penalty": 0.5}, "presence_penalty", "repetition_penalty"),
        ({"prompt": "be", "stream_options": {"include_usage": True}}, "stream_options", "stream"),
        ({"prompt": "be", "stream": "yes"}, "stream", "true or false"),
        ({"prompt": "a" * 33}, "prompt", "33 tokens and max_tokens is 16, but the model's context is 32 tokens"),
        ({"prompt": "a" * 33, "echo": True, "logprobs": 1, "max_tokens": 2}, "prompt", "context is 32 tokens"),
        ({"prompt": "be", "model": 1}, "model", "must be a string"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(server: Running, body: Any, param: str, complaint: str) -> None:
    error = server.post("/v1/completions", body, 400)["error"]
    assert error["param"] == param
    assert complaint in error["message"]
    assert error["type"] == "invalid_request_error"


def test_an_unknown_model_is_404_with_the_known_names(server: Running, two_models: Running) -> None:
    error = complete(server, 404, model="gpt-5", prompt="be")["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "known: run" in error["message"]
    assert "chat" in complete(two_models, 400, prompt="be")["error"]["message"]
    assert complete(two_models, model="chat", prompt="be")["model"] == "chat"


def test_unknown_fields_are_ignored_with_a_note_in_the_log(server: Running) -> None:
    assert complete(server, prompt="be", user="a", prommpt=1, **GREEDY)["choices"]
    assert "ignores the unknown fields user, prommpt" in server.process.so_far()[1]


def test_texts_are_the_same_alone_and_under_load(server: Running) -> None:
    bodies = [
        {"prompt": prompt, "seed": seed, "max_tokens": 40, "logprobs": 2}
        for prompt in ("be", "The naïve café", "5 €", "a" * 32)
        for seed in range(4)
    ]
    alone = [complete(server, **body)["choices"] for body in bodies]
    with ThreadPoolExecutor(len(bodies)) as pool:
        together = list(pool.map(lambda body: complete(server, **body)["choices"], bodies))
    assert together == alone
