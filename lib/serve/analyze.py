"""/v1/analyze and /v1/tokenizations: what a model thinks of a text, token by token, and how tokenizers cut it.

    {"object": "analysis", "model": "…", "unit": "nats",
     "tokens": [{"id": 1, "text": "To", "bytes": [84, 111], "surprisal": 3.2, "rank": 4, "entropy": 5.1, "alternatives": […],
                 "counts": {"name": "4-gram (counts)", "surprisal": 2.9}, "lens": [{"layer": 0, …, "top": […]}]}],
     "next": {"entropy": 4.0, "alternatives": […], "lens": […], "logits": […]},
     "attention": [layer][head][query][key],
     "memorized": [{"start": 3, "stop": 20, "place": 12345, "before": "…", "text": "…", "after": "…"}]}

Numbers have six significant digits, attention weights four decimals: rounded here and nowhere else.
"""

from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any, Generator, Iterable, Sequence

from anyio import CapacityLimiter, to_thread
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from torch import Tensor

from lib.data.downloads import data_folder
from lib.errors import MakegptError
from lib.evaluate.analysis import (
    Alternative,
    Analysis,
    AnalyzedToken,
    LayerView,
    Prediction,
    analyze_in_turns,
    compare_with_training,
)
from lib.generate.token_scores import token_text
from lib.model.maps import attentions, block_stack
from lib.serve.errors import invalid, prompt_too_long
from lib.serve.fields import Fields, checked_ids, checked_text
from lib.serve.models import ServedModel, ServedModels
from lib.serve.streaming import ClientLeft, unless_client_leaves
from lib.serve.worker import Worker
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.bytes_ import BytesTokenizer
from lib.tokenizer.gpt2 import GPT2Tokenizer

#: The most alternatives of a token.
MAX_ALTERNATIVES = 100
#: Alternatives of all tokens of one answer; each takes about 80 bytes of JSON.
MAX_ALL_ALTERNATIVES = 1 << 16
#: Attention weights of one answer; each takes about seven bytes of JSON.
MAX_WEIGHTS = 2_000_000
#: Logits that a lens may ask for: tokens × layers × vocabulary. SmolLM2 computes them in about four seconds.
MAX_LENS_LOGITS = 1 << 27
#: Characters of a text that tokenizers cut.
MAX_CHARACTERS = 20_000

#: Requests that wait for a training text wait in the event loop, and hold no thread.
_ONE_AT_A_TIME = CapacityLimiter(1)


@dataclass(frozen=True)
class AnalyzeJob:
    """What a body asks for."""

    served: ServedModel
    ids: list[int]
    alternatives: int
    lens: bool
    attention: bool
    full: bool
    counts: bool
    memorized: bool


async def analyze_text(request: HttpRequest) -> Response:
    """POST /v1/analyze. The worker computes the model's part, in turns; the training text is counted and searched outside of
    it, for one request at a time. Nothing is computed for a client that has left.
    """
    state = request.app.state
    job = await run_in_threadpool(read_job, await request.body(), state.models)
    try:
        analysis = await unless_client_leaves(request.receive, _analyze(state.worker, job))
    except ClientLeft:
        return Response(status_code=499)  # for the log; nobody reads it
    return JSONResponse(await run_in_threadpool(analysis_json, job.served.name, analysis))


async def _analyze(worker: Worker, job: AnalyzeJob) -> Analysis:
    model = job.served.model
    turns = analyze_in_turns(
        model.evaluated,
        model.tokenizer,
        job.ids,
        model.device,
        alternatives=job.alternatives,
        lens=job.lens,
        attention=job.attention,
        full=job.full,
    )
    while (analysis := await worker.call(partial(_next_turn, turns))) is None:
        pass
    if job.counts or job.memorized:
        compare = partial(compare_with_training, analysis, model.training_text, counts=job.counts, memorized=job.memorized)
        analysis = await to_thread.run_sync(compare, limiter=_ONE_AT_A_TIME)
    return analysis


def _next_turn(turns: Generator[None, None, Analysis]) -> Analysis | None:
    """The analysis if this turn was the last, else None."""
    try:
        next(turns)
    except StopIteration as end:
        analysis: Analysis = end.value
        return analysis
    return None


async def tokenizations(request: HttpRequest) -> Response:
    """POST /v1/tokenizations."""
    content = await request.body()
    return JSONResponse(await run_in_threadpool(cut_by_all, content, request.app.state.models))


def read_job(content: bytes, models: ServedModels) -> AnalyzeJob:
    """What the body `content` asks for. ApiError names the field that is wrong, or the model that is unknown."""
    fields = Fields.of_body(content)
    served = models.find(fields.text("model"))
    job = AnalyzeJob(
        served,
        _read_ids(fields.value("prompt"), served),
        fields.integer("alternatives", 10, at_least=1, at_most=MAX_ALTERNATIVES),
        fields.flag("lens"),
        fields.flag("attention"),
        fields.flag("full"),
        fields.flag("counts"),
        fields.flag("memorized"),
    )
    _check_size(job)
    fields.note_unknown("/v1/analyze")
    return job


def _read_ids(value: Any, served: ServedModel) -> list[int]:
    model = served.model
    if model.config.has_encoder:
        raise invalid("model", f"{served.name} is an encoder-decoder, which gives no probability to a text alone")
    if value is None or value == "":
        raise invalid("prompt", "prompt is missing or empty; give a text, or a list of token ids")
    if isinstance(value, list):
        ids = checked_ids(value, "prompt", model.tokenizer.vocab_size)
    else:
        try:
            ids = model.tokenizer.encode(checked_text(value, "prompt"))
        except MakegptError as error:
            raise invalid("prompt", str(error)) from None
    if len(ids) > model.config.context_length:
        raise prompt_too_long(len(ids), model.config.context_length, "prompt")
    return ids


