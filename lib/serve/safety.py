"""Who may ask, and how much: an ASGI middleware around all routes.

A page of another site that is open in a browser on the same machine can send requests to a server on 127.0.0.1. It cannot
change two headers: `Origin` says which page asks, `Host` by which name the server was reached. With DNS rebinding the name of
a foreign site leads to 127.0.0.1, so a name that is not this server's is refused; an IP address cannot be rebound.
"""

import asyncio
import hashlib
import ipaddress
import secrets
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lib.serve.errors import ApiError
from lib.serve.limits import Limits

#: Headers of every answer: a page may load nothing from elsewhere, and nobody may frame it, guess its type or embed it.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}

#: Beyond the time of a request: what the slowest reader may take for the rest of its answer.
_EXTRA_SECONDS = 60.0


@dataclass(frozen=True)
class Access:
    """Who may use a server that listens on `host`.

    `names`: by which it can be reached besides, through a proxy for example. `api_key`: None if nobody needs one.
    """

    host: str = "127.0.0.1"
    names: tuple[str, ...] = ()
    api_key: str | None = field(default=None, repr=False)

    def check_site(self, headers: Headers) -> None:
        """ApiError 403 for a foreign Host or Origin."""
        host = headers.get("host", "").lower()
        name = host_name(host)
        if host and not (name in ("localhost", bare(self.host)) or self._is_named(name) or _is_address(name)):
            raise ApiError(403, f"the host {host[:100]!r} is not a name of this server; `serve --allow-host NAME` adds one")
        origin = headers.get("origin")
        if origin is not None:
            site = origin.partition("://")[2].lower()
            if not ((host and site == host) or self._is_named(host_name(site))):
                message = f"pages of {origin[:100]!r} may not use this server; `serve --allow-host NAME` allows those of a name"
                raise ApiError(403, message)

    def check_key(self, headers: Headers) -> None:
        """ApiError 401 for a missing or wrong key. The time does not depend on how much of a key is right."""
        if self.api_key is None:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        digests = (hashlib.sha256(key.encode()).digest() for key in (given.strip(), self.api_key))  # of the same length
        if not secrets.compare_digest(*digests) or kind.lower() != "bearer":
            raise ApiError(
                401,
                "the API key is missing or wrong; send the header `Authorization: Bearer KEY`",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _is_named(self, name: str) -> bool:
        return name in map(bare, self.names)


def host_name(host: str) -> str:
    """The name in a Host header: without its port and the brackets of an IPv6 address."""
    return bare(host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0])


def bare(name: str) -> str:
    """A name or an IP address in lower case, without a dot at the end."""
    return name.lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether a server on `host`, a name or an IP address, can be reached from this machine alone."""
    return bare(host) == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


class Safety:
    """The middleware: checks access, reads the body within its limits, and adds the headers."""

    def __init__(self, app: ASGIApp, access: Access, limits: Limits, public: frozenset[str]) -> None:
        """`public`: the paths that need no key."""
        self._app, self._access, self._limits, self._public = app, access, limits, public
        self._held = 0  # bytes of bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        is_started = False

        async def send_safely(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                MutableHeaders(raw=message.setdefault("headers", [])).update(HEADERS)
            await send(message)

        headers, body = Headers(scope=scope), bytearray()
        try:
            self._access.check_site(headers)
            if scope["path"] not in self._public:
                self._access.check_key(headers)
            await self._read(body, headers, receive)
            async with asyncio.timeout(self._limits.timeout + _EXTRA_SECONDS):
                await self._app(scope, _replay(bytes(body), receive), send_safely)
        except ApiError as error:
            await _refuse(error, scope, receive, send_safely)
        except TimeoutError:
            if not is_started:
                await _refuse(ApiError(503, "the answer took too long"), scope, receive, send_safely)
        except _ClientLeft:
            pass
        finally:
            self._held -= len(body)

    async def _read(self, body: bytearray, headers: Headers, receive: Receive) -> None:
        """Read the whole body. ApiError if it is too long, too slow, or if too many others are being read."""
        limit = self._limits.body
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > limit:
            raise _too_long(limit)
        try:
            async with asyncio.timeout(self._limits.upload_seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _ClientLeft
                    chunk, more = message.get("body", b""), message.get("more_body", False)
                    body += chunk
                    self._held += len(chunk)
                    if len(body) > limit:
                        raise _too_long(limit)
                    if self._held > self._limits.bodies:
                        raise ApiError(503, "too many large requests at one time", headers={"Retry-After": "5"})
        except TimeoutError:
            raise ApiError(408, f"the body did not arrive within {self._limits.upload_seconds:.0f} seconds") from None


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with an error and close the connection, on which the rest of a body may come."""
    response = error.response()
    response.headers["Connection"] = "close"
    await response(scope, receive, send)


class _ClientLeft(Exception):
    """The connection was closed before the request was complete."""


def _too_long(limit: int) -> ApiError:
    return ApiError(413, f"the body has more than {limit:,} bytes, the most that this server reads; send less in one request")


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the whole body, then whether the client has left."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
