"""The kernel: products and a decoder's step in C++, compiled at its first use and kept.

PyTorch's own product of one row with a matrix stays at a third to a half of the memory's speed on the machine it was
measured on, and a step of a small model spends its time between operations. Where there is no C++ compiler with OpenMP,
`library` is None, and PyTorch does it all.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

_HERE = Path(__file__).parent
_SOURCES = ("step.cpp", "product.h", "vectors.h")
# without contraction: the compiler would join a product and a sum here and not there, and a row would depend on its neighbours
_FLAGS = ("-std=gnu++17", "-O3", "-march=native", "-ffp-contract=off", "-fopenmp", "-shared", "-fPIC")
_SECONDS = 120

Pointer, Long = ctypes.c_void_p, ctypes.c_long


class Matrix(ctypes.Structure):
    """As in product.h."""

    _fields_ = (("weight", Pointer), ("scale", Pointer), ("bias", Pointer), ("format", Long), ("N", Long), ("K", Long))


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
        *((name, Long) for name in ("layers", "C", "H", "G", "D", "window")),
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernel, its two functions declared; None where it cannot be compiled, or with MAKEGPT_KERNEL=off."""
    if os.environ.get("MAKEGPT_KERNEL") == "off":
        return None
    try:
        loaded = _loaded()
    except (OSError, subprocess.SubprocessError):
        return None
    loaded.product.argtypes = [Pointer, Pointer, Pointer, Long]
    loaded.step.argtypes = [Pointer, Long, Pointer, Pointer, Pointer, Pointer, Pointer]
    loaded.product.restype = loaded.step.restype = None
    return loaded


def _loaded() -> ctypes.CDLL:
    """The kernel, compiled at an earlier time or now; OSError or SubprocessError where that does not work."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or "c++"
    sources = [(_HERE / name).read_text(encoding="utf-8") for name in _SOURCES]
    made_of = (sources, compiler, _FLAGS, platform.platform(), _processor())
    name = f"kernel-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]}.so"
    try:
        kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "makegpt"
        kept.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (kept / name).exists():
            _compile(compiler, kept / name)
        return ctypes.CDLL(str(kept / name))
    except (OSError, RuntimeError):  # no home, or none that can be written to or run from: for this process alone
        with tempfile.TemporaryDirectory(prefix="makegpt-") as scratch:
            _compile(compiler, Path(scratch) / name)
            return ctypes.CDLL(str(Path(scratch) / name))  # it stays when its file goes


def _compile(compiler: str, path: Path) -> None:
    """Compile the kernel to `path`, which appears whole; two processes may do so at once."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    command = [compiler, *_FLAGS, str(_HERE / _SOURCES[0]), "-o", str(beside)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _processor() -> str:
    """What the processor can do, as Linux lists it; elsewhere its name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
