"""Many streams at once next to llama.cpp's server on the same GGUF, alternating: a table, bench/results/serving.json.

python bench/serving.py LLAMA_SERVER [ROUNDS [STREAMS...]]      the binary: cmake --build … --target llama-server

SmolLM2's 4-bit file is read by both, on all threads of the machine. N clients begin together, each with its own prompt of token
ids, and read a greedy text as it is streamed. The first token is timed from the request, a later one from the token before.
"""

import asyncio
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator

from bench.llama import RACES, THEIRS, prepare
from bench.training import keep

STREAMS = (1, 4, 8, 16)
PROMPT_TOKENS, NEW_TOKENS = 128, 64
_MARGIN = 16  # tokens of llama.cpp's context beyond those of a text
_WAIT = 120  # seconds until a server answers


@dataclass
class Times:
    """What N streams took, over all rounds: seconds."""

    tokens_per_second: list[float] = field(default_factory=list)  # a round each
    first_token: list[float] = field(default_factory=list)
    later_token: list[float] = field(default_factory=list)
    tokens: int = 0

    def to_row(self, contender: str, streams: int) -> dict[str, Any]:
        row: dict[str, Any] = {"contender": contender, "streams": streams, "tokens": self.tokens}
        row["tokens_per_second"] = self.tokens_per_second
        for name, seconds in (("first_token", self.first_token), ("later_token", self.later_token)):
            row[name] = {"p50": percentile(seconds, 50), "p99": percentile(seconds, 99)}
        return row


def percentile(values: list[float], p: int) -> float:
    """The smallest of `values` that at least p percent of them do not exceed."""
    return sorted(values)[max(0, -(-len(values) * p // 100) - 1)]


@contextmanager
def server(command: list[str], port: int) -> Iterator[int]:
    """A server that answers on `port`."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + _WAIT
            while not is_healthy(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    sys.exit(f"{command[0]} does not answer:\n{log.read()[-2000:].decode(errors='replace')}")
                time.sleep(0.2)
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def is_healthy(port: int) -> bool:
    with suppress(OSError):
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200
    return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


async def read_stream(port: int, prompt: list[int]) -> list[float]:
    """When the request was sent, and when each token came."""
    body = {"prompt": prompt, "max_tokens": NEW_TOKENS, "temperature": 0, "stream": True}
    body |= {"logprobs": 1}  # an event for each token, also for half a character
    body |= {
        "ignore_eos": True,
        "cache_prompt": False,
    }  # llama.cpp's: no end before the last token, no help from earlier rounds
    content = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    )
    times = [time.perf_counter()]
    writer.write(f"{head}\r\nConnection: close\r\n\r\n".encode() + content)
    status = await reader.readline()
    assert b" 200 " in status, status + await reader.read()
    while line := await reader.readline():
        if line.startswith(b"data: {"):
            choices = json.loads(line[6:])["choices"]
            if choices and (choices[0].get("logprobs") or choices[0]["text"]):
                times.append(time.perf_counter())
    writer.close()
    return times


async def load(port: int, streams: int, seed: int) -> list[list[float]]:
    """The times of `streams` texts that begin together, their prompts drawn by the seed."""
    draw = random.Random(seed)
    prompts = [[draw.randrange(1000, 40_000) for _ in range(PROMPT_TOKENS)] for _ in range(streams)]
    return await asyncio.gather(*(read_stream(port, prompt) for prompt in prompts))


def note(times: Times, texts: list[list[float]]) -> None:
    begin, end = min(text[0] for text in texts), max(text[-1] for text in texts)
    count = sum(len(text) - 1 for text in texts)
    times.tokens += count
    times.tokens_per_second.append(count / (end - begin))
    for sent, first, *later in texts:
        times.first_token.append(first - sent)
        times.later_token += [b - a for a, b in zip([first, *later], later, strict=False)]


def compete(binary: str, rounds: int, counts: tuple[int, ...]) -> list[dict[str, Any]]:
    """The rows: of each contender and number of streams."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="makegpt-")))
        paths = prepare(RACES["smollm2, 4 bits"], folder)
        slots = max(counts)
        context = slots * (PROMPT_TOKENS + NEW_TOKENS + _MARGIN)
        threads = str(len(os.sched_getaffinity(0)))
        serve = str(Path(sys.executable).parent / "serve")
        commands = {
            "ours": [serve, str(paths["ours"]), "--weights", "int4", "--batch-size", str(slots), "--quiet"],
            THEIRS: [binary, "-m", str(paths[THEIRS]), "-np", str(slots), "-c", str(context), "-t", threads],
        }
        ports = {name: stack.enter_context(server(command, free_port())) for name, command in commands.items()}
        times = {(name, streams): Times() for name in commands for streams in counts}
        for port in ports.values():
            asyncio.run(load(port, 1, seed=0))  # warms up
        for number in range(rounds):
            for streams in counts:
                for name in list(ports)[:: 1 if number % 2 == 0 else -1]:
                    note(times[name, streams], asyncio.run(load(ports[name], streams, seed=100 * number + streams)))
    return [measured.to_row(name, streams) for (name, streams), measured in times.items()]


def show(rows: list[dict[str, Any]]) -> None:
    head = ("streams", "tokens/s", "first token: p50", "p99 (s)", "later token: p50", "p99 (ms)")
    print(f"{'':12}" + "".join(f"{word:>18}" for word in head))
    for row in rows:
        cells = [
            str(row["streams"]),
            f"{statistics.median(row['tokens_per_second']):,.1f}",
            *(f"{row['first_token'][p]:.2f}" for p in ("p50", "p99")),
            *(f"{1000 * row['later_token'][p]:.0f}" for p in ("p50", "p99")),
        ]
        print(f"{row['contender']:12}" + "".join(f"{cell:>18}" for cell in cells))


def main(binary: str, rounds: int, counts: tuple[int, ...]) -> None:
    rows = compete(binary, rounds, counts)
    show(rows)
    keep("serving.json", "smollm2, 4 bits", rows, rounds)


if __name__ == "__main__":
    path = shutil.which(sys.argv[1]) if len(sys.argv) > 1 else None
    if path is None:
        sys.exit("python bench/serving.py LLAMA_SERVER [ROUNDS [STREAMS...]]: give the path of llama.cpp's llama-server")
    given = tuple(map(int, sys.argv[3:]))
    main(path, int(sys.argv[2]) if len(sys.argv) > 2 else 5, given or STREAMS)
