"""The one thread that computes, for all clients: a queue, and for each model a batch that texts join and leave.

Handlers run in the event loop and never compute; the worker computes and never waits for a client. A handler submits the
texts of its request and reads events, one per token, which wait in memory until it does: a slow reader holds nobody.

A turn of the worker: texts that are cancelled or out of time end; waiting ones join, one of each request after another; one
waiting function is called; each batch does one step.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import Callable, Iterator, Sequence, TypeVar

import torch

from lib.generate.batch import TokenBatch
from lib.generate.request import Request
from lib.generate.sampling import DamagedWeights
from lib.serve.errors import ApiError
from lib.serve.generation import Event, Generation, call_in
from lib.serve.limits import Limits
from lib.serve.metrics import Metrics
from lib.serve.models import ServedModel

T = TypeVar("T")

#: Tokens of the longest context beyond which a text may grow: its window slides, and is computed for each new token. In a
#: longer one that would hold the others, so the text ends.
LONGEST_WINDOW = 256

_RETRY_SECONDS = 5

_log = logging.getLogger(__name__)


class Busy(ApiError):
    """The queue is full, or the server is stopping: 503, and when another try makes sense."""

    def __init__(self, message: str) -> None:
        super().__init__(503, message, headers={"Retry-After": str(_RETRY_SECONDS)})


@dataclass(eq=False)
class _Call:
    """A function to be called in the worker's thread, once in each of its turns until it returns true."""

    function: Callable[[], bool]
    loop: asyncio.AbstractEventLoop
    done: "asyncio.Future[None]"
    submitted: float = field(default_factory=time.monotonic)

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.done.cancelled()

    def run(self) -> bool:
        """Call the function; whether that was the last time."""
        try:
            with torch.inference_mode():
                is_last = self.function()
        except Exception as error:
            self.end(error)
            return True
        if is_last:
            self.end(None)
        return is_last

    def end(self, error: Exception | None) -> None:
        """Let the handler continue, or raise `error`; from the worker's thread."""
        call_in(self.loop, self._end, error)

    def _end(self, error: Exception | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class Worker:
    """The thread that computes, its queue and its batches."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits, self._metrics = limits, metrics
        self._texts: deque[Generation] = deque()  # requests with texts that have not joined a batch
        self._calls: deque[_Call] = deque()
        self._running: dict[Request, tuple[Generation, int]] = {}
        self._batches: dict[str, TokenBatch[Request]] = {}
        self._changed = threading.Condition()  # guards the two queues
        self._refuses = self._cancels = self._stops = False
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """The requests in the queue."""
        with self._changed:
            texts = sum(generation.end_reason is None for generation in self._texts)
            return texts + sum(not call.is_abandoned for call in self._calls)

    @property
    def running(self) -> int:
        """The texts that are being continued."""
        return len(self._running)

    def submit(self, model: ServedModel, requests: Sequence[Request], *, accepted: bool = False) -> Generation:
        """Continue `requests`, which wait for their turn; in a running event loop.

        Busy if the queue is full, unless the HTTP request was `accepted` before: then it is finished.
        """
        generation = Generation(model, requests, asyncio.get_running_loop())
        if requests:
            self._enqueue(self._texts, generation, accepted)
        return generation

    async def call(self, function: Callable[[], T]) -> T:
        """The result of `function`, called between two steps. Busy if the queue is full."""
        (result,) = await self.collect((function() for _ in range(1)), 2)
        return result

    async def collect(self, items: Iterator[T], at_once: int) -> list[T]:
        """All `items`, computed `at_once` in each turn, so that texts continue in between. Busy if the queue is full."""
        collected: list[T] = []

        def more() -> bool:
            new = list(islice(items, at_once))
            collected.extend(new)
            return len(new) < at_once

        loop = asyncio.get_running_loop()
        call = _Call(more, loop, loop.create_future())
        self._enqueue(self._calls, call)
        await call.done
        return collected

    def refuse(self) -> None:
        """From now on new requests are Busy; those that wait and run are finished."""
        self._refuses = True

    def cancel_all(self) -> None:
        """End all that waits and runs after the step that is being computed."""
        self._cancels = True

    def stop(self, seconds: float = 5.0) -> None:
        """End the thread after the step that is being computed, and wait up to `seconds` for that."""
        with self._changed:
            self._refuses = self._stops = True
            self._changed.notify()
        if self.is_alive:
            self._thread.join(seconds)

    def _enqueue(self, queue: deque[T], job: T, accepted: bool = False) -> None:
        if not accepted:
            if self._refuses:
                raise Busy("the server is stopping")
            if (waiting := self.waiting) >= self._limits.queue:
                raise Busy(f"{waiting} requests are waiting, which is the most that this server keeps; try again later")
        with self._changed:
            queue.append(job)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._texts or self._calls or self._running or self._stops)
            if self._stops:
                return
            try:
                self._end_early()
                self._join_batches()
                self._call_next()
                for name, batch in list(self._batches.items()):
                    self._step(name, batch)
            except Exception as error:  # a bug, which must not let everybody wait
                for generation, _ in list(self._running.values()):
                    self._fail(generation, _failure(error))
                self._running.clear()
                self._batches.clear()

    def _end_early(self) -> None:
        """End what is cancelled, and what is out of time."""
        late = time.monotonic() - self._limits.timeout
        with self._changed:
            texts, calls = list(self._texts), list(self._calls)
        for call in calls:
            if call.is_abandoned or self._cancels or call.submitted < late:
                reason = "the server is stopping" if self._cancels else "the request waited too long; try again later"
                call.end(Busy(reason))
                self._remove(self._calls, call)
        for generation in {*texts, *(generation for generation, _ in self._running.values())}:
            if self._cancels:
                generation.cancel()
            elif generation.submitted < late:
                generation.cancel("timeout")
        for generation in texts:
            if generation.end_reason is not None:
                self._remove(self._texts, generation)
                for index, request in generation.waiting:
                    generation.end(index, request)
        for request, (generation, index) in list(self._running.items()):
            if generation.end_reason is not None:
                del self._running[request]
                generation.end(index, request)

    def _remove(self, queue: deque[T], job: T) -> None:
        with self._changed:
            queue.remove(job)

    def _join_batches(self) -> None:
        """Let waiting texts join while there is room, one of each request in turn."""
        while len(self._running) < self._limits.batch_size:
            with self._changed:
                if not self._texts:
                    return
                generation = self._texts.popleft()
                index, request = generation.waiting.popleft()
                if generation.waiting:
                    self._texts.append(generation)
            self._join(generation, index, request)

    def _join(self, generation: Generation, index: int, request: Request) -> None:
        model = generation.model
        batch = self._batches.setdefault(model.name, TokenBatch(model.model.network, model.model.device))
        try:
            batch.add(request)
        except Exception as error:
            self._fail(generation, _failure(error))
            return
        self._running[request] = generation, index
        self._metrics.prompt_tokens += len(request.prompt.source or request.prompt.ids)

    def _call_next(self) -> None:
        """One turn of the call that waits longest; if it needs more of them, it is then the last in the queue."""
        with self._changed:
            call = self._calls.popleft() if self._calls else None
        if call is not None and not call.run():
            with self._changed:
                self._calls.append(call)

    def _step(self, name: str, batch: TokenBatch[Request]) -> None:
        """One new token for each text of a batch."""
        batch.drop_finished()
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
            if (
                request.finish_reason is None
                and len(request.ids) > generation.model.model.config.context_length > LONGEST_WINDOW
            ):
                piece += request.end("length")
            self._metrics.generated_tokens += 1
            if not generation.has_tokens:
                generation.has_tokens = True
                self._metrics.first_token.observe(time.monotonic() - generation.submitted)
            if request.finish_reason is not None:
                del self._running[request]
            generation.deliver(Event(index, id, piece, request.finish_reason, request.last_score))
        batch.drop_finished()

    def _fail(self, generation: Generation, error: Exception) -> None:
        """End all texts of a request with an error."""
        generation.cancel("failed")
        generation.deliver(error)


def _failure(error: Exception) -> ApiError:
    """What a client reads of an error that is not its own."""
    _log.error("a text could not be computed: %s: %s", type(error).__name__, error, exc_info=error)
    return ApiError(500, str(error) if isinstance(error, DamagedWeights) else "the server failed to answer; its log says why")
