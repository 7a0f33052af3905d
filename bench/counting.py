"""Counting n-grams up to order 5: merging runs as they double beside sorting all keys again for each block, alternating.

python bench/counting.py [MILLIONS] [ROUNDS]

The tokens are drawn with GPT-2's vocabulary by Zipf's law, each for itself: no text has so many distinct n-grams, so this is
what counting takes at most. A process each; the memory is the peak of the process less what it had when the tokens were there.

Measured on one core of an EPYC, both with the same counts to the last byte:

    tokens      merging                sorting
    4 million     5.3 s    0.31 GB       7.6 s    0.54 GB
    10 million   14.3 s    0.72 GB      36.2 s    1.21 GB
    45 million  102.6 s    2.94 GB
"""

import hashlib
import os
import resource
import subprocess
import sys
import time

import numpy as np
from lib.evaluate.ngrams import NGrams

from lib.data.shards import InMemoryTokens
from lib.evaluate import ngrams
from lib.tokenizer.gpt2 import GPT2_VOCAB_SIZE

V = GPT2_VOCAB_SIZE
WAYS = ("merging", "sorting")


def main(millions: float, rounds: int) -> None:
    for name in WAYS * rounds:
        subprocess.run([sys.executable, __file__, str(millions), name], check=True)


def measure(millions: float, name: str) -> None:
    if name == "sorting":
        setattr(ngrams, "_add", sort_again)  # noqa: B010 - mypy refuses to assign to a function
    likely = np.cumsum(1 / np.arange(1, V + 1))
    generator, count = np.random.default_rng(1), int(1e6 * millions)
    tokens = InMemoryTokens(
        np.concatenate([draw(generator, likely, part) for part in np.diff([*range(0, count, 1 << 20), count])])
    )
    before, began = peak(), time.process_time()
    counted = NGrams(tokens, 0, count, 5, V)
    seconds, memory = time.process_time() - began, peak() - before
    digest = hashlib.sha256()
    for order in counted.orders:
        for array in vars(order).values():
            digest.update(array)
    distinct = ", ".join(f"{len(order.keys) / 1e6:.1f}" for order in counted.orders)
    print(
        f"{name:8} {seconds:7.1f} s ({1e6 * seconds / count:5.1f} µs a token) {memory / 1e9:5.2f} GB "
        f"({memory / count:4.0f} bytes a token)  distinct, in millions: {distinct}  {digest.hexdigest()[:8]}",
        flush=True,
    )


def draw(generator: np.random.Generator, likely: np.ndarray, count: int) -> np.ndarray:
    return np.searchsorted(likely, generator.random(count) * likely[-1]).astype(np.uint16)


def sort_again(runs: list[ngrams._Run], new: ngrams._Run) -> None:
    keys, times = (np.concatenate(parts) for parts in zip(*runs, new, strict=True))
    merged, where = np.unique(keys, return_inverse=True)
    total = np.zeros(len(merged), np.uint32)
    np.add.at(total, where, times.astype(np.uint32))
    runs[:] = [(merged, total)]


def peak() -> int:
    """Bytes that the process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)


if __name__ == "__main__":
    words = sys.argv[1:] + ["40", "1"][len(sys.argv) - 1 :]
    if words[1] in WAYS:
        measure(float(words[0]), words[1])
    else:
        main(float(words[0]), int(words[1]))
