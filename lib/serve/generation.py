"""The texts of one request while they are computed, and their tokens on the way to whoever reads them."""

import asyncio
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, AsyncIterator, Callable, Sequence

from lib.generate.request import Request
from lib.generate.token_scores import TokenScore
from lib.serve.models import ServedModel


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
    """The texts of one request while they are continued: iterate over its events, and `cancel` it in the end in any case."""

    def __init__(self, model: ServedModel, requests: Sequence[Request], loop: asyncio.AbstractEventLoop) -> None:
        self.model = model
        self.submitted = time.monotonic()
        self.end_reason: str | None = None  # why its texts end before their time
        self.waiting = deque(enumerate(requests))  # those that have not joined a batch, and their indexes
        self.has_tokens = False
        self._unfinished = len(requests)
        self._loop = loop
        self._events: asyncio.Queue[Event | Exception] = asyncio.Queue()

    def cancel(self, reason: str = "cancelled") -> None:
        """End all texts after the step that is being computed; from any thread."""
        self.end_reason = self.end_reason or reason

    def end(self, index: int, request: Request) -> None:
        """End a text of a generation that was cancelled, for its reason; from the worker's thread."""
        assert self.end_reason is not None
        self.deliver(Event(index, None, request.end(self.end_reason), self.end_reason))

    def deliver(self, item: Event | Exception) -> None:
        """Pass an event, or what ends all texts, to the reader; from the worker's thread."""
        call_in(self._loop, self._events.put_nowait, item)

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


def call_in(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *arguments: Any) -> None:
    """Call `function` in the thread of an event loop, unless that has ended with all that would read the result."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *arguments)
