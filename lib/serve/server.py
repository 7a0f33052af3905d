"""From an address to answers: sockets, loading, and an orderly end."""

import asyncio
import math
import os
import signal
import socket
import threading
from contextlib import contextmanager
from typing import Any, Callable, Iterator, TypeVar, cast

import uvicorn
from anyio import to_thread
from uvicorn.protocols.http.h11_impl import H11Protocol

from lib.errors import MakegptError, UsageError
from lib.serve.app import create_app, surrounded
from lib.serve.generation import call_in
from lib.serve.limits import Limits
from lib.serve.metrics import Metrics
from lib.serve.models import ServedModels
from lib.serve.safety import Access
from lib.serve.worker import Worker

T = TypeVar("T")

_BACKLOG = 1024  # connections that the system keeps until they are accepted
_PARSERS = 4  # threads that read bodies and write answers; each holds the interpreter while it does
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_CLOSING_SECONDS = 2.0  # for the answers of texts that were cancelled


def serve(
    load: Callable[[], ServedModels],
    host: str,
    port: int,
    *,
    limits: Limits,
    access: Access,
    stop_seconds: float,
    on_ready: Callable[[str, ServedModels], None],
    on_stop: Callable[[str], None],
) -> None:
    """Listen on `host` and `port` (0: a free one), `load` the models, and answer until SIGTERM or SIGINT.

    A signal closes the port; what runs and waits is finished within `stop_seconds`, then cancelled. A second signal ends the
    process at once. `on_ready` is called with the address when the models are loaded, `on_stop` with a message after a signal.
    MakegptError if the address is not available.
    """

    async def run() -> None:
        server = Server(limits, access)
        loop = asyncio.get_running_loop()

        def stop() -> None:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_DFL)
            on_stop(f"stopping; what runs has {stop_seconds:g} s, another signal ends it at once")
            server.stop(stop_seconds)

        for number in _SIGNALS:
            loop.add_signal_handler(number, stop)
        await server.run(listener, load, on_ready)

    with _listen(host, port) as listener:
        asyncio.run(run())


class Server:
    """A server with its worker."""

    def __init__(self, limits: Limits, access: Access) -> None:
        """In a running event loop."""
        metrics = Metrics()
        self._worker = Worker(limits, metrics)
        self._app = create_app(self._worker, metrics, limits, access)
        self._stopping = asyncio.Event()
        config = uvicorn.Config(
            surrounded(self._app),
            http=_protocol(limits),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
        )
        self._http = _Server(config)

    async def run(
        self, listener: socket.socket, load: Callable[[], ServedModels], on_ready: Callable[[str, ServedModels], None]
    ) -> None:
        """Load the models while answering that they are being loaded, then answer until `stop`; errors of `load` end it too."""
        to_thread.current_default_thread_limiter().total_tokens = _PARSERS
        self._worker.start()
        serving = asyncio.create_task(self._http.serve(sockets=[listener]))
        loading, stopping = in_thread(load), asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                self._app.state.models = loading.result()
                if not self._stopping.is_set():
                    on_ready(_address(listener), loading.result())
        except BaseException:
            self.stop(0)
            raise
        finally:
            await serving
            stopping.cancel()
            self._worker.stop()

    def stop(self, seconds: float) -> None:
        """Accept no more connections; what runs and waits has so many `seconds`. Models that are being loaded are given up."""
        self._stopping.set()
        self._worker.refuse()
        asyncio.get_running_loop().call_later(seconds, self._worker.cancel_all)
        self._http.config.timeout_graceful_shutdown = math.ceil(seconds + _CLOSING_SECONDS)
        self._http.should_exit = True


def in_thread(function: Callable[[], T]) -> "asyncio.Future[T]":
    """The result of `function`, called in a thread that does not keep the process from ending, as asyncio's own would."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if not future.done():
            future.set_exception(error) if error else future.set_result(cast(T, result))

    def work() -> None:
        try:
            result = function()
        except Exception as error:
            call_in(loop, settle, None, error)
        else:
            call_in(loop, settle, result, None)

    threading.Thread(target=work, daemon=True).start()
    return future


class _Server(uvicorn.Server):
    """Uvicorn's server, without its signal handlers."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them to `serve`."""
        yield


def _protocol(limits: Limits) -> type[H11Protocol]:
    """HTTP/1.1 with two more limits: on connections, and on the time that the head of a request may take."""

    class Protocol(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                transport.close()
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self._deadline is not None:
                self._deadline.cancel()

        def _watch(self) -> None:
            """Close the connection if no request is complete in time; the time begins when none is being answered."""
            is_answering = self.cycle is not None and not self.cycle.response_complete
            if is_answering and self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
            elif not is_answering and self._deadline is None:
                self._deadline = self.loop.call_later(limits.upload_seconds, self.transport.close)

    return Protocol


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens on `host` and `port`."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise UsageError(f"--host {host}: {error.strerror}; use 127.0.0.1, or an address of this machine") from None
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise MakegptError(f"{host}, port {port}: {os.strerror(error.errno or 0)}; --port 0 takes a free one") from None
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
