"""/v1/analyze and /v1/tokenizations over a socket: what the library computes, rounded, and what is refused."""

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from lib import Model
from lib.evaluate.training_text import MAX_COUNTED_TOKENS, PASSAGE_BYTES
from lib.serve import analyze
from lib.serve.errors import ApiError
from lib.serve.limits import Limits
from lib.serve.metrics import Metrics
from lib.serve.models import ServedModel, ServedModels
from lib.serve.worker import Worker
from tests.conftest import PROJECT, TEXT
from tests.serve.running import Running

#: 24 tokens, half of which are parts of characters.
TEXT_IDS = list(TEXT[:18].encode())
EVERYTHING = {"lens": True, "attention": True, "counts": True, "memorized": True, "full": True}


@pytest.fixture(scope="module")
def model(small: Path) -> Model:
    return Model.from_run(small / "run", device="cpu")


def test_a_text_is_analyzed_as_by_the_library(server: Running, model: Model) -> None:
    answer = server.post("/v1/analyze", {"model": "run", "prompt": TEXT[:18], "alternatives": 3, **EVERYTHING})
    expected = model.analyze(TEXT[:18], alternatives=3, **EVERYTHING)
    assert (answer["object"], answer["model"], answer["unit"]) == ("analysis", "run", "nats")
    first, *others = answer["tokens"]
    assert first == {
        "id": TEXT_IDS[0], "text": "0", "bytes": [48], "surprisal": None, "rank": None, "entropy": None, "alternatives": None
    }  # fmt: skip
    for entry, token in zip(others, expected.tokens[1:], strict=True):
        assert token.prediction is not None
        assert (entry["id"], entry["text"], bytes(entry["bytes"]), entry["rank"]) == (
            token.id,
            token.text,
            token.content,
            token.rank,
        )
        assert entry["surprisal"] == pytest.approx(token.surprisal, rel=1e-5)
        assert entry["entropy"] == pytest.approx(token.prediction.entropy, rel=1e-5)
        assert entry["counts"] == {"name": "7-gram (counts)", "surprisal": pytest.approx(token.counted, rel=1e-5)}
        assert len(entry["alternatives"]) == 3
        assert [view["layer"] for view in entry["lens"]] == [0, 1, 2]
        assert entry["lens"][-1]["top"] == entry["alternatives"]
        assert entry["lens"][-1]["surprisal"] == entry["surprisal"]
    assert b"".join(bytes(entry["bytes"]) for entry in answer["tokens"]).decode() == TEXT[:18]
    assert expected.logits is not None
    assert answer["next"]["logits"] == pytest.approx(expected.logits.tolist(), rel=1e-4, abs=1e-5)
    assert answer["next"]["lens"][-1]["rank"] is None
    assert expected.attention is not None
    for layer, weights in zip(answer["attention"], expected.attention, strict=True):
        for head, rows in zip(layer, weights.tolist(), strict=True):
            for row, precise in zip(head, rows, strict=True):
                assert row == pytest.approx(precise, abs=6e-5)
    assert expected.memorized is not None
    assert answer["memorized"] == [asdict(passage) for passage in expected.memorized]


def test_token_ids_are_analyzed_as_their_text_and_what_is_not_asked_for_is_absent(server: Running) -> None:
    answer = server.post("/v1/analyze", {"prompt": TEXT_IDS})
    assert answer == server.post("/v1/analyze", {"prompt": TEXT[:18]})
    assert answer.keys() == {"object", "model", "unit", "tokens", "next"}
    assert answer["next"].keys() == {"entropy", "alternatives"}
    assert all(token.keys() == answer["tokens"][0].keys() for token in answer["tokens"])


def test_a_passage_of_the_training_text_is_found(server: Running) -> None:
    content = TEXT.encode()
    (found,) = server.post("/v1/analyze", {"prompt": list(content[1000:1032]), "memorized": True})["memorized"]
    assert content[found["place"] : found["place"] + 32] == content[1000:1032]
    assert (found["start"], found["stop"]) == (0, 32)


