"""The one thread that computes, for all clients: a queue, and for each model a batch that texts join and leave.

Handlers run in the event loop and never compute; the worker computes and never waits for a client. A handler submits the
texts of its request and reads events, one per token, which wait in memory until it does: a slow reader holds nobody.

A turn of the worker: texts that were canceled or are out of time end, waiting ones join, then each batch does one step.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, AsyncIterator, Callable, Sequence, TypeVar

import torch

from lib.errors import MakegptError
from lib.generate.batch import TokenBatch
from lib.generate.request import Request
from lib.generate.token_scores import TokenScore
from lib.serve.errors import ApiError
from lib.serve.limits import Limits
from lib.serve.metrics import Metrics
from lib.serve.models import ServedModel

T = TypeVar("T")

_RETRY_SECONDS = 5

_log = logging.getLogger(__name__)


class Busy(ApiError):
    """The queue is full, or the server is stopping: 503, and when another try makes sense."""

    def __init__(self, message: str) -> None:
        super().__init__(503, message, headers={"Retry-After": str(_RETRY_SECONDS)})


@dataclass(frozen=True)
class Event:
    """A new token of one text: `index` counts the requests of a generation, `piece` is the new text, maybe "".

    `finish_reason` is that of the `Request`, or "cancelled" or "timeout"; such a text ends without a token, with `id` None.
    """

    index: int
    id: int | None
    piece: str
    finish_reason: str | None = None
    score: TokenScore | None = None  # if the request explains its tokens


class Generation:
    """The texts of one request while they are continued: iterate over its events, in `async with`, which cancels the rest."""

    def __init__(self, model: ServedModel, requests: Sequence[Request], loop: asyncio.AbstractEventLoop) -> None:
        self.model = model
        self.submitted = time.monotonic()
        self.end_reason: str | None = None  # why its texts end before their time
        self.waiting = deque(enumerate(requests))  # those that have not joined a batch
        self.has_tokens = False
        self._unfinished = len(requests)
        self._loop = loop
        self._events: asyncio.Queue[Event | Exception] = asyncio.Queue()

    def cancel(self, reason: str = "cancelled") -> None:
        """End all texts after the step that is being computed; from any thread."""
        self.end_reason = self.end_reason or reason

    def deliver(self, item: Event | Exception) -> None:
        """Pass an event, or what ends all texts, to the reader; from the worker's thread."""
        _call_in(self._loop, self._events.put_nowait, item)

    async def __aenter__(self) -> "Generation":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.cancel()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if self._unfinished == 0:
            raise StopAsyncIteration
        item = await self._events.get()
        if isinstance(item, Exception):
            self._unfinished = 0
            raise item
        self._unfinished -= item.finish_reason is not None
        return item


@dataclass(eq=False)
class _Call:
    """A function to be called in the worker's thread, and the future of its result."""

    function: Callable[[], Any]
    future: "asyncio.Future[Any]"
    loop: asyncio.AbstractEventLoop

    @property
    def end_reason(self) -> str | None:
        """Set when nobody waits for the result any more."""
        return "cancelled" if self.future.cancelled() else None

    def cancel(self) -> None:
        """Do not call the function, unless it is running; from any thread."""
        _call_in(self.loop, self.future.cancel)

    def run(self) -> None:
        """Call the function."""
        try:
            with torch.inference_mode():
                result = self.function()
        except Exception as error:
            _call_in(self.loop, self._settle, None, error)
        else:
            _call_in(self.loop, self._settle, result, None)

    def _settle(self, result: Any, error: Exception | None) -> None:
        if not self.future.done():
            self.future.set_result(result) if error is None else self.future.set_exception(error)


