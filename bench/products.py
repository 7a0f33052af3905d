"""The kernel's products beside PyTorch's: all matrices of GPT-2 small times 1 and 8 rows, alternating in one run.

python bench/products.py [ROUNDS]

Nothing is in a cache when it is read: the matrices are 494 MB. `the memory` is the sum of as many bytes.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the stage has it
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import statistics
import sys
import time
from typing import Callable

import torch
from torch.nn import functional as F

from lib.generate.kernel import load_kernel
from lib.generate.linear import QuantizedLinear
from lib.generate.quantize import WEIGHT_FORMATS
from lib.model.layers import Linear
from lib.tokenizer.gpt2 import GPT2_VOCAB_SIZE

SHAPES = [(2304, 768), (768, 768), (3072, 768), (768, 3072)] * 12 + [(GPT2_VOCAB_SIZE, 768)]


def main(rounds: int) -> None:
    linears = [Linear(inputs, outputs, bias=False) for outputs, inputs in SHAPES]
    for linear in linears:
        torch.nn.init.normal_(linear.weight)
    for rows in (1, 8):
        print(f"\n{rows} row{'s' if rows > 1 else ''}")
        measure(ways(linears, rows), sum(linear.weight.numel() for linear in linears), rounds)


def ways(linears: list[Linear], rows: int) -> dict[str, tuple[float, Callable[[], object]]]:
    """Ways to multiply all of them: a name -> bytes a weight, and the work."""
    weights = [linear.weight.detach() for linear in linears]
    halves = [weight.bfloat16() for weight in weights]
    turned = [weight.T.contiguous() for weight in weights]
    kinds = {name: [QuantizedLinear(each, name, load_kernel()) for each in linears] for name in WEIGHT_FORMATS}
    whole = [((weight / 0.03).to(torch.int8), torch.full(weight.shape[:1], 0.03).bfloat16()) for weight in weights]
    x = {inputs: torch.randn(rows, inputs) for inputs in (768, 3072)}
    x16 = {inputs: each.bfloat16() for inputs, each in x.items()}

    def ours(name: str) -> Callable[[], object]:
        return lambda: [each(x[each.descriptor.K]) for each in kinds[name]]

    return {
        "the memory": (4, lambda: [weight.sum() for weight in weights]),
        **{f"kernel, {name}": (bits / 8, ours(name)) for name, bits in WEIGHT_FORMATS.items()},
        "F.linear, float32": (4, lambda: [F.linear(x[weight.shape[1]], weight) for weight in weights]),
        "x @ transposed, float32": (4, lambda: [x[weight.shape[0]] @ weight for weight in turned]),
        "F.linear, bfloat16": (2, lambda: [F.linear(x16[weight.shape[1]], weight) for weight in halves]),
        "_weight_int8pack_mm": (1, lambda: [torch._weight_int8pack_mm(x16[w.shape[1]], w, s) for w, s in whole]),
    }


@torch.inference_mode()
def measure(ways: dict[str, tuple[float, Callable[[], object]]], weights: int, rounds: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (_, work) in ways.items():
            began = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - began)
    for name, (size, _) in ways.items():
        median = statistics.median(seconds[name])
        print(f"{name:24} {1e3 * median:7.1f} ms {size * weights / median / 1e9:6.1f} GB/s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
