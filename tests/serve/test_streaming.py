"""Events byte for byte, errors after a stream has begun, and clients that leave or read slowly."""

import asyncio
import json
import re
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import Any, AsyncGenerator, Iterator

import pytest

from lib.serve.errors import ApiError
from lib.serve.streaming import ClientLeft, EventStream, unless_client_leaves
from tests.serve.running import Running

SCOPE: dict[str, Any] = {"type": "http"}


async def nothing_comes() -> Any:
    await asyncio.Event().wait()


def sent(
    events: AsyncGenerator[dict[str, Any], None], receive: Any = nothing_comes, delay: float = 0.0
) -> tuple[bytes, list[str]]:
    """What a client gets of a stream, if it takes `delay` seconds to read an event; and "closed" when it is closed."""
    content, closed = b"", []

    async def send(message: Any) -> None:
        nonlocal content
        content += message.get("body", b"")

    asyncio.run(EventStream(events, lambda: closed.append("closed"))(SCOPE, receive, send))
    return content, closed


async def two_events(error: Exception | None = None) -> AsyncGenerator[dict[str, Any], None]:
    yield {"text": "€"}
    yield {"text": "\n\u2028"}
    if error:
        raise error


def test_each_event_is_one_line_of_json_and_an_empty_line() -> None:
    assert sent(two_events()) == (b'data: {"text":"\\u20ac"}\n\ndata: {"text":"\\n\\u2028"}\n\ndata: [DONE]\n\n', ["closed"])


@pytest.mark.parametrize(
    ("error", "message"),
    [(ApiError(503, "the server is stopping"), "is stopping"), (ValueError("/home/secret"), "its log says why")],
)
def test_an_error_after_the_first_event_is_an_event_and_the_last(error: Exception, message: str) -> None:
    content, closed = sent(two_events(error))
    *_, last, end = content.decode("utf-8").split("\n\n")
    assert message in json.loads(last.removeprefix("data: "))["error"]["message"]
    assert (end, closed) == ("", ["closed"])
    assert b"secret" not in content
    assert b"[DONE]" not in content


def test_a_client_that_leaves_closes_the_stream_while_it_waits_for_an_event() -> None:
    async def endless() -> AsyncGenerator[dict[str, Any], None]:
        yield {}
        await asyncio.Event().wait()

    async def leaves() -> Any:
        await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    assert sent(endless(), leaves) == (b"data: {}\n\n", ["closed"])


def test_work_is_cancelled_when_nobody_waits_for_it() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def left() -> Any:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientLeft):
        asyncio.run(unless_client_leaves(left, work()))
    assert ended == [True]


def metric(server: Running, name: str) -> int:
    """A number of /metrics."""
    _, content = server.ask("GET", "/metrics")
    match = re.search(rf"^{name} (\d+)".encode(), content, re.MULTILINE)
    assert match, content
    return int(match[1])


@contextmanager
def asked(server: Running, body: dict[str, Any], buffer: int | None = None) -> Iterator[socket.socket]:
    """A connection on which a completion was asked for; `buffer`: bytes that may wait to be read."""
    content = json.dumps(body).encode()
    with socket.socket() as connection:
        if buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connection.settimeout(60)
        connection.connect((server.host, server.port))
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {server.host}:{server.port}\r\nContent-Length: {len(content)}\r\n"
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode() + content)
        yield connection


def wait_for_texts(server: Running, count: int) -> None:
    """Wait until so many texts are being continued, and none waits."""
    deadline = time.monotonic() + 60
    while (metric(server, "makegpt_texts_running"), metric(server, "makegpt_requests_waiting")) != (count, 0):
        assert time.monotonic() < deadline


@pytest.mark.parametrize("stream", [True, False])
def test_texts_end_soon_after_their_client_has_left(server: Running, stream: bool) -> None:
    with asked(server, {"prompt": "be", "max_tokens": 4096, "n": 4, "seed": 1, "stream": stream}):
        wait_for_texts(server, 4)
    before = metric(server, "makegpt_generated_tokens_total")
    wait_for_texts(server, 0)
    after = metric(server, "makegpt_generated_tokens_total")
    assert after - before < 4 * 200, "of 4 * 4,096: a step of this model takes less time than to notice a closed connection"


def test_a_client_that_does_not_read_holds_nobody(server: Running) -> None:
    body = {"prompt": "be", "max_tokens": 1000, "n": 4, "seed": 1, "logprobs": 20, "stream": True}
    with asked(server, body, buffer=4096) as connection:
        wait_for_texts(server, 4)
        assert server.post("/v1/completions", {"prompt": "be", "max_tokens": 3})["usage"]["completion_tokens"] == 3
        wait_for_texts(server, 0)  # all is computed, though next to nothing is read
        content = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    assert len(content) > 3_000_000
    assert content.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_curl_shows_a_stream_event_by_event(server: Running) -> None:
    body = json.dumps({"prompt": "be", "max_tokens": 3, "temperature": 0, "logprobs": 0, "stream": True})
    words = ["curl", "-sN", "-i", f"{server.url}/v1/completions", "-H", "Content-Type: application/json", "-d", body]
    answer = subprocess.run(words, capture_output=True, timeout=30, check=True).stdout.decode("utf-8")
    head, _, events = answer.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK")
    assert "content-type: text/event-stream; charset=utf-8" in head
    lines = events.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    assert all(line.startswith("data: {") for line in lines[:-2])
    assert len(lines) == 5


def test_curl_without_a_content_type_and_with_a_file_is_answered(server: Running, tmp_path: Any) -> None:
    (tmp_path / "body.json").write_text('{"prompt": "be", "max_tokens": 3}', encoding="utf-8")
    words = ["curl", "-s", f"{server.url}/v1/completions", "--data-binary", f"@{tmp_path}/body.json"]
    answer = json.loads(subprocess.run(words, capture_output=True, timeout=30, check=True).stdout)
    assert answer["usage"]["completion_tokens"] == 3