class Worker:
    """The thread that computes, its queue and its batches."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits, self._metrics = limits, metrics
        self._queue: deque[Generation | _Call] = deque()
        self._running: dict[Request, tuple[Generation, int]] = {}
        self._batches: dict[str, TokenBatch[Request]] = {}
        self._changed = threading.Condition()
        self._refuses = self._stopped = False
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def queue_length(self) -> int:
        """The requests that wait."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """The texts that are being continued."""
        return len(self._running)

    def submit(self, model: ServedModel, requests: Sequence[Request]) -> Generation:
        """Continue `requests`, which wait for their turn. Busy if the queue is full. In a running event loop."""
        generation = Generation(model, requests, asyncio.get_running_loop())
        if requests:
            self._enqueue(generation)
        return generation

    async def call(self, function: Callable[[], T]) -> T:
        """The result of `function`, called between two steps, in turn. Busy if the queue is full."""
        loop = asyncio.get_running_loop()
        job = _Call(function, loop.create_future(), loop)
        self._enqueue(job)
        return await job.future

    def refuse(self) -> None:
        """From now on new requests are Busy; those that wait and run are finished."""
        self._refuses = True

    def cancel_all(self) -> None:
        """End all texts after the step that is being computed."""
        for job in (*self._queue, *(generation for generation, _ in list(self._running.values()))):
            job.cancel()

    def stop(self, seconds: float = 5.0) -> None:
        """End the thread after the step that is being computed, and wait up to `seconds` for that."""
        with self._changed:
            self._refuses = self._stopped = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _enqueue(self, job: Generation | _Call) -> None:
        if self._refuses:
            raise Busy("the server is stopping")
        with self._changed:
            waiting = sum(other.end_reason is None for other in self._queue)
            if waiting >= self._limits.queue:
                raise Busy(f"{waiting} requests are waiting, which is the most that this server keeps; try again later")
            self._queue.append(job)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._running or self._stopped)
            if self._stopped:
                return
            self._end_early()
            self._admit()
            for name, batch in list(self._batches.items()):
                if len(batch):
                    self._step(name, batch)

    def _end_early(self) -> None:
        """End the texts that were canceled, and those of requests that are out of time."""
        late = time.monotonic() - self._limits.seconds
        with self._changed:
            ended: list[tuple[Generation, int, Request]] = []
            for job in list(self._queue):
                if isinstance(job, Generation) and job.submitted < late:
                    job.cancel("timeout")
                if job.end_reason is not None:
                    self._queue.remove(job)
                    ended += [(job, *pair) for pair in job.waiting] if isinstance(job, Generation) else []
        for request, (generation, index) in list(self._running.items()):
            if generation.submitted < late:
                generation.cancel("timeout")
            if generation.end_reason is not None:
                del self._running[request]
                ended.append((generation, index, request))
        for generation, index, request in ended:
            assert generation.end_reason is not None
            piece = request.end(generation.end_reason)
            generation.deliver(Event(index, None, piece, generation.end_reason))

    def _admit(self) -> None:
        """Let waiting texts join while there is room, and do the next call, if it is one's turn; first come, first served."""
        while True:
            with self._changed:
                job = self._queue[0] if self._queue else None
                if isinstance(job, Generation):
                    if len(self._running) >= self._limits.together:
                        return
                    index, request = job.waiting.popleft()
                if job is not None and not (isinstance(job, Generation) and job.waiting):
                    self._queue.popleft()
            if job is None:
                return
            if isinstance(job, _Call):
                job.run()
                return
            self._join(job, index, request)

    def _join(self, generation: Generation, index: int, request: Request) -> None:
        model = generation.model
        batch = self._batches.setdefault(model.name, TokenBatch(model.model.network, model.model.device))
        try:
            batch.add(request)
        except Exception as error:
            self._fail(generation, error if isinstance(error, MakegptError) else _failure(error))
            return
        self._running[request] = generation, index
        self._metrics.prompt_tokens += len(request.prompt.source or request.prompt.ids)

    def _step(self, name: str, batch: TokenBatch[Request]) -> None:
        """One new token for each text of a batch."""
        try:
            logits = batch.step()
        except Exception as error:  # nothing is known about the state of the batch
            failure = _failure(error)
            for generation in {generation for generation, _ in self._running.values() if generation.model.name == name}:
                self._fail(generation, failure)
            del self._batches[name]
            return
        for request, row in logits:
            generation, index = self._running[request]
            try:
                id = request.choose_next(row)
                piece = request.add(id, row)
            except Exception as error:
                self._fail(generation, _failure(error))
                continue
            self._metrics.generated_tokens += 1
            if not generation.has_tokens:
                generation.has_tokens = True
                self._metrics.first_token.observe(time.monotonic() - generation.submitted)
            if request.finish_reason is not None:
                del self._running[request]
            generation.deliver(Event(index, id, piece, request.finish_reason, request.last_score))

    def _fail(self, generation: Generation, error: Exception) -> None:
        """End all texts of a request with an error."""
        generation.cancel("failed")
        generation.deliver(error)


def _failure(error: Exception) -> ApiError:
    """What a client reads of an error that is not its own: what a MakegptError says, such as one about damaged weights."""
    _log.error("a text could not be computed: %s", error, exc_info=error)
    return ApiError(500, str(error) if isinstance(error, MakegptError) else "the server failed to answer; its log says why")


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *arguments: Any) -> None:
    """Call `function` in the thread of an event loop, unless it has ended with all that would read the result."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *arguments)
