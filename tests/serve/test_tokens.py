"""The tokenizer's endpoints, in the dialects of llama.cpp and of vLLM."""

from pathlib import Path
from typing import Any

import pytest

from lib import Model
from lib.chat.messages import Message
from tests.serve.running import Running


@pytest.fixture(scope="module")
def model(chat_run: Path) -> Model:
    return Model.from_run(chat_run, device="cpu")


def test_a_text_is_tokenized_in_both_dialects(chat_server: Running, model: Model) -> None:
    ids = model.tokenizer.encode("user €")
    theirs = chat_server.post("/tokenize", {"content": "user €", "add_special": True})
    ours = chat_server.post("/tokenize", {"model": "chat", "prompt": "user €", "add_special_tokens": False})
    assert theirs == ours == {"tokens": ids, "count": len(ids), "max_model_len": 96}


def test_pieces_that_are_half_a_character_are_numbers_of_bytes(server: Running) -> None:
    answer = server.post("/tokenize", {"content": "a€", "with_pieces": True})
    pieces = [("a", 97), ([0xE2], 0xE2), ([0x82], 0x82), ([0xAC], 0xAC)]
    assert answer["tokens"] == [{"id": id, "piece": piece} for piece, id in pieces]


def test_the_name_of_a_special_token_alone_is_that_token(chat_server: Running, model: Model) -> None:
    assert chat_server.post("/tokenize", {"prompt": "<|endoftext|>"})["tokens"] == [model.tokenizer.endoftext]
    assert len(chat_server.post("/tokenize", {"prompt": "<|endoftext|>."})["tokens"]) == 14
    assert chat_server.post("/tokenize", {"prompt": ""})["tokens"] == []


def test_ids_become_text_in_both_dialects(server: Running) -> None:
    assert server.post("/detokenize", {"tokens": list("a€".encode())}) == {"content": "a€", "prompt": "a€"}
    assert server.post("/detokenize", {"tokens": [97, 0xE2]})["content"] == "a\ufffd"
    assert server.post("/detokenize", {"tokens": []})["content"] == ""


def test_the_tokenizer_says_what_clients_must_know(
    chat_server: Running, two_models: Running, server: Running, model: Model
) -> None:
    info = chat_server.get("/tokenizer_info")
    assert (info["eos_token"], info["bos_token"], info["pad_token"]) == ("<|endoftext|>", None, None)
    assert info["chat_template"] == model.chat_template.jinja()
    assert two_models.get("/tokenizer_info?model=chat") == info
    assert server.get("/tokenizer_info")["eos_token"] is None
    assert "chat" in two_models.get("/tokenizer_info", 400)["error"]["message"]


def test_a_conversation_is_written_by_the_template(chat_server: Running, model: Model) -> None:
    messages = [{"role": "user", "content": "q"}]
    text = model.chat_template.text([Message("user", "q")], answer=True)
    assert chat_server.post("/apply-template", {"messages": messages}) == {"prompt": text}
    unfinished = chat_server.post("/apply-template", {"messages": messages, "add_generation_prompt": False})["prompt"]
    assert text.startswith(unfinished)
    tokens = chat_server.post("/tokenize", {"messages": messages})["tokens"]
    assert tokens == model.encode_messages([Message("user", "q")]).ids
    assert chat_server.post("/detokenize", {"tokens": tokens})["prompt"] == text


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"content": "a", "prompt": "a"}, "prompt"),
        ("/tokenize", {"content": 1}, "content"),
        ("/tokenize", {"content": "\ud800"}, "content"),
        ("/tokenize", {"content": "a", "with_pieces": 1}, "with_pieces"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": "a"}, "tokens"),
        ("/detokenize", {"tokens": [10**6]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/apply-template", {}, "messages"),
        ("/apply-template", {"messages": [{"role": "user", "content": "q"}], "model": 1}, "model"),
    ],
)
def test_what_cannot_be_tokenized_is_refused_by_name(chat_server: Running, path: str, body: Any, param: str) -> None:
    assert chat_server.post(path, body, 400)["error"]["param"] == param
