"""/tokenize, /detokenize, /tokenizer_info and /apply-template: the tokenizer and the template without the model.

Two dialects are in use, llama.cpp's with `content` and vLLM's with `prompt`; each question may be in either, and the answers
have the fields of both.
"""

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse

from lib.errors import MakegptError
from lib.serve.chat import read_messages
from lib.serve.errors import invalid
from lib.serve.fields import Fields, checked_ids
from lib.serve.models import ServedModels
from lib.tokenizer.base import Tokenizer


async def tokenize(request: HttpRequest) -> JSONResponse:
    """POST /tokenize."""
    return JSONResponse(await run_in_threadpool(tokens_of, await request.body(), request.app.state.models))


async def detokenize(request: HttpRequest) -> JSONResponse:
    """POST /detokenize."""
    return JSONResponse(await run_in_threadpool(text_of, await request.body(), request.app.state.models))


async def apply_template(request: HttpRequest) -> JSONResponse:
    """POST /apply-template."""
    return JSONResponse(await run_in_threadpool(written, await request.body(), request.app.state.models))


async def tokenizer_info(request: HttpRequest) -> JSONResponse:
    """GET /tokenizer_info."""
    return JSONResponse(info(request.query_params.get("model"), request.app.state.models))


def tokens_of(content: bytes, models: ServedModels) -> dict[str, Any]:
    """The token ids of a text, or of a conversation as its template writes it.

    A text that is the name of a special token and nothing else is that token: clients ask so for the id of `<|endoftext|>`.
    In other texts such a name is ordinary characters, as everywhere in this project.
    """
    fields = Fields.of_body(content)
    model = models.find(fields.text("model")).model
    given = [name for name in ("content", "prompt", "messages") if fields.value(name) is not None]
    if len(given) != 1:
        raise invalid("prompt", "give one of content, prompt and messages")
    try:
        if given == ["messages"]:
            ids = model.encode_messages(read_messages(fields, model)).ids
        else:
            text = fields.text(given[0]) or ""
            ids = _special(text, model.tokenizer) or model.tokenizer.encode(text)
    except MakegptError as error:
        raise invalid(given[0], str(error)) from None
    tokens = [{"id": id, "piece": _piece(model.tokenizer, id)} for id in ids] if fields.flag("with_pieces") else ids
    return {"tokens": tokens, "count": len(ids), "max_model_len": model.config.context_length}


def _special(text: str, tokenizer: Tokenizer) -> list[int]:
    return [id for id in tokenizer.special_ids() if tokenizer.token_bytes(id) == text.encode()][:1]


def _piece(tokenizer: Tokenizer, id: int) -> str | list[int]:
    """A token as text, or as numbers of bytes if they are not whole characters, as llama.cpp does."""
    content = tokenizer.token_bytes(id)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return list(content)


def text_of(content: bytes, models: ServedModels) -> dict[str, Any]:
    """The text of token ids; bytes that are not a whole character become U+FFFD."""
    fields = Fields.of_body(content)
    tokenizer = models.find(fields.text("model")).model.tokenizer
    value = fields.value("tokens")
    if value is None:
        raise invalid("tokens", "tokens is missing; give a list of token ids")
    text = tokenizer.decode(checked_ids(value, "tokens", tokenizer.vocab_size)) if value != [] else ""
    return {"content": text, "prompt": text}


def written(content: bytes, models: ServedModels) -> dict[str, Any]:
    """A conversation as the text that the model continues; special tokens are written by their names."""
    fields = Fields.of_body(content)
    model = models.find(fields.text("model")).model
    messages = read_messages(fields, model)
    answer = fields.flag("add_generation_prompt", True)
    return {"prompt": model.chat_template.text(messages, answer=answer)}


def info(name: str | None, models: ServedModels) -> dict[str, Any]:
    """What a client's own tokenizer must know, under the names of transformers."""
    model = models.find(name).model
    tokenizer = model.tokenizer
    end = None if tokenizer.endoftext is None else tokenizer.token_bytes(tokenizer.endoftext).decode("utf-8")
    return {
        "tokenizer_class": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "model_max_length": model.config.context_length,
        "eos_token": end,
        "bos_token": None,
        "pad_token": None,
        "chat_template": model.chat_template.jinja() if model.has_chat_template else None,
    }