def _check_size(job: AnalyzeJob) -> None:
    """ApiError if the answer would be too large, with the number of tokens that are possible."""
    network, config, T = job.served.model.evaluated, job.served.model.config, len(job.ids)
    V = network.vocab_size
    if T * job.alternatives > MAX_ALL_ALTERNATIVES:
        most = MAX_ALL_ALTERNATIVES // T
        raise invalid("alternatives", f"{job.alternatives} alternatives of {T:,} tokens are too many; ask for at most {most:,}")
    heads = len(attentions(network)) * config.n_heads
    if job.attention and heads * T**2 > MAX_WEIGHTS:
        most = int((MAX_WEIGHTS / heads) ** 0.5)
        raise invalid("attention", f"attention of {T:,} tokens has {heads * T**2:,} weights; ask for at most {most:,} tokens")
    layers = config.n_layers + 1
    if job.lens and block_stack(network) and T * layers * V > MAX_LENS_LOGITS:
        most = MAX_LENS_LOGITS // (layers * V)
        raise invalid("lens", f"the lens computes {layers} predictions for each token; ask for at most {most:,} tokens")


def analysis_json(model: str, analysis: Analysis) -> dict[str, Any]:
    """An analysis as plain data; fields that were not asked for are absent."""
    following: dict[str, Any] = _prediction(analysis.next)
    if analysis.logits is not None:
        following["logits"] = [_short(number) for number in analysis.logits.tolist()]
    answer: dict[str, Any] = {
        "object": "analysis",
        "model": model,
        "unit": "nats",
        "tokens": [_token(token, analysis) for token in analysis.tokens],
        "next": following,
    }
    if analysis.attention is not None:
        answer["attention"] = [_weights(layer) for layer in analysis.attention]
    if analysis.memorized is not None:
        answer["memorized"] = [asdict(passage) for passage in analysis.memorized]
    reasons = {"counts_missing": analysis.counts_missing, "memorized_missing": analysis.memorized_missing}
    return answer | {name: reason for name, reason in reasons.items() if reason is not None}


def _token(token: AnalyzedToken, analysis: Analysis) -> dict[str, Any]:
    expected = {"entropy": None, "alternatives": None} if token.prediction is None else _prediction(token.prediction)
    entry = {"id": token.id, "text": token.text, "bytes": list(token.content)}
    entry |= {"surprisal": _short(token.surprisal), "rank": token.rank, **expected}
    if token.counted is not None:
        entry["counts"] = {"name": analysis.counts_name, "surprisal": _short(token.counted)}
    return entry


def _prediction(prediction: Prediction) -> dict[str, Any]:
    entry = {"entropy": _short(prediction.entropy), "alternatives": _alternatives(prediction.alternatives)}
    return entry if prediction.lens is None else entry | {"lens": [_view(view) for view in prediction.lens]}


def _view(view: LayerView) -> dict[str, Any]:
    return {"layer": view.layer, "surprisal": _short(view.surprisal), "rank": view.rank, "top": _alternatives(view.top)}


def _alternatives(alternatives: Iterable[Alternative]) -> list[dict[str, Any]]:
    return [
        {"id": other.id, "text": other.text, "bytes": list(other.content), "probability": _short(other.probability)}
        for other in alternatives
    ]


def _weights(layer: Tensor) -> Any:
    return layer.double().numpy().round(4).tolist()


def _short(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.6g}")


def cut_by_all(content: bytes, models: ServedModels) -> dict[str, Any]:
    """A text as the tokens of every tokenizer that is at hand; `error` says why one has none for it."""
    fields = Fields.of_body(content)
    text = fields.text("text") or ""
    if len(text) > MAX_CHARACTERS:
        raise invalid("text", f"text has {len(text):,} characters; at most {MAX_CHARACTERS:,} are possible")
    return {"tokenizers": [{"name": name, **_cut(text, tokenizer)} for name, tokenizer in _tokenizers(models)]}


@cache
def _tokenizers(models: ServedModels) -> list[tuple[str, Tokenizer]]:
    """Those of the served models, that of GPT-2 if it was fetched, and bytes; each once."""
    named: list[tuple[str, Tokenizer]] = [
        (f"{served.name} ({served.model.tokenizer.kind})", served.model.tokenizer) for served in models
    ]
    with suppress(MakegptError):
        named.append(("gpt2", GPT2Tokenizer.train([], data_folder("gpt2/vocab.bpe"))))
    named.append(("bytes", BytesTokenizer()))
    first: dict[str, tuple[str, Tokenizer]] = {}
    for name, tokenizer in named:
        first.setdefault(tokenizer.identity(), (name, tokenizer))
    return list(first.values())


def _cut(text: str, tokenizer: Tokenizer) -> dict[str, Any]:
    try:
        ids = tokenizer.encode(text)
    except MakegptError as error:
        return {"error": str(error)}
    return {"tokens": _pieces(ids, tokenizer)}


def _pieces(ids: Sequence[int], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    previous = [None, *ids]
    return [
        {"id": id, "text": token_text(tokenizer, id), "bytes": list(tokenizer.bytes_after(before, id))}
        for before, id in zip(previous, ids, strict=False)
    ]
