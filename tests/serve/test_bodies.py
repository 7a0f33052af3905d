"""Bodies, whole and damaged: each is understood or refused in OpenAI's shape, and the reference page has all fields."""

import json
import re
from pathlib import Path
from random import Random
from typing import Any, Callable

import pytest

from lib.serve.answers import MAX_SCORES
from lib.serve.chat import read_chat
from lib.serve.completions import DEFAULT_TOKENS, read_completion
from lib.serve.errors import ApiError
from lib.serve.fields import Fields
from lib.serve.limits import Limits
from lib.serve.models import ServedModels, load_models
from lib.serve.options import MAX_ALTERNATIVES, MAX_STOPS
from lib.serve.tokens import text_of, tokens_of, written
from tests.conftest import PROJECT
from tests.fuzz.mutation import json_text

INPUTS = 3000

SAMPLING = {"temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "seed": 7, "n": 2}
SHARED = SAMPLING | {"stop": ["a", "b"], "stream": True, "stream_options": {"include_usage": True}, "explain": True}
NEUTRAL = {"logit_bias": {}, "tools": [], "presence_penalty": 0}
MESSAGES = [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "q"}]}]
BODIES: dict[str, tuple[Callable[..., Any], Any]] = {
    "completion": (
        read_completion,
        {"model": "chat", "prompt": "to be", "max_tokens": 9, "logprobs": 2, "echo": True, "best_of": 2, **SHARED, **NEUTRAL},
    ),
    "ids": (read_completion, {"model": "chat", "prompt": [[1, 2], [3], "be"], "max_tokens": 1}),
    "chat": (
        read_chat,
        {"messages": MESSAGES, "max_completion_tokens": 9, "logprobs": True, "top_logprobs": 3, **SHARED, **NEUTRAL},
    ),
    "tokenize": (tokens_of, {"model": "chat", "content": "to be €", "with_pieces": True}),
    "detokenize": (text_of, {"tokens": [1, 2, 3]}),
    "apply-template": (written, {"messages": MESSAGES, "add_generation_prompt": True}),
}


@pytest.fixture(scope="module")
def models(chat_run: Path) -> ServedModels:
    return load_models([chat_run], weights="float32", checkpoint="published", device="cpu")


@pytest.mark.parametrize("name", BODIES)
def test_a_damaged_body_is_understood_or_refused_in_one_line(models: ServedModels, name: str) -> None:
    read, body = BODIES[name]
    arguments = (models, Limits()) if read in (read_completion, read_chat) else (models,)
    whole = json.dumps(body).encode()
    read(whole, *arguments)
    refusals: dict[bytes, ApiError] = {}
    for number in range(INPUTS):
        content = json_text(Random(f"13:{name}:{number}"), whole)
        try:
            read(content, *arguments)
        except ApiError as error:
            refusals[content] = error
    for content, refusal in refusals.items():
        message = json.loads(refusal.response().body)["error"]["message"]
        assert refusal.status in (400, 404), content
        assert 10 < len(message) < 1100, content
        assert "\n" not in message, content
    assert len(refusals) > INPUTS / 5


def test_the_reference_page_has_every_field_and_limit(models: ServedModels, monkeypatch: pytest.MonkeyPatch) -> None:
    names: set[str] = set()
    plain = Fields.value

    def noted(fields: Fields, name: str) -> Any:
        names.add(name)
        return plain(fields, name)

    monkeypatch.setattr(Fields, "value", noted)
    for read, body in BODIES.values():
        read(json.dumps(body).encode(), *((models, Limits()) if read in (read_completion, read_chat) else (models,)))
    page = (PROJECT / "docs" / "serve_api.md").read_text(encoding="utf-8")
    assert len(names) > 30
    assert [name for name in sorted(names) if name not in page] == []
    limits = (Limits().tokens, Limits().texts, MAX_ALTERNATIVES, MAX_STOPS, DEFAULT_TOKENS, MAX_SCORES)
    assert [limit for limit in limits if not re.search(rf"\b{limit:,}\b", page)] == []
