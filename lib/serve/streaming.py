"""Answers in pieces, as server-sent events: `data: {…}` and an empty line for each; and what happens when the client leaves."""

import asyncio
import json
import logging
from contextlib import aclosing
from typing import Any, AsyncGenerator, Callable, Coroutine, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lib.serve.errors import as_api_error

T = TypeVar("T")

_log = logging.getLogger(__name__)


class ClientLeft(Exception):
    """The client closed the connection before the answer was complete; nobody reads an answer to that."""


async def unless_client_leaves(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled as soon as the connection is closed: ClientLeft.

    The body must have been received whole.
    """
    answer = asyncio.ensure_future(work)
    left = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((answer, left), return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise ClientLeft
    finally:
        for task in (answer, left):
            task.cancel()
        await asyncio.gather(answer, left, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """The objects of a generator as events, each sent as it is ready, then `[DONE]`.

    An error after the first event is an event with OpenAI's error object, and ends the stream without `[DONE]`. A client that
    reads slowly holds nobody else: its events wait in the generator. `close` is called at the end, however it ends.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[dict[str, Any], None], close: Callable[[], None]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events."""
        try:
            await unless_client_leaves(receive, self._send(send))
        except (ClientLeft, OSError):
            pass
        finally:
            self._close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._events):
            try:
                async for data in self._events:
                    await send(_body(_event(json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")))))
                last = _event("[DONE]")
            except OSError:  # the connection is closed
                raise
            except Exception as error:
                answer = as_api_error(error)
                if answer.status >= 500:
                    _log.exception("a stream ended with an error")
                last = _event(json.dumps(answer.to_json()))
        await send(_body(last, more=False))


def _event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


def _body(content: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}
