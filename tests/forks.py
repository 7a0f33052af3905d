"""Stages as separate processes, without the second and a half that each would take to load torch.

A server process loads torch and the stages once and computes nothing. For each command it forks: the child has its own
process id, folder, standard streams, signals and exit code, as a command from the shell has.

    python -m tests.forks SOCKET

A request is the standard streams and a line of JSON; the answers are a process id and, later, an exit code.
"""

import atexit
import copy
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

PROJECT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
ADDRESS = "MAKEGPT_FORKS"  # the environment variable that holds it
_SLOW_TO_LOAD = (
    "torch",
    "torch._dynamo",
    "numpy",
    "tiktoken",
    "safetensors.torch",
    "matplotlib.figure",
    "lib.train.session",
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
        self._process = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.DEVNULL)

    def run(
        self, words: list[str], *, cwd: Path, input: str | None, timeout: float, env: dict[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run the stage `words[0]` with the arguments after it."""
        process = self.start(words, cwd=cwd, input=input, env=env)
        code = process.wait(timeout)
        return subprocess.CompletedProcess(words, code, *process.outputs())

    def start(
        self, words: list[str], *, cwd: Path = PROJECT, input: str | None = None, env: dict[str, str] | None = None
    ) -> "Process":
        """Start a stage; what subprocess.Popen is for a command."""
        return Process(self.address, words, cwd, input, env)

    def close(self) -> None:
        """End the server."""
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()


class SharedServer(Server):
    """The server of another process, which ends it."""

    def __init__(self, address: str) -> None:
        self.address = address


def share() -> None:
    """Start a server for this process and for all that it starts, such as pytest's workers."""
    server = Server()
    atexit.register(server.close)
    os.environ[ADDRESS] = server.address


@cache
def shared() -> Server:
    """The server for this process, started at the first call."""
    if ADDRESS not in os.environ:
        share()
    server = SharedServer(os.environ[ADDRESS])
    while not Path(server.address).exists():  # it is loading torch
        time.sleep(0.02)
    return server


class Process:
    """A running stage; its standard streams are files."""

    def __init__(self, address: str, words: list[str], cwd: Path, input: str | None, env: dict[str, str] | None) -> None:
        with ExitStack() as files:
            stdin, *self._written = [files.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
            stdin.write((input or "").encode("utf-8"))
            stdin.seek(0)
            handles = [stdin.fileno(), *(file.fileno() for file in self._written)]
            self._connection = _request(address, words, str(cwd), handles, env)
            self._answers = self._connection.makefile()
            self.pid = _number(self._answers.readline())
            self.returncode: int | None = None
            self._files = files.pop_all()

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # it has ended
            os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, or minus the signal."""
        self._connection.settimeout(timeout)
        self.returncode = _number(self._answers.readline())
        self._answers.close()
        self._connection.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> list[str]:
        """Wait for its end; what it wrote to stdout and to stderr."""
        self.wait(timeout)
        return self.outputs()

    def so_far(self) -> list[str]:
        """What it has written to stdout and to stderr until now."""
        contents = [os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0) for file in self._written]
        return [content.decode("utf-8") for content in contents]

    def outputs(self) -> list[str]:
        """What it wrote to stdout and to stderr."""
        with self._files:
            for file in self._written:
                file.seek(0)
            return [file.read().decode("utf-8") for file in self._written]


def ask(address: str, words: list[str], cwd: str, handles: list[int]) -> int:
    """Have the server at `address` run a stage with these standard streams; its exit code, or minus its signal."""
    with _request(address, words, cwd, handles, None) as connection, connection.makefile() as answers:
        answers.readline()  # the process id
        return _number(answers.readline())


def _request(address: str, words: list[str], cwd: str, handles: list[int], env: dict[str, str] | None) -> socket.socket:
    request = {
        "words": [word.encode("utf-8", "surrogateescape").hex() for word in words],
        "cwd": cwd,
        "environment": dict(os.environ) if env is None else env,
    }
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    socket.send_fds(connection, [b"."], handles)
    connection.sendall(json.dumps(request).encode() + b"\n")
    return connection


def _number(answer: str) -> int:
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
    """Answer requests, each in a separate process, until the server is ended."""
    parent = os.getppid()
    for name in _SLOW_TO_LOAD:
        import_module(name)
    from stages import STAGES

    for stage in STAGES:
        import_module(f"stages.{stage}")
    remember_params()
    gc.freeze()
    wake, woken = socket.socketpair()
    woken.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    running: dict[int, socket.socket] = {}  # a stage's process id -> the connection that waits for its exit code
    with socket.socket(socket.AF_UNIX) as listening, selectors.DefaultSelector() as selector:
        listening.bind(f"{address}.new")
        listening.listen(64)
        os.rename(f"{address}.new", address)
        for source in (listening, wake):
            selector.register(source, selectors.EVENT_READ)
        while os.getppid() == parent:  # its parent may have been killed
            for key, _ in selector.select(timeout=5):
                if key.fileobj is listening:
                    connection, _ = listening.accept()
                    _, handles, _, _ = socket.recv_fds(connection, 1, 3)
                    request = json.loads(connection.makefile().readline())
                    if not (child := os.fork()):
                        signal.set_wakeup_fd(-1)
                        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                        for opened in (wake, woken, listening, connection, *running.values()):
                            opened.close()
                        _become(request, handles)
                    running[child] = connection
                    _say(connection, child)
                    for handle in handles:
                        os.close(handle)
                else:
                    wake.recv(4096)
            _answer_all_that_ended(running)


def _answer_all_that_ended(running: dict[int, socket.socket]) -> None:
    while running:
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            break
        connection = running.pop(child)
        _say(connection, os.waitstatus_to_exitcode(status))
        connection.close()


def _say(connection: socket.socket, number: int) -> None:
    with suppress(OSError):  # the other end may be closed
        connection.sendall(f"{number}\n".encode())


def remember_params() -> None:
    """Let this process parse each text of params.yaml once: PyYAML takes 30 ms, most of the time of a small stage."""
    from lib.config import params, strict_yaml

    read = lru_cache(maxsize=32)(strict_yaml.read_yaml)
    params.read_yaml = lambda text, source: copy.deepcopy(read(text, source))  # type: ignore[attr-defined]
    params.load_params(Path("params.yaml"))


def _become(request: dict[str, Any], handles: list[int]) -> NoReturn:
    """Run the command of a request, and exit with its code."""
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
