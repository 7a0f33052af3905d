"""Counting n-grams: merging runs as they double, or sorting all keys again for each block; then scoring by each smoothing.

python bench/counting.py [MILLIONS] [ROUNDS] [ORDER]

The tokens are drawn independently from GPT-2's vocabulary by Zipf's law. No text has so many distinct n-grams, so this is
what counting takes at most. A process each; the memory is the peak of the process less what it had when the tokens were there.
The last million tokens are scored too.
"""

import hashlib
import os
import resource
import subprocess
import sys
import time
from typing import Callable

import numpy as np

from lib.data.shards import InMemoryTokens
from lib.ngrams import counts
from lib.ngrams.counts import NGrams
from lib.ngrams.kneser_ney import KneserNey
from lib.ngrams.runs import Run
from lib.ngrams.smoothing import Smoothing
from lib.ngrams.witten_bell import WittenBell
from lib.tokenizer.gpt2 import GPT2_VOCAB_SIZE

V = GPT2_VOCAB_SIZE
WAYS = ("merging", "sorting")
SMOOTHINGS: tuple[Callable[[NGrams], Smoothing], ...] = (WittenBell, KneserNey)


def main(millions: float, rounds: int, order: int) -> None:
    for name in WAYS * rounds:
        subprocess.run([sys.executable, __file__, str(millions), name, str(order)], check=True)


def measure(millions: float, name: str, order: int) -> None:
    if name == "sorting":
        setattr(counts, "add_run", sort_again)  # noqa: B010 - mypy refuses to assign to a function
    weights = np.cumsum(1 / np.arange(1, V + 1))
    generator, count = np.random.default_rng(1), int(1e6 * millions)
    tokens = InMemoryTokens(
        np.concatenate([draw(generator, weights, part) for part in np.diff([*range(0, count, 1 << 20), count])])
    )
    before, began = peak(), time.process_time()
    ngrams = NGrams(tokens, [(0, count)], order, V)
    seconds, memory = time.process_time() - began, peak() - before
    digest = hashlib.sha256()
    for table in ngrams.orders:
        for array in vars(table).values():
            digest.update(array if array is not None else b"")
    distinct = ", ".join(f"{len(table.keys) / 1e6:.1f}" for table in ngrams.orders)
    print(
        f"{name:8} {seconds:7.1f} s ({1e6 * seconds / count:5.1f} µs/token) {memory / 1e9:5.2f} GB "
        f"({memory / count:4.0f} bytes/token)  distinct, in millions: {distinct}  {digest.hexdigest()[:8]}",
        flush=True,
    )
    if name == "merging":
        for smoothing in SMOOTHINGS:
            began = time.process_time()
            for _ in smoothing(ngrams).nats(tokens, max(0, count - 1_000_000), count):
                pass
            seconds, memory = time.process_time() - began, peak() - before
            print(f"  {smoothing.__name__} {seconds:.1f} s for a million tokens, {memory / 1e9:.2f} GB in all", flush=True)


def draw(generator: np.random.Generator, weights: np.ndarray, count: int) -> np.ndarray:
    return np.searchsorted(weights, generator.random(count) * weights[-1]).astype(np.uint16)


def sort_again(runs: list[Run], keys: np.ndarray) -> None:
    new = np.unique(keys, return_counts=True)
    keys, times = (np.concatenate(parts) for parts in zip(*runs, new, strict=True))
    merged, index = np.unique(keys, return_inverse=True)
    total = np.zeros(len(merged), np.uint32)
    np.add.at(total, index, times.astype(np.uint32))
    runs[:] = [(merged, total)]


def peak() -> int:
    """Bytes that the process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)


if __name__ == "__main__":
    words = sys.argv[1:] + ["40", "1", "7"][len(sys.argv) - 1 :]
    if words[1] in WAYS:
        measure(float(words[0]), words[1], int(words[2]))
    else:
        main(float(words[0]), int(words[1]), int(words[2]))
