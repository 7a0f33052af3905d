"""The server as a process and over real sockets: who may ask, what is refused, how it ends, and that it always continues."""

import asyncio
import json
import signal
import socket
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Iterator

import pytest
from starlette.datastructures import Headers

from lib.errors import MakegptError
from lib.generate.batch import PIECE
from lib.serve.errors import ApiError
from lib.serve.limits import Limits
from lib.serve.models import ServedModels
from lib.serve.safety import HEADERS, Access, is_loopback
from lib.serve.server import Server, _listen
from lib.serve.worker import LONGEST_WINDOW
from tests.conftest import PROJECT, Here
from tests.serve.running import Running, running, start
from tests.serve.test_worker import served

LONG = {"prompt": "To be", "max_tokens": 4000, "stream": True}


def send(server: Running, content: bytes) -> bytes:
    """All that the server answers to some bytes."""
    with closing(socket.create_connection((server.host, server.port), timeout=60)) as connection:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    answer = b""
    while part := connection.recv(65536):
        answer += part
    return answer


def post(path: str, content: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


def stream(server: Running, **body: Any) -> socket.socket:
    """A connection on which a long text is being streamed."""
    connection = socket.create_connection((server.host, server.port), timeout=60)
    connection.sendall(post("/v1/completions", json.dumps(LONG | body).encode()))
    return connection


def metric(server: Running, name: str) -> float:
    _, text = server.ask("GET", "/metrics")
    return next(float(line.split()[-1]) for line in text.decode().splitlines() if line.startswith(f"{name} "))


def wait_until(condition: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ── who may ask ──


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8080", 200),
        ("localhost.", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("192.168.1.7", 200),  # an address cannot be rebound
        ("class.example:8080", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("[evil.example]", 403),
        ("127.1", 403),
        ("", 200),  # HTTP/1.0; a browser always sends one
    ],
)
def test_a_foreign_host_is_refused(host: str, status: int) -> None:
    access = Access(names=("Class.example",))
    if status == 200:
        access.check_site(Headers({"host": host}))
    else:
        with pytest.raises(ApiError, match="is not a name of this server") as refusal:
            access.check_site(Headers({"host": host}))
        assert refusal.value.status == status


@pytest.mark.parametrize(
    ("host", "origin", "is_own"),
    [
        ("localhost:8080", "http://localhost:8080", True),
        ("[::1]:8080", "http://[::1]:8080", True),
        ("localhost", "https://localhost", True),
        ("127.0.0.1:8080", "https://class.example", True),  # through a proxy
        ("localhost:8080", "http://localhost:3000", False),
        ("localhost:8080", "http://127.0.0.1:8080", False),
        ("localhost:8080", "http://evil.example", False),
        ("localhost:8080", "http://class.example.evil.example", False),
        ("localhost:8080", "null", False),
        ("localhost:8080", "", False),
        ("", "null", False),
    ],
)
def test_the_page_of_another_origin_is_refused(host: str, origin: str, is_own: bool) -> None:
    headers, access = Headers({"host": host, "origin": origin}), Access(names=("class.example",))
    if is_own:
        access.check_site(headers)
    else:
        with pytest.raises(ApiError, match=r"may not use this server.*--allow-host"):
            access.check_site(headers)


def test_a_server_may_listen_on_a_name_and_on_ipv6() -> None:
    Access(host="gpt.example").check_site(Headers({"host": "gpt.example:8080"}))
    Access(host="::1").check_site(Headers({"host": "[::1]:8080"}))
    with pytest.raises(ApiError):
        Access(host="::1").check_site(Headers({"host": "gpt.example"}))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.7", False),
        ("example.com", False),
    ],
)
def test_loopback_is_recognized(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected


@pytest.fixture(scope="module")
def with_key(small: Path) -> Iterator[Running]:
    with running(small / "run", "--api-key", "se-same") as server:
        yield server


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer sesame"}, 401),
        ({"Authorization": "Bearer se-same2"}, 401),
        ({"Authorization": "Bearer se"}, 401),
        ({"Authorization": "Bearer sé-same".encode()}, 401),
        ({"Authorization": "Basic se-same"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": "bearer se-same"}, 200),
    ],
)
def test_with_a_key_all_but_the_page_and_health_needs_it(with_key: Running, header: dict[str, Any], status: int) -> None:
    for path in ("/v1/models", "/metrics", "/tokenizer_info"):
        response, answer = with_key.ask("GET", path, headers=header)
        assert response.status == status, path
        if status == 401:
            assert json.loads(answer)["error"]["code"] == "invalid_api_key"
            assert response.headers["WWW-Authenticate"] == "Bearer"
    for path in ("/", "/app.js", "/style.css", "/health"):
        assert with_key.ask("GET", path, headers=header)[0].status == 200


def test_other_machines_are_let_in_with_a_key_alone(small: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAKEGPT_API_KEY", raising=False)
    assert "give an --api-key, or set $MAKEGPT_API_KEY" in here("serve", small / "run", "--host", "0.0.0.0", code=2).err
    with closing(_listen("0.0.0.0", 0)) as taken:  # the key is accepted, and then the port is not free
        monkeypatch.setenv("MAKEGPT_API_KEY", "sesame")
        port = taken.getsockname()[1]
        output = here("serve", small / "run", "--host", "0.0.0.0", "--port", port, code=1).err
    assert "warning: other machines can reach this server" in output
    assert f"port {port}: Address already in use; --port 0 takes a free one" in output


# ── wrong commands ──


@pytest.mark.parametrize("key", ["two words", "sésame", "line\r"])
def test_a_key_that_no_header_can_carry_is_refused(small: Path, here: Here, key: str) -> None:
    assert "visible ASCII" in here("serve", small / "run", "--api-key", key, code=2).err


def test_runs_of_one_name_are_refused(small: Path, here: Here) -> None:
    assert "have the same name" in here("serve", small / "run", small / "run" / ".." / "run", code=2).err


def test_a_run_that_is_missing_ends_the_command_with_its_error(tmp_path: Path, here: Here) -> None:
    output = here("serve", tmp_path / "nothing", "--port", 0, code=1).err
    assert "nothing" in output
    assert len(output.splitlines()) == 1


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(MakegptError, match="Cannot assign requested address"):
        _listen("192.0.2.1", 0)
    with pytest.raises(MakegptError, match=r"use 127\.0\.0\.1"):
        _listen("no.such.host.invalid", 0)


# ── what is answered ──


def test_the_models_are_listed(server: Running) -> None:
    (model,) = server.get("/v1/models")["data"]
    assert server.get("/v1/models/run") == model
    assert {key: model[key] for key in ("id", "kind", "context_length", "vocab_size", "layers", "heads", "chat")} == {
        "id": "run",
        "kind": "gpt",
        "context_length": 32,
        "vocab_size": 256,
        "layers": 2,
        "heads": 2,
        "chat": False,
    }
    assert "did you mean 'run'" in server.get("/v1/models/rum", 404)["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("HEAD", "/health", 200),
        ("GET", "/metrics", 200),
        ("GET", "/nothing", 404),
        ("GET", "/../params.yaml", 404),
        ("GET", "/bundle.py", 404),
        ("GET", "/%2e%2e/api.py", 404),
        ("GET", "/v1/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("OPTIONS", "/v1/completions", 405),
        ("BREW", "/", 405),
        ("POST", "/v1/completions", 400),
    ],
)
def test_every_answer_has_the_headers_of_safety_and_no_path(server: Running, method: str, path: str, status: int) -> None:
    response, answer = server.ask(method, path)
    assert response.status == status
    assert {name: response.headers[name] for name in HEADERS} == HEADERS
    assert "Access-Control-Allow-Origin" not in response.headers
    assert str(Path.cwd()).encode() not in answer
    if status >= 400:
        assert method == "HEAD" or set(json.loads(answer)["error"]) == {"message", "type", "param", "code"}
    if status == 405:
        assert response.headers["Allow"]


def test_old_clients_and_pipelines_are_answered(server: Running) -> None:
    assert send(server, b"GET /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 OK")
    ask = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    answers = send(server, (ask + b"\r\n") * 4 + ask + b"Connection: close\r\n\r\n")
    assert answers.count(b'{"status":"ok"}') == 5


@pytest.mark.parametrize(
    "content",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",  # TLS
        b"GET / HTTP/x\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",  # no Host
        b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
    ],
)
def test_what_is_not_http_is_refused_and_the_server_continues(server: Running, content: bytes) -> None:
    try:
        answer = send(server, content)
    except OSError:  # closed before all was sent
        answer = b""
    assert not answer or answer.startswith(b"HTTP/1.1 4")
    assert server.get("/health") == {"status": "ok"}


# ── limits ──


def test_a_body_of_a_gigabyte_is_refused_unread(server: Running) -> None:
    answer = send(server, post("/tokenize", b"").replace(b"Length: 0", b"Length: 1000000000") + b"x" * 1000)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"].startswith("the body has more than 1,048,576 bytes")


def test_a_body_without_a_length_is_read_up_to_the_limit(server: Running) -> None:
    before = memory(server)
    sent = 0
    with closing(socket.create_connection((server.host, server.port), timeout=60)) as connection, suppress(OSError):
        connection.sendall(post("/tokenize", b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
        while sent < 1_000_000_000:  # until the server closes the connection
            connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            sent += 65536
    assert sent < 50_000_000
    assert memory(server) - before < 50_000_000
    assert server.get("/health") == {"status": "ok"}


def memory(server: Running) -> int:
    """Bytes of the server's memory."""
    status = Path(f"/proc/{server.process.pid}/status")
    if not status.exists():
        pytest.skip("/proc is missing")
    return 1024 * int(next(line for line in status.read_text().splitlines() if line.startswith("VmRSS")).split()[1])


def test_a_body_shorter_than_it_says_is_nobodys_request(server: Running) -> None:
    assert send(server, post("/tokenize", b"").replace(b"Length: 0", b"Length: 9") + b"{}") == b""
    assert server.get("/health") == {"status": "ok"}


def test_ten_thousand_connections_are_opened_and_dropped(server: Running) -> None:
    before = memory(server)
    ask = post("/v1/completions", json.dumps(LONG).encode())
    for n in range(10_000):
        connection = socket.create_connection((server.host, server.port), timeout=60)
        if n % 100 == 0:
            connection.sendall(ask[: n % 300])
        connection.close()
    wait_until(lambda: is_healthy(server))  # beyond the limit of open connections, new ones are closed
    assert memory(server) - before < 100_000_000


def is_healthy(server: Running) -> bool:
    with suppress(OSError):
        return server.get("/health") == {"status": "ok"}
    return False


def with_limits(client: Any, **limits: Any) -> Any:
    """The result of `await client(port)`, next to a server in this process with such limits."""

    async def work() -> Any:
        server = Server(Limits(**limits), Access())
        ready = asyncio.Event()
        with _listen("127.0.0.1", 0) as listener:
            models = ServedModels([served()])
            running = asyncio.create_task(server.run(listener, lambda: models, lambda *_: ready.set()))
            await ready.wait()
            try:
                async with asyncio.timeout(60):
                    return await client(listener.getsockname()[1])
            finally:
                server.stop(1)
                await running

    return asyncio.run(work())


async def all_of(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the connection is closed; what is still being sent then resets it."""
    answer = b""
    with suppress(ConnectionResetError):
        while part := await reader.read(65536):
            answer += part
    return answer


@pytest.mark.parametrize(
    "start",
    [b"", b"GET /health HTTP/1.1\r\n", post("/tokenize", b"").replace(b"Length: 0", b"Length: 100") + b"{"],
    ids=["nothing", "half a head", "half a body"],
)
def test_a_request_that_comes_slowly_is_cut(start: bytes) -> None:
    async def client(port: int) -> tuple[float, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        begin = time.monotonic()
        writer.write(start)
        read = asyncio.create_task(all_of(reader))
        while not read.done():
            writer.write(b" ") if start else None
            await asyncio.sleep(0.1)
        writer.close()
        return time.monotonic() - begin, read.result()

    seconds, answer = with_limits(client, upload_seconds=0.6)
    assert 0.5 < seconds < 10
    assert b"the body did not arrive within" in answer if b"POST" in start else answer == b""


def test_connections_beyond_the_limit_are_closed_and_places_become_free() -> None:
    async def client(port: int) -> list[bytes]:
        ask = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
        pairs.append(await asyncio.open_connection("127.0.0.1", port))
        refused = await pairs[-1][0].read()
        for _, writer in pairs:
            writer.close()
        await asyncio.sleep(0.1)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ask)
        answer = await reader.readline()
        writer.close()
        return [refused, answer]

    assert with_limits(client, connections=4) == [b"", b"HTTP/1.1 200 OK\r\n"]


def test_a_full_queue_is_503_with_the_time_to_wait(small: Path) -> None:
    with running(small / "run", "--batch-size", 1, "--queue", 2) as server:
        streams = [stream(server)]
        wait_until(lambda: metric(server, "makegpt_texts_running") == 1)
        streams += [stream(server), stream(server)]
        wait_until(lambda: metric(server, "makegpt_requests_waiting") == 2)
        response, answer = server.ask("POST", "/v1/completions", {"prompt": "a"})
        assert (response.status, response.headers["Retry-After"]) == (503, "5")
        assert json.loads(answer)["error"]["type"] == "overloaded_error"
        for connection in streams:
            connection.close()
        wait_until(lambda: metric(server, "makegpt_requests_waiting") == 0)
        server.post("/v1/completions", {"prompt": "a"})


# ── clients that leave ──


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_client_that_leaves_ends_its_text(server: Running, is_stream: bool) -> None:
    connection = stream(server, stream=is_stream)
    wait_until(lambda: metric(server, "makegpt_texts_running") == 1)
    if is_stream:
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    connection.close()
    wait_until(lambda: metric(server, "makegpt_texts_running") == 0, 2)
    count = metric(server, "makegpt_generated_tokens_total")
    time.sleep(0.1)
    assert metric(server, "makegpt_generated_tokens_total") == count


def test_a_client_that_does_not_read_holds_nobody(server: Running) -> None:
    slow = stream(server)
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    answer = server.post("/v1/completions", {"prompt": "a", "max_tokens": 5})
    assert answer["usage"]["completion_tokens"] == 5
    slow.close()


# ── the end ──


def exit_code(server: Running, *, seconds: float) -> int:
    """The exit code of a server that ends within `seconds`."""
    start = time.monotonic()
    code = server.process.wait(60)
    assert time.monotonic() - start < seconds, server.process.outputs()
    assert "Traceback" not in server.process.outputs()[1]
    return code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_what_runs_and_exits_with_0(small: Path, number: signal.Signals) -> None:
    server = start(small / "run")
    with closing(stream(server, max_tokens=300)) as connection:
        wait_until(lambda: metric(server, "makegpt_texts_running") == 1)
        server.process.send_signal(number)
        answer = read_all(connection)
    assert b"[DONE]" in answer
    assert exit_code(server, seconds=10) == 0
    with pytest.raises(OSError):  # noqa: PT011 - refused
        socket.create_connection((server.host, server.port))


def test_what_takes_longer_than_the_stated_time_is_cancelled_with_an_error(small: Path) -> None:
    server = start(small / "run", "--stop-timeout", "0.3s", "--max-tokens", 1_000_000)
    with closing(stream(server, max_tokens=1_000_000)) as connection:
        wait_until(lambda: metric(server, "makegpt_texts_running") == 1)
        server.process.send_signal(signal.SIGTERM)
        answer = read_all(connection)
    assert b"the server is stopping" in answer
    assert b"[DONE]" not in answer
    assert exit_code(server, seconds=10) == 0


def test_a_second_signal_ends_the_process_at_once(small: Path) -> None:
    server = start(small / "run", "--max-tokens", 1_000_000)
    with closing(stream(server, max_tokens=1_000_000)) as connection:
        assert connection.recv(1000)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "another signal ends it at once" in server.process.so_far()[1])
        server.process.send_signal(signal.SIGTERM)
        assert exit_code(server, seconds=5) in (-signal.SIGTERM, 128 + signal.SIGTERM)


def while_loading(client: Any, *, finishes: bool = True) -> tuple[Any, Any]:
    """What `await client(server, port)` gives while models are being loaded, and when they are."""

    async def work() -> tuple[Any, Any]:
        server, go, ready = Server(Limits(), Access()), threading.Event(), asyncio.Event()

        def load() -> ServedModels:
            go.wait(30)
            return ServedModels([served()])

        with _listen("127.0.0.1", 0) as listener:
            port = listener.getsockname()[1]
            running = asyncio.create_task(server.run(listener, load, lambda *_: ready.set()))
            before = after = await client(port)
            if finishes:
                go.set()
                await ready.wait()
                after = await client(port)
            server.stop(1)
            await running
            go.set()
        return before, after

    start = time.monotonic()
    result = asyncio.run(work())
    assert time.monotonic() - start < 10
    return result


async def health(port: int) -> bytes:
    """The first line of the answer of /health."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    line = await reader.readline()
    writer.close()
    return line


def test_while_the_models_are_loaded_health_is_503() -> None:
    assert while_loading(health) == (b"HTTP/1.1 503 Service Unavailable\r\n", b"HTTP/1.1 200 OK\r\n")


def test_a_server_that_is_stopped_while_it_loads_does_not_wait_for_that() -> None:
    assert while_loading(health, finishes=False)[0].startswith(b"HTTP/1.1 503")


def test_a_call_that_waits_when_the_time_is_over_gets_503(small: Path) -> None:
    server = start(small / "run", "--stop-timeout", "0.1s")
    body = {"prompt": "a" * 4000, "max_tokens": 0, "echo": True, "logprobs": 5}
    with closing(socket.create_connection((server.host, server.port), timeout=60)) as connection:
        connection.sendall(post("/v1/completions", json.dumps(body).encode()))
        time.sleep(0.1)
        server.process.send_signal(signal.SIGTERM)
        answer = read_all(connection)
    assert answer.startswith((b"HTTP/1.1 503", b"HTTP/1.1 200")), answer
    assert b"content-security-policy" in answer
    assert exit_code(server, seconds=10) == 0


def test_an_answer_that_takes_too_long_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib.serve.safety._EXTRA_SECONDS", 0.2)

    async def client(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post("/v1/completions", b'{"prompt": "a"}'))
        answer = await reader.read()
        writer.close()
        return answer

    def wait(*_: Any) -> Any:
        return asyncio.sleep(30)

    monkeypatch.setattr("lib.serve.completions.answer", wait)
    answer = with_limits(client, timeout=0.1)
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"the answer took too long" in answer


def test_log_lines_are_quiet_on_request_and_escape_what_a_path_may_hold(small: Path) -> None:
    with running(small / "run") as server:
        server.ask("GET", "/a%0ab%1b[31m")
        wait_until(lambda: "404" in server.process.so_far()[1])
        line = next(line for line in server.process.so_far()[1].splitlines() if " 404 " in line)
        assert line.startswith(r"GET /a\nb\x1b[31m 404 in ")


def test_the_page_of_the_book_has_the_limits_of_the_code() -> None:
    limits, page = Limits(), (PROJECT / "docs" / "serve.md").read_text(encoding="utf-8")
    for said in (
        f"Up to {limits.batch_size} texts are continued at one time",
        f"of {limits.batch_size} caches of a full context",
        f"If {limits.queue}\n  requests wait",
        f"(at most {limits.body >> 20} MB)        (at most {limits.queue} requests)",
        f"A request has {limits.timeout / 60:.0f} minutes",
        f"if that has at most {LONGEST_WINDOW} tokens",
        f"in pieces of {PIECE} tokens",
    ):
        assert said in page
