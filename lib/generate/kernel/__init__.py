"""The kernel: matrix products and a decoding step in C++, compiled at first use and cached.

PyTorch's product of one row with a matrix reached a third to a half of the memory bandwidth on the machine it was measured
on, and a step of a small model spends its time between operations. Without a C++ compiler with OpenMP `load_kernel` returns
None, and PyTorch computes everything.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from lib.artifact.files import atomic_write
from lib.artifact.io import sha256_of

_HERE = Path(__file__).parent
_SOURCES = ("step.cpp", "product.h", "rows.h", "blocks.h", "matrix.h", "vectors.h")
# no contraction: the compiler would fuse multiply and add in some places only, and a row would depend on its neighbors
_FLAGS = ("-std=gnu++17", "-O3", "-march=native", "-ffp-contract=off", "-fopenmp", "-shared", "-fPIC")
_SECONDS = 120

Pointer, Long = ctypes.c_void_p, ctypes.c_long


class Matrix(ctypes.Structure):
    """As in matrix.h."""

    _fields_ = (
        *((name, Pointer) for name in ("weight", "scale", "minimum", "bias")),
        *((name, Long) for name in ("format", "N", "K")),
    )


class Norm(ctypes.Structure):
    """As in step.cpp."""

    _fields_ = (("scale", Pointer), ("shift", Pointer), ("eps", ctypes.c_float))


class Block(ctypes.Structure):
    """As in step.cpp."""

    _fields_ = (
        *((name, Norm) for name in ("norm1", "q_norm", "k_norm", "norm2")),
        *((name, Matrix) for name in ("qkv", "out_proj", "gate", "expand", "contract")),
    )


class Decoder(ctypes.Structure):
    """As in step.cpp."""

    _fields_ = (
        ("tok_emb", Pointer),
        ("pos_emb", Pointer),
        ("tok_scale", ctypes.c_float),
        ("cos", Pointer),
        ("sin", Pointer),
        ("blocks", ctypes.POINTER(Block)),
        ("final_norm", Norm),
        ("out_head", Matrix),
        *((name, Long) for name in ("layers", "C", "H", "G", "D", "window", "strided", "summary_tokens")),
    )


def load_kernel() -> ctypes.CDLL | None:
    """The compiled kernel with its two functions declared; None if it cannot be compiled, or with MAKEGPT_KERNEL=off."""
    kernel = _kernel_or_reason()
    return kernel if isinstance(kernel, ctypes.CDLL) else None


def why_no_kernel() -> str | None:
    """The reason why `load_kernel` returns None; None if it returns the kernel."""
    reason = _kernel_or_reason()
    return reason if isinstance(reason, str) else None


def is_switched_off() -> bool:
    """Whether MAKEGPT_KERNEL=off."""
    return os.environ.get("MAKEGPT_KERNEL") == "off"


@functools.cache
def _kernel_or_reason() -> ctypes.CDLL | str:
    if is_switched_off():
        return "the C++ kernel is switched off (MAKEGPT_KERNEL=off)"
    compiler = os.environ.get("CXX") or "c++"
    try:
        command = _compiler()
        kernel = _load_cached()
        if kernel is None and shutil.which(command[0]) is None:
            return f"no C++ compiler: '{command[0]}' was not found"
        return kernel or _compile()
    except subprocess.SubprocessError:
        return f"the C++ compiler '{compiler}' failed to compile the kernel"
    except ValueError:
        return f"no C++ compiler: CXX={compiler} is not a valid command"
    except (OSError, AttributeError) as error:
        return f"the C++ kernel could not be compiled or loaded ({getattr(error, 'strerror', None) or error})"


def _load_cached() -> ctypes.CDLL | None:
    """The kernel compiled earlier; None if there is none, or if its file is damaged."""
    with suppress(OSError, RuntimeError, AttributeError):  # no home folder, or an unreadable one
        for path in sorted(_cache_folder().glob(f"kernel-{_key()}-*.so")):
            if sha256_of(path)[:16] == path.stem.rpartition("-")[2]:
                return _declare(path)
    return None


def _compile() -> ctypes.CDLL:
    """Compile the kernel, and keep it under the hash of its bytes if there is a place for it."""
    with tempfile.TemporaryDirectory(prefix="makegpt-") as scratch:
        path = Path(scratch) / "kernel.so"
        command = [*_compiler(), *_FLAGS, str(_HERE / _SOURCES[0]), "-o", str(path)]
        subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)
        library = _declare(path)  # stays loaded when its file is deleted
        name = f"kernel-{_key()}-{sha256_of(path)[:16]}.so"
        with suppress(OSError, RuntimeError), atomic_write(_cache_folder() / name) as temporary:
            shutil.copyfile(path, temporary)
        return library


def _declare(path: Path) -> ctypes.CDLL:
    """The library at `path` with its two functions declared; AttributeError if it lacks one."""
    library = ctypes.CDLL(str(path))
    library.product.argtypes = [Pointer, Pointer, Pointer, Long]
    library.step.argtypes = [Pointer, Long, *[Pointer] * 6]
    library.product.restype = library.step.restype = None
    return library


def _cache_folder() -> Path:
    """The folder of compiled kernels."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "makegpt"


def _compiler() -> list[str]:
    """The compiler's command: $CXX, which may hold options, or c++."""
    return shlex.split(os.environ.get("CXX", "")) or ["c++"]


def _key() -> str:
    """A hash of everything a compiled kernel depends on."""
    sources = [(_HERE / name).read_text(encoding="utf-8") for name in _SOURCES]
    parts = (sources, _compiler(), _FLAGS, platform.platform(), _processor())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """The processor's features as Linux lists them; elsewhere its name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
