"""/v1/chat/completions: conversations to be answered, written by the model's template."""

import logging
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from lib.api import Model
from lib.chat.messages import Message, parse_messages
from lib.errors import MakegptError
from lib.serve.answers import Job, Piece, answer
from lib.serve.errors import invalid
from lib.serve.fields import Fields, checked_text
from lib.serve.limits import Limits
from lib.serve.logprobs import chat_logprobs, explanation
from lib.serve.models import ServedModels
from lib.serve.options import MAX_ALTERNATIVES, Options, check_room, read_options

#: Newer clients call the system's message the developer's.
_ROLES = {"developer": "system"}

_log = logging.getLogger(__name__)


async def chat_completions(request: HttpRequest) -> Response:
    """POST /v1/chat/completions."""
    state = request.app.state
    content = await request.body()
    return await answer(request, await run_in_threadpool(read_chat, content, state.models, state.limits))


def read_chat(content: bytes, models: ServedModels, limits: Limits) -> Job:
    """What the body `content` asks for. ApiError names the field that is wrong, or the model that is unknown."""
    fields = Fields(content)
    served = models.find(fields.text("model"))
    model = served.model
    messages = read_messages(fields, model)
    try:
        prompt = model.encode_messages(messages)
    except MakegptError as error:
        raise invalid("messages", str(error)) from None
    alternatives = fields.integer("top_logprobs", 0, at_least=0, at_most=MAX_ALTERNATIVES)
    has_logprobs = fields.flag("logprobs")
    if alternatives and not has_logprobs:
        raise invalid("top_logprobs", 'top_logprobs needs "logprobs": true')
    options = read_options(
        fields,
        limits,
        max_tokens=_max_tokens(fields, model.config.context_length - len(prompt.ids), limits),
        alternatives=alternatives if has_logprobs else None,
    )
    fields.refuse("response_format", ({"type": "text"},), "answers are text; leave it out")
    job = Job(served, [prompt], options, "chatcmpl", "chat.completion", "chat.completion.chunk", choice, chunks)
    job.check(limits.texts)
    check_room(len(prompt.ids), options, model.config.context_length, "messages")
    if unknown := fields.unknown():
        _log.info("/v1/chat/completions ignores the unknown fields %s", unknown)
    return job


def read_messages(fields: Fields, model: Model) -> list[Message]:
    """The `messages`, the last of which is the user's. ApiError 400 for others, and for a model without a template."""
    if not model.has_chat_template:
        raise invalid(
            "model",
            "this model continues texts, and has no chat template; use /v1/completions, or serve a model that knows "
            "conversations, such as SmolLM2 (`make demo` gets it)",
        )
    value = fields.value("messages")
    if value is None:
        raise invalid("messages", 'messages is missing; give a list such as [{"role": "user", "content": "Hi"}]')
    try:
        messages = parse_messages([_plain(item) for item in value] if isinstance(value, list) else value)
    except ValueError as error:
        raise invalid("messages", f"messages: {error}") from None
    if messages[-1].role == "assistant":
        raise invalid("messages", "the last message is an answer already; the user's must be the last")
    return messages


def _plain(item: Any) -> Any:
    """A message with one text as its content, for one whose content may be a list of texts."""
    if not isinstance(item, dict):
        return item
    role, content = item.get("role"), item.get("content")
    if isinstance(content, list):
        if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
            raise invalid("messages", "the content of a message may be a text or a list of parts of the type text; no others")
        content = "".join(checked_text(part.get("text"), "messages") for part in content)
    if isinstance(content, str):
        checked_text(content, "messages")
    return {"role": _ROLES.get(role, role) if isinstance(role, str) else role, "content": content}


def _max_tokens(fields: Fields, room: int, limits: Limits) -> int:
    """The most new tokens, by the newer name or the older; without either, as many as the context has room for."""
    name = "max_tokens" if fields.value("max_completion_tokens") is None else "max_completion_tokens"
    fields.value("max_tokens")
    return fields.integer(name, max(1, min(room, limits.tokens)), at_least=1, at_most=limits.tokens)


def choice(piece: Piece, options: Options) -> dict[str, Any]:
    """A whole answer as an item of `choices`."""
    return {
        "index": piece.index,
        "message": {"role": "assistant", "content": piece.text, "refusal": None},
        "logprobs": _logprobs(piece, options),
        "finish_reason": piece.finish_reason,
    }


def chunks(piece: Piece, options: Options) -> list[dict[str, Any]]:
    """A piece as items of `choices` in a stream: the role first, then text, and the reason for the end alone."""
    items = []
    if piece.starts:
        items.append(_chunk(piece, {"role": "assistant", "content": ""}))
    if piece.text or (options.scored and piece.tokens):
        items.append(_chunk(piece, {"content": piece.text}) | {"logprobs": _logprobs(piece, options)})
        if options.explain and piece.tokens:
            items[-1]["makegpt"] = explanation(piece.tokens[0])
    if piece.finish_reason:
        items.append(_chunk(piece, {}) | {"finish_reason": piece.finish_reason})
    return items


def _chunk(piece: Piece, delta: dict[str, Any]) -> dict[str, Any]:
    return {"index": piece.index, "delta": delta, "logprobs": None, "finish_reason": None}


def _logprobs(piece: Piece, options: Options) -> dict[str, Any] | None:
    return None if options.alternatives is None else chat_logprobs(piece.tokens, options.alternatives)
