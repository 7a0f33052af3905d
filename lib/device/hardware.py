"""The device and its threads, memory, random seeds and speed."""

import ctypes
import hashlib
import os
import resource
import sys
import time
from contextlib import contextmanager
from typing import Callable, Iterator

import torch
import torch.utils.deterministic as determinism

from lib.errors import UsageError


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" takes cuda, then mps, then cpu. UsageError if it is not available."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if available[device])
    if not available.get(name):
        devices = ", ".join(device for device, is_available in available.items() if is_available)
        raise UsageError(f"--device {name} is not available here; use {devices}")
    return torch.device(name)


def thread_count() -> int:
    """Threads of one operation on the CPU; the last bits of sums depend on it."""
    return torch.get_num_threads()


def set_thread_count(count: int) -> None:
    """Set the threads of one operation on the CPU."""
    torch.set_num_threads(count)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Let glibc keep large blocks that are freed, so that the next step does not fault them in again.

    The logits of 1,024 GPT-2 tokens are 206 MB; if they are mapped and unmapped at every step, their page faults
    cost more than the arithmetic. Call it before the first large tensor. Does nothing without glibc.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


@contextmanager
def deterministic_kernels(device: torch.device) -> Iterator[None]:
    """Within the block, CUDA adds numbers in a fixed order, so that the same inputs give the same bytes; a CPU always does.

    Otherwise the backward passes of fused attention and of a compiled embedding add up in whatever order their threads end.
    An operation without a deterministic kernel raises RuntimeError.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic with a workspace of fixed size
    before = torch.are_deterministic_algorithms_enabled(), determinism.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True)
    determinism.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a pass over memory that is written anyway
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        determinism.fill_uninitialized_memory = before[1]  # type: ignore[attr-defined]


def derive_seed(*parts: int) -> int:
    """A 63-bit seed that depends on all `parts`."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def peak_memory(device: torch.device) -> int:
    """Peak memory of the process so far, in bytes: on a CUDA device, else of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def matmul_rate(
    device: torch.device,
    shape: tuple[int, int, int] | None = None,
    dtype: torch.dtype = torch.float32,
    repeats: int = 5,
) -> float:
    """Floating-point operations per second in a product of (n, k) and (k, m) on `device`, the best of `repeats`.

    Without a `shape`, the matrices are square and large enough to keep the device busy.
    """
    n, k, m = shape or (((1024 if device.type == "cpu" else 8192),) * 3)
    a, b = torch.randn(n, k, device=device, dtype=dtype), torch.randn(k, m, device=device, dtype=dtype)
    return 2 * n * k * m / _shortest(lambda: torch.mm(a, b)[0, 0].item(), repeats)


def pass_rate(device: torch.device, repeats: int = 5) -> float:
    """Numbers per second that are read, changed and written back; too many for a cache."""
    numbers = torch.zeros(1 << 24, device=device)
    return numbers.numel() / _shortest(lambda: numbers.add_(1.0)[0].item(), repeats)


def _shortest(work: Callable[[], object], repeats: int) -> float:
    """Seconds that `work` takes, the best of `repeats`; it must end by reading a number, which waits for the device.

    No repeat starts after `_MAX_SECONDS`: on a CPU without float16 units a product in float16 takes seconds.
    """
    best, start = float("inf"), time.perf_counter()
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begin)
        if time.perf_counter() - start > _MAX_SECONDS:
            break
    return best


_MAX_SECONDS = 0.5
