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
from typing import Iterable

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
    """`names`: by which the server may be reached, besides localhost and any IP address. `api_key`: None if nobody needs one.

    `public`: the paths that need no key.
    """

    names: frozenset[str] = frozenset()
    api_key: str | None = field(default=None, repr=False)
    public: frozenset[str] = frozenset()

    def check(self, path: str, headers: Headers) -> None:
        """ApiError 403 for a foreign Host or Origin, 401 for a missing or wrong key."""
        host = headers.get("host", "")
        name = host_name(host)
        if host and not (name == "localhost" or name in self.names or _is_address(name)):
            raise ApiError(403, f"the host {host[:100]!r} is not a name of this server; --allow-host adds one")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            raise ApiError(403, f"pages of {origin[:100]!r} may not use this server")
        if self.api_key is not None and path not in self.public and not self._has_key(headers):
            raise ApiError(
                401,
                "the API key is missing or wrong; send the header `Authorization: Bearer KEY`",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _has_key(self, headers: Headers) -> bool:
        """Compared in a time that does not depend on the key: digests, which have the same length."""
        kind, _, given = headers.get("authorization", "").partition(" ")
        keys = (given.strip().encode("latin-1"), (self.api_key or "").encode("utf-8", "surrogateescape"))  # as they were sent
        return secrets.compare_digest(*(hashlib.sha256(key).digest() for key in keys)) and kind.lower() == "bearer"


def host_name(host: str) -> str:
    """The name in a Host header, in lower case: without its port, the brackets of an IPv6 address and a dot at the end."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether a server on `host`, a name or an IP address, can be reached from this machine alone."""
    name = host_name(f"[{host}]" if ":" in host else host)
    return name == "localhost" or (_is_address(name) and ipaddress.ip_address(name).is_loopback)


class Safety:
    """The middleware: checks access, reads the body within its limits, and adds the headers."""

    def __init__(self, app: ASGIApp, access: Access, limits: Limits) -> None:
        self._app, self._access, self._limits = app, access, limits
        self._held = 0  # bytes of bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(raw=message.setdefault("headers", [])).update(HEADERS)
            await send(message)

        body = bytearray()
        try:
            self._access.check(scope["path"], Headers(scope=scope))
            await self._read(body, Headers(scope=scope), receive)
            async with asyncio.timeout(self._limits.seconds + _EXTRA_SECONDS):
                await self._app(scope, _replay(bytes(body), receive), send_with_headers)
        except ApiError as error:
            response = error.response()
            response.headers["Connection"] = "close"  # the rest of a body is not read
            await response(scope, receive, send_with_headers)
        except (_ClientLeft, TimeoutError):
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


def allowed_names(host: str, names: Iterable[str]) -> frozenset[str]:
    """The names of a server on `host` that was given further `names`."""
    return frozenset(host_name(name) for name in (host, *names))
