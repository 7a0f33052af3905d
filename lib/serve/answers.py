"""A request that asks for texts, from its parsed form to the answer: one object, or a stream of chunks.

Both are made of the same pieces. A stream formats each piece of each text as it comes, the other answer all of a text as one.
"""

import secrets
import time
from contextlib import aclosing
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, AsyncGenerator, Callable, Iterable, Sequence

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from lib.generate.request import Prompt, Request, make_requests
from lib.generate.token_scores import TokenScore
from lib.serve.errors import ApiError, invalid
from lib.serve.generation import Generation
from lib.serve.logprobs import SpelledToken, Speller
from lib.serve.models import ServedModel
from lib.serve.options import Options
from lib.serve.streaming import ClientLeft, EventStream, unless_client_leaves
from lib.serve.worker import Worker

#: Scored tokens of one request, times the numbers answered with each, which bounds the answer.
MAX_SCORES = 1 << 17
#: Prompt tokens that are scored in one turn of the worker.
_SCORED_AT_ONCE = 256

#: Our reasons for an end -> OpenAI's. A text that takes more than the server's time is as if its tokens were used up.
_FINISH_REASONS = {"length": "length", "timeout": "length", "stop": "stop", "end_of_text": "stop"}


@dataclass(frozen=True)
class Piece:
    """A part of the text `index` of an answer, and its tokens: all that has come, a single token, or the prompt.

    `starts`: it is the beginning of a text; `finish_reason`: it is the end, in OpenAI's words.
    """

    index: int
    text: str = ""
    tokens: tuple[SpelledToken, ...] = ()
    starts: bool = False
    finish_reason: str | None = None


def joined(pieces: Sequence[Piece]) -> Piece:
    """All the `pieces` of one text as one."""
    tokens = tuple(token for piece in pieces for token in piece.tokens)
    text = "".join(piece.text for piece in pieces)
    return Piece(pieces[0].index, text, tokens, pieces[0].starts, pieces[-1].finish_reason)


@dataclass(frozen=True)
class Job:
    """What a request asks for. `echo`: each text begins with its prompt. Texts are answered prompt by prompt, n of each.

    `choice` formats a whole text, `chunks` a piece of one as any number of choices of a stream; `prefix` begins the id.
    """

    served: ServedModel
    prompts: list[Prompt]
    options: Options
    prefix: str
    object: str
    chunk_object: str
    choice: Callable[[Piece, Options], dict[str, Any]]
    chunks: Callable[[Piece, Options], list[dict[str, Any]]]
    echo: bool = False

    @property
    def scores_prompts(self) -> bool:
        """Whether the tokens of the prompts are answered with their scores."""
        return self.echo and self.options.scored

    @property
    def alternatives(self) -> int:
        """Alternatives that are computed for each token."""
        return max(self.options.alternatives or 0, 5 if self.options.explain else 0)

    def check(self, most_texts: int) -> None:
        """ApiError 400 if it asks for too many texts or scores."""
        texts = len(self.prompts) * self.options.n
        if texts > most_texts:
            asked = f"{len(self.prompts):,} prompts with n={self.options.n} are {texts:,} texts"
            raise invalid("n", f"{asked}; at most {most_texts:,} are possible")
        tokens = texts * self.options.max_tokens
        if self.scores_prompts:
            tokens += self.options.n * sum(len(prompt.ids) for prompt in self.prompts)
        most = MAX_SCORES // (1 + self.alternatives)
        if self.options.scored and tokens > most:
            raise invalid(
                "logprobs",
                f"log-probabilities of up to {tokens:,} tokens with {self.alternatives} alternatives are too many; "
                f"at most {most:,} tokens are possible: ask for fewer tokens, texts or alternatives",
            )


async def answer(request: HttpRequest, job: Job) -> Response:
    """The answer to a `job`, as one object or as a stream; nothing is computed for a client that has left."""
    worker: Worker = request.app.state.worker
    try:
        return await unless_client_leaves(request.receive, _answer(worker, job))
    except ClientLeft:
        return Response(status_code=499)  # for the log; nobody reads it


async def _answer(worker: Worker, job: Job) -> Response:
    scores = await _scores(worker, job) if job.scores_prompts else None
    started = _Started(worker, job, scores)
    if job.options.stream:
        return EventStream(started.chunks(), started.close)
    try:
        return await started.whole()
    finally:
        started.close()


