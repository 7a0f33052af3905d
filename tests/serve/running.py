"""A server for tests: the stage `serve` as a process, on a free port."""

import http.client
import json
import re
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Iterator

from tests import forks

_ADDRESS = re.compile(r"http://(127\.0\.0\.1):(\d+)")


@dataclass(frozen=True)
class Running:
    """A running server."""

    host: str
    port: int
    process: forks.Process

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """One request, its body bytes or data for JSON; the answer and its body."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, content, {"Content-Type": "application/json"} | (headers or {}))
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        return response, answer

    def post(self, path: str, body: Any, status: int = 200) -> Any:
        """The JSON of the answer to `body`, which must have the `status`."""
        response, answer = self.ask("POST", path, body)
        assert response.status == status, answer
        return json.loads(answer)

    def get(self, path: str, status: int = 200) -> Any:
        """The JSON of the answer, which must have the `status`."""
        response, answer = self.ask("GET", path)
        assert response.status == status, answer
        return json.loads(answer)


def start(*words: object) -> Running:
    """`serve` with these arguments, which answers; whoever starts it ends it."""
    process = forks.shared().start(["serve", *map(str, words), "--port", "0"])
    deadline = time.monotonic() + 60
    while (match := _ADDRESS.search(process.so_far()[1])) is None:
        assert time.monotonic() < deadline, process.so_far()
        time.sleep(0.02)
    return Running(match[1], int(match[2]), process)


@contextmanager
def running(*words: object) -> Iterator[Running]:
    """`serve` with these arguments, until it is ended by SIGTERM, which it must take well."""
    server = start(*words)
    try:
        yield server
    except BaseException:
        print(server.process.so_far()[1])  # pytest shows it
        raise
    finally:
        server.process.send_signal(signal.SIGTERM)
        code = server.process.wait(30)
        errors = server.process.outputs()[1]
    assert code == 0, errors
    assert "Traceback" not in errors, errors
