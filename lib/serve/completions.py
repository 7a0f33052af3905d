"""/v1/completions: texts to be continued, or scored, in the format of OpenAI's older API."""

import logging
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from lib.api import Model
from lib.errors import MakegptError
from lib.generate.request import Prompt
from lib.serve.answers import Job, Piece, answer
from lib.serve.errors import invalid
from lib.serve.fields import Fields, checked_ids, checked_text, is_integer, wrong
from lib.serve.limits import Limits
from lib.serve.logprobs import completion_logprobs, explanation
from lib.serve.models import ServedModels
from lib.serve.options import MAX_ALTERNATIVES, Options, check_room, read_options

DEFAULT_TOKENS = 16  # OpenAI's

_log = logging.getLogger(__name__)


async def completions(request: HttpRequest) -> Response:
    """POST /v1/completions."""
    state = request.app.state
    content = await request.body()
    return await answer(request, await run_in_threadpool(read_completion, content, state.models, state.limits))


def read_completion(content: bytes, models: ServedModels, limits: Limits) -> Job:
    """What the body `content` asks for. ApiError names the field that is wrong, or the model that is unknown."""
    fields = Fields(content)
    served = models.find(fields.text("model"))
    max_tokens = fields.integer("max_tokens", min(DEFAULT_TOKENS, limits.tokens), at_least=0, at_most=limits.tokens)
    alternatives = None
    if fields.value("logprobs") is not None:
        alternatives = fields.integer("logprobs", 0, at_least=0, at_most=MAX_ALTERNATIVES)
    options = read_options(fields, limits, max_tokens=max_tokens, alternatives=alternatives)
    fields.refuse("best_of", (options.n,), "n texts are sampled, and all are answered; leave it out")
    fields.refuse("suffix", ("",), "the models here continue a text at its end; leave it out")
    prompts = _read_prompts(fields, served.model)
    job = Job(served, prompts, options, "cmpl", "text_completion", "text_completion", choice, chunks, fields.flag("echo"))
    job.check(limits.texts)
    if job.scores_prompts and served.model.config.has_encoder:
        raise invalid("echo", "an encoder-decoder gives no probability to its source; leave echo or logprobs")
    if not job.scores_prompts or max_tokens > 1:
        for prompt in prompts:
            check_room(len(prompt.source or prompt.ids), options, served.model.config.context_length, "prompt")
    if unknown := fields.unknown():
        _log.info("/v1/completions ignores the unknown fields %s", unknown)
    return job


def _read_prompts(fields: Fields, model: Model) -> list[Prompt]:
    """A text, token ids, or a list of such; an empty text starts a text, as in `generate`."""
    value = fields.value("prompt")
    if value is None or value == []:
        raise invalid("prompt", "prompt is missing; give a text, a list of token ids, or a list of such")
    several = isinstance(value, list) and not is_integer(value[0])
    return [_read_prompt(item, model) for item in (value if several else [value])]


def _read_prompt(value: Any, model: Model) -> Prompt:
    if isinstance(value, list):
        return model.prompt_of_ids(checked_ids(value, "prompt", model.tokenizer.vocab_size))
    if not isinstance(value, str):
        raise wrong("prompt", value, "a text or a list of token ids, or a list of such")
    try:
        return model.encode_prompt(checked_text(value, "prompt"))
    except MakegptError as error:
        raise invalid("prompt", str(error)) from None


def choice(piece: Piece, options: Options) -> dict[str, Any]:
    """A text, or a piece of one, as an item of `choices`."""
    logprobs = None if options.alternatives is None else completion_logprobs(piece.tokens, options.alternatives)
    return {"text": piece.text, "index": piece.index, "logprobs": logprobs, "finish_reason": piece.finish_reason}


def chunks(piece: Piece, options: Options) -> list[dict[str, Any]]:
    """A piece as items of `choices` in a stream: none if it says nothing. With `explain`, each new token is explained."""
    if not piece.text and not piece.finish_reason and not (options.scored and piece.tokens):
        return []
    item = choice(piece, options)
    if options.explain and piece.tokens and not piece.starts:
        item["makegpt"] = explanation(piece.tokens[0])
    return [item]