async def _scores(worker: Worker, job: Job) -> list[list[TokenScore]]:
    """The scores of each prompt's tokens but the first, some at a time, so that other texts continue in between."""
    model = job.served.model
    scores = chain.from_iterable(model.score_ids(prompt.ids, job.alternatives) for prompt in job.prompts)
    collected = iter(await worker.collect(scores, _SCORED_AT_ONCE))
    return [list(islice(collected, len(prompt.ids) - 1)) for prompt in job.prompts]


class _Started:
    """A job whose texts are being computed; Busy if too many others are waiting.

    One of `chunks` and `whole` gives the answer; then, or at any time, `close` ends the computing.
    """

    def __init__(self, worker: Worker, job: Job, scores: list[list[TokenScore]] | None) -> None:
        options = job.options
        self._job = job
        self._scores = scores
        self._head = {
            "id": f"{job.prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": job.served.name,
            "system_fingerprint": job.served.fingerprint,
            "seed": options.config.seed,
        }
        self._requests = list(
            make_requests(
                job.served.model.tokenizer,
                job.prompts,
                options.config,
                options.n,
                stop=options.stop,
                logprobs=False,
                explain=options.scored,
                alternatives=job.alternatives,
            )
        )
        self._new_tokens = 0
        self._generation: Generation | None = None
        if options.max_tokens:
            self._generation = worker.submit(job.served, self._requests, accepted=scores is not None)

    def close(self) -> None:
        """Compute nothing more."""
        if self._generation is not None:
            self._generation.cancel()

    async def whole(self) -> JSONResponse:
        """The answer as one object."""
        texts: dict[int, list[Piece]] = {index: [] for index in range(len(self._requests))}
        async with aclosing(self._pieces()) as pieces:
            async for piece in pieces:
                texts[piece.index].append(piece)
        return await run_in_threadpool(self._whole, texts.values())  # which may be long, and holds no other stream there

    def _whole(self, texts: Iterable[Sequence[Piece]]) -> JSONResponse:
        choices = [self._job.choice(joined(pieces), self._job.options) for pieces in texts]
        return JSONResponse(self._head | {"object": self._job.object, "choices": choices, "usage": self._usage()})

    async def chunks(self) -> AsyncGenerator[dict[str, Any], None]:
        """The answer as the objects of a stream."""
        usage = {"usage": None} if self._job.options.include_usage else {}
        head = self._head | {"object": self._job.chunk_object}
        async with aclosing(self._pieces()) as pieces:
            async for piece in pieces:
                for choice in self._job.chunks(piece, self._job.options):
                    yield head | {"choices": [choice]} | usage
        if usage:
            yield head | {"choices": [], "usage": self._usage()}

    async def _pieces(self) -> AsyncGenerator[Piece, None]:
        spellers = []
        for index, request in enumerate(self._requests):
            speller = Speller(request.tokenizer, request.prompt.previous, request.prompt.half)
            piece = Piece(index, starts=True)
            if self._job.echo:
                piece, speller = await run_in_threadpool(self._echo, index, request)
            spellers.append(speller)
            yield piece
            if self._generation is None:
                yield Piece(index, finish_reason="length")
        if self._generation is None:
            return
        async for event in self._generation:
            if event.finish_reason == "cancelled":
                raise ApiError(503, "the server is stopping; the text is not complete")
            tokens: tuple[SpelledToken, ...] = ()
            if event.id is not None:
                self._new_tokens += 1
                is_end = event.finish_reason == "end_of_text"
                tokens = (spellers[event.index].spell(event.id, event.score, is_end=is_end),)
            finish_reason = _FINISH_REASONS[event.finish_reason] if event.finish_reason else None
            yield Piece(event.index, event.piece, tokens, finish_reason=finish_reason)

    def _echo(self, index: int, request: Request) -> tuple[Piece, Speller]:
        """The prompt of a text as its first piece, and what spells the tokens after it."""
        speller = Speller(request.tokenizer)
        prompt = request.prompt
        if self._scores is None:
            for id in prompt.ids:
                speller.spell(id, None)
            return Piece(index, prompt.text, starts=True), speller
        scores = [None, *self._scores[index // self._job.options.n]]
        tokens = tuple(speller.spell(id, score) for id, score in zip(prompt.ids, scores, strict=True))
        return Piece(index, prompt.text, tokens, starts=True), speller

    def _usage(self) -> dict[str, int]:
        prompt_tokens = sum(len(prompt.source or prompt.ids) for prompt in self._job.prompts)
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": self._new_tokens,
            "total_tokens": prompt_tokens + self._new_tokens,
        }
