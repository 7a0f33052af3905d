"""What one request, and all requests together, may ask of a server."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The bounds of memory and time that a server keeps to, whatever its clients send."""

    tokens: int = 4096  # new tokens of one text
    texts: int = 64  # texts of one request: its prompts times n
    batch_size: int = 16  # texts that are continued at one time, each with its KV cache; the others wait
    queue: int = 64  # requests that wait; further ones get 503
    timeout: float = 600.0  # seconds of one request, waiting included; then its texts end
    body: int = 1 << 20  # bytes of a request's body
    bodies: int = 8 << 20  # bytes of the bodies of all requests that are being answered
    upload_seconds: float = 30.0  # for the head of a request, and again for its body
    connections: int = 1000  # open at one time; further ones are closed
