"""Where the arithmetic runs: the device, its threads, its memory, its random numbers."""

import ctypes
import hashlib
import resource
import sys
import time
from typing import Callable

import torch

from lib.errors import UsageError


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" takes cuda, then mps, then cpu. UsageError if it is missing."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if available[device])
    if not available.get(name):
        have = ", ".join(device for device, there in available.items() if there)
        raise UsageError(f"--device {name} is not available here; there is {have}")
    return torch.device(name)


def thread_count() -> int:
    """Threads that one operation on the CPU uses; sums depend on it in their last bits."""
    return torch.get_num_threads()


def set_thread_count(count: int) -> None:
    """Set the threads of one operation on the CPU."""
    torch.set_num_threads(count)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Have glibc keep large blocks that are freed, so that the next step does not fault them in again.

    The logits of 1,024 GPT-2 tokens are 206 MB; mapped and unmapped at every step, their first touches
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


def derive_seed(*parts: int) -> int:
    """A 63-bit seed that is a function of all `parts` together."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def peak_memory(device: torch.device) -> int:
    """Most memory the process has held so far, in bytes: that of a CUDA device, else the machine's."""
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
    """Floating-point operations a second in a product of (n, k) and (k, m) on `device`, the best of some tries.

    Without a `shape`, in one of squares that keep the device busy.
    """
    n, k, m = shape or (((1024 if device.type == "cpu" else 8192),) * 3)
    a, b = torch.randn(n, k, device=device, dtype=dtype), torch.randn(k, m, device=device, dtype=dtype)
    return 2 * n * k * m / _shortest(lambda: torch.mm(a, b)[0, 0].item(), repeats)


def pass_rate(device: torch.device, repeats: int = 5) -> float:
    """Numbers a second that are read, changed and written back, many more of them than a cache holds."""
    numbers = torch.zeros(1 << 24, device=device)
    return numbers.numel() / _shortest(lambda: numbers.add_(1.0)[0].item(), repeats)


def _shortest(work: Callable[[], object], repeats: int) -> float:
    """Seconds that `work` takes, the best of some tries; it must end with reading a number, which waits for the device.

    Work that takes long is not tried again: float16 on a CPU without units for it takes seconds for a product.
    """
    best, began = float("inf"), time.perf_counter()
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begin)
        if time.perf_counter() - began > _ENOUGH:
            break
    return best


_ENOUGH = 0.5  # seconds
