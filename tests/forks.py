"""Stages as processes of their own, without the second and a half that each would take to load torch.

A server process loads torch and the stages once and computes nothing. For each command it forks: the child has its own
process id, folder, standard streams, signals and exit code, as a command from the shell has.

    python -m tests.forks     reads requests from stdin, a line of JSON each, and answers with a line: the exit code
"""

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
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
    "lib.training",
    "lib.plots",
)


class Server:
    """A running server; `run` is what subprocess.run is for a command."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.forks"]
        self._process = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, words: list[str], *, cwd: Path, input: str | None, timeout: float) -> "subprocess.CompletedProcess[str]":
        """Run the stage `words[0]` with the arguments behind it."""
        with tempfile.TemporaryDirectory(prefix="makegpt-fork-") as folder:
            streams = [Path(folder) / name for name in ("stdin", "stdout", "stderr")]
            streams[0].write_bytes((input or "").encode("utf-8"))
            request = {
                "words": [word.encode("utf-8", "surrogateescape").hex() for word in words],
                "cwd": str(cwd),
                "environment": dict(os.environ),
                "streams": list(map(str, streams)),
                "timeout": timeout,
            }
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            assert answer, "the server of forked stages has ended"
            code = json.loads(answer)
            if code is None:
                raise subprocess.TimeoutExpired(words, timeout)
            told = [stream.read_bytes().decode("utf-8") for stream in streams[1:]]
        return subprocess.CompletedProcess(words, code, *told)

    def close(self) -> None:
        """End the server."""
        self._process.communicate()


def serve() -> None:
    """Answer requests until stdin ends."""
    for name in _SLOW_TO_LOAD:
        import_module(name)
    from stages.__main__ import ORDER

    for stage in ORDER:
        import_module(f"stages.{stage}")
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(request)
        print(json.dumps(_wait(child, request["timeout"])), flush=True)


def _wait(child: int, seconds: float) -> int | None:
    """The exit code of the process `child`; None where it had to be killed after so many seconds."""
    end = time.monotonic() + seconds
    pause = 0.001
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _become(request: dict[str, Any]) -> NoReturn:
    """Be the command that a request describes, to its end."""
    code = 70  # of a child that fails before its stage does
    try:
        flags = (os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT)
        for number, (name, flag) in enumerate(zip(request["streams"], flags, strict=True)):
            os.dup2(os.open(name, flag, 0o600), number)
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
    serve()