def test_a_model_without_its_training_text_gives_the_reason_and_no_folder(chat_server: Running) -> None:
    answer = chat_server.post("/v1/analyze", {"prompt": "user", "counts": True, "memorized": True})
    assert answer["counts_missing"] == answer["memorized_missing"]
    assert "/" not in answer["counts_missing"]
    assert "memorized" not in answer
    assert "counts" not in answer["tokens"][-1]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "prompt is missing or empty; give a text, or a list of token ids"),
        ({"prompt": ""}, "prompt is missing or empty"),
        ({"prompt": "x" * 33}, "the prompt has 33 tokens, but the model's context is 32"),
        ({"prompt": [1, 256]}, "prompt has the token id 256; the model's ids are 0 to 255"),
        ({"prompt": [1, -1]}, "prompt has the token id -1"),
        ({"prompt": ["a"]}, "must be a list of token ids"),
        ({"prompt": {"text": 1}}, "must be a string"),
        ({"prompt": "a", "alternatives": 0}, "alternatives=0 must be an integer between 1 and 100"),
        ({"prompt": "a", "lens": "yes"}, 'lens="yes" must be true or false'),
    ],
)
def test_what_cannot_be_analyzed_is_refused_by_name(server: Running, body: dict[str, Any], message: str) -> None:
    error = server.post("/v1/analyze", body, status=400)["error"]
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"


def test_an_answer_that_would_be_too_large_is_refused_with_what_is_possible(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = ServedModel("run", model, 0, "", 0)
    job = analyze.AnalyzeJob(served, [1] * 20, 10, lens=True, attention=True, full=False, counts=False, memorized=False)
    analyze._check_size(job)
    monkeypatch.setattr(analyze, "MAX_ALL_ALTERNATIVES", 199)
    with pytest.raises(ApiError, match=r"10 alternatives of 20 tokens are too many; ask for at most 9"):
        analyze._check_size(job)
    monkeypatch.undo()
    monkeypatch.setattr(analyze, "MAX_WEIGHTS", 1000)
    with pytest.raises(ApiError, match=r"attention of 20 tokens has 1,600 weights; ask for at most 15 tokens"):
        analyze._check_size(job)
    monkeypatch.undo()
    monkeypatch.setattr(analyze, "MAX_LENS_LOGITS", 8000)
    with pytest.raises(ApiError, match=r"the lens computes 3 predictions for each token; ask for at most 10 tokens"):
        analyze._check_size(job)


def test_a_text_is_cut_by_every_tokenizer_at_hand(two_models: Running) -> None:
    cuts = {entry["name"]: entry for entry in two_models.post("/v1/tokenizations", {"text": "naïve 😀"})["tokenizers"]}
    assert list(cuts)[:1] == ["run (bytes)"]
    assert "bytes" not in cuts  # the same as the first
    for entry in cuts.values():
        if "tokens" in entry:
            assert b"".join(bytes(token["bytes"]) for token in entry["tokens"]).decode() == "naïve 😀"
    assert len(cuts["run (bytes)"]["tokens"]) == 11
    error = two_models.post("/v1/tokenizations", {"text": "x" * 20_001}, status=400)["error"]
    assert error["message"] == "text has 20,001 characters; at most 20,000 are possible"


def test_an_analysis_ends_when_its_client_leaves(model: Model) -> None:
    worker = Worker(Limits(), Metrics())  # its thread is not started: what is asked waits
    app = Starlette()
    app.state.models = ServedModels([ServedModel("run", model, 0, "", 0)])
    app.state.worker = worker
    messages: list[dict[str, Any]] = [{"type": "http.disconnect"}, {"type": "http.request", "body": b'{"prompt": "to be"}'}]

    async def receive() -> dict[str, Any]:
        return messages.pop()

    response = asyncio.run(analyze.analyze_text(Request({"type": "http", "app": app, "headers": []}, receive)))
    assert response.status_code == 499


def test_the_page_has_the_limits_of_the_code() -> None:
    page = (PROJECT / "docs" / "serve_api.md").read_text(encoding="utf-8")
    assert f"1 to {analyze.MAX_ALTERNATIVES}; times the tokens at most {analyze.MAX_ALL_ALTERNATIVES:,}" in page
    assert f"Tokens × (blocks + 1) × vocabulary are at most {analyze.MAX_LENS_LOGITS:,}" in page
    assert f"at most {analyze.MAX_WEIGHTS:,} weights" in page
    assert f"at most the last {MAX_COUNTED_TOKENS:,} tokens are counted" in page
    assert f"about {PASSAGE_BYTES} bytes long at least" in page
    assert f"a `text` of up to {analyze.MAX_CHARACTERS:,} characters" in page
