"""Stages as processes of their own, without the second and a half that each would take to load torch.

A server process loads torch and the stages once and computes nothing. For each command it forks: the child has its own
process id, folder, standard streams, signals and exit code, as a command from the shell has.

    python -m tests.forks SOCKET     takes the standard streams and a line of JSON with each request, answers with the exit code
"""

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

PROJECT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
_SLOW_TO_LOAD = (
    "torch",
    "torch._dynamo",
    "numpy",
    "tiktoken",
    "safetensors.torch",
    "matplotlib.figure",
    "lib.train.loop",
    "lib.plot.architecture",
    "lib.plot.concepts",
    "lib.plot.size_vs_loss",
    "lib.report.page",
)


class Server:
    """A running server; `run` is what subprocess.run is for a command."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="makegpt-forks-")
        self.address = f"{self._folder.name}/socket"
        command = [sys.executable, "-m", "tests.forks", self.address]
        self._process = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def run(self, words: list[str], *, cwd: Path, input: str | None, timeout: float) -> "subprocess.CompletedProcess[str]":
        """Run the stage `words[0]` with the arguments behind it."""
        with tempfile.TemporaryDirectory(prefix="makegpt-fork-") as folder:
            streams = [Path(folder) / name for name in ("stdin", "stdout", "stderr")]
            streams[0].write_bytes((input or "").encode("utf-8"))
            with streams[0].open("rb") as stdin, streams[1].open("wb") as stdout, streams[2].open("wb") as stderr:
                handles = [stdin.fileno(), stdout.fileno(), stderr.fileno()]
                code = ask(self.address, words, str(cwd), handles, timeout)
            told = [stream.read_bytes().decode("utf-8") for stream in streams[1:]]
        return subprocess.CompletedProcess(words, code, *told)

    def close(self) -> None:
        """End the server."""
        self._process.terminate()
        self._process.communicate()
        self._folder.cleanup()


@cache
def shared() -> Server:
    """The server of this process, started when it is first asked for."""
    server = Server()
    atexit.register(server.close)
    return server


def ask(address: str, words: list[str], cwd: str, handles: list[int], timeout: float | None = None) -> int:
    """Have the server at `address` run a stage with these standard streams; its exit code, or minus its signal."""
    request = {
        "words": [word.encode("utf-8", "surrogateescape").hex() for word in words],
        "cwd": cwd,
        "environment": dict(os.environ),
    }
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(address)
        socket.send_fds(connection, [b"."], handles)
        connection.sendall(json.dumps(request).encode() + b"\n")
        answer = connection.makefile().readline()
    if not answer:
        raise RuntimeError("the server of forked stages has ended")
    return int(answer)


#: A stage as a script: it asks the server that MAKEGPT_FORKS names.
CLIENT = """#!{python} -IS
import os, sys
sys.path.insert(0, {project!r})
from tests.forks import ask
code = ask(os.environ["MAKEGPT_FORKS"], [os.path.basename(sys.argv[0]), *sys.argv[1:]], os.getcwd(), [0, 1, 2])
sys.exit(code if code >= 0 else 128 - code)
"""


def serve(address: str) -> None:
    """Answer requests, each in a process of its own, until the server is ended."""
    for name in _SLOW_TO_LOAD:
        import_module(name)
    from stages import STAGES

    for stage in STAGES:
        import_module(f"stages.{stage}")
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(16)
        print("ready", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who waits for a stage is not waited for
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _answer(connection)
            connection.close()


def _answer(connection: socket.socket) -> NoReturn:
    """Run the stage that is asked for on a connection, and tell its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, handles, _, _ = socket.recv_fds(connection, 1, 3)
    request = json.loads(connection.makefile().readline())
    child = os.fork()
    if child == 0:
        connection.close()
        _become(request, handles)
    for handle in handles:
        os.close(handle)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with suppress(OSError):
        connection.sendall(f"{code}\n".encode())
    os._exit(0)


def _become(request: dict[str, Any], handles: list[int]) -> NoReturn:
    """Be the command that a request describes, to its end."""
    code = 70  # of a child that fails before its stage does
    try:
        for number, handle in enumerate(handles):
            os.dup2(handle, number)
            os.close(handle)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["environment"])
        encoding = {"encoding": "utf-8", "errors": "surrogateescape"}
        sys.stdin = open(0, **encoding, closefd=False)  # noqa: SIM115 - they are open as long as the process
        sys.stdout = open(1, "w", **encoding, closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        name, *words = [bytes.fromhex(word).decode("utf-8", "surrogateescape") for word in request["words"]]
        sys.argv = [str(BIN / name), *words]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        import_module(f"stages.{name.replace('-', '_')}").main(words)
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
