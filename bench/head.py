"""Head and loss, forward and backward, in three ways, alternating: milliseconds.

python bench/head.py [ROUNDS]      1,024 positions, 384 wide, 50,257 tokens
"""

import statistics
import sys
import time

import torch
from torch import Tensor
from torch.nn import LinearCrossEntropyOptions
from torch.nn import functional as F

from lib.device.hardware import keep_freed_memory
from lib.model.loss import cross_entropy, linear_cross_entropy
from lib.tokenizer.gpt2 import GPT2_VOCAB_SIZE

N, C, V = 1024, 384, GPT2_VOCAB_SIZE
CHUNK = LinearCrossEntropyOptions(batch_chunk_size=N)
WAYS = {
    "head, then cross_entropy": lambda x, weight, targets: cross_entropy(x @ weight.T, targets),
    "linear_cross_entropy": linear_cross_entropy,
    "PyTorch's linear_cross_entropy": lambda x, weight, targets: F.linear_cross_entropy(
        x, weight, targets, reduction="sum", options=CHUNK
    ),
}

keep_freed_memory()
draw = torch.Generator().manual_seed(1)
x = torch.randn(N, C, generator=draw).requires_grad_()
weight = torch.randn(V, C, generator=draw).mul_(0.02).requires_grad_()
targets = torch.randint(V, (N,), generator=draw)


def seconds(way: object) -> float:
    x.grad = weight.grad = None
    began = time.perf_counter()
    nats: Tensor = way(x, weight, targets)  # type: ignore[operator]
    (nats / N).backward()
    return time.perf_counter() - began


taken: dict[str, list[float]] = {name: [] for name in WAYS}
for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 6):
    for name, way in WAYS.items():
        taken[name].append(seconds(way))
first = taken["head, then cross_entropy"]
for name, times in taken.items():
    ratio = statistics.median(a / b for a, b in zip(first, times, strict=True))
    print(f"{name:32}{1e3 * statistics.median(times):8.0f} ms{ratio:8.2f} times as fast")
