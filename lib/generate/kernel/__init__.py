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
import shlex
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from lib.artifact.files import atomic_write
from lib.artifact.io import sha256_of

_HERE = Path(__file__).parent
_SOURCES = ("step.cpp", "product.h", "vectors.h")
# without contraction: the compiler would join a product and a sum here and not there, and a row would depend on its neighbors
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


def load_kernel() -> ctypes.CDLL | None:
    """The compiled kernel, its two functions declared; None where it cannot be compiled, or with MAKEGPT_KERNEL=off."""
    found = _found()
    return found if isinstance(found, ctypes.CDLL) else None


def why_no_kernel() -> str | None:
    """Why there is no kernel, in words; None where there is one."""
    found = _found()
    return found if isinstance(found, str) else None


@functools.cache
def _found() -> ctypes.CDLL | str:
    """The compiled kernel, or why there is none."""
    if os.environ.get("MAKEGPT_KERNEL") == "off":
        return "with MAKEGPT_KERNEL=off"
    compiler = os.environ.get("CXX") or "c++"
    try:
        command = _compiler()
        if (kept := _kept()) is None and shutil.which(command[0]) is None:
            return f"without a C++ compiler ({command[0]} is not there)"
        return kept or _made()
    except subprocess.SubprocessError:
        return f"without a C++ compiler that can make the kernel ({compiler} could not)"
    except ValueError:
        return f"without a C++ compiler (CXX={compiler} is no command)"
    except (OSError, AttributeError) as error:
        return f"without the kernel, which could not be compiled or opened ({getattr(error, 'strerror', None) or error})"


def _kept() -> ctypes.CDLL | None:
    """The kernel as it was compiled at an earlier time; None where there is none, or where its file is damaged."""
    with suppress(OSError, RuntimeError, AttributeError):  # no home, or one that cannot be read: as if there were none
        for path in sorted(_folder().glob(f"kernel-{_key()}-*.so")):
            if sha256_of(path)[:16] == path.stem.rpartition("-")[2]:
                return _declared(path)
    return None


def _made() -> ctypes.CDLL:
    """The kernel, compiled now and kept under the hash of its bytes, where there is a place for it."""
    with tempfile.TemporaryDirectory(prefix="makegpt-") as scratch:
        path = Path(scratch) / "kernel.so"
        command = [*_compiler(), *_FLAGS, str(_HERE / _SOURCES[0]), "-o", str(path)]
        subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)
        library = _declared(path)  # it stays when its file goes
        name = f"kernel-{_key()}-{sha256_of(path)[:16]}.so"
        with suppress(OSError, RuntimeError), atomic_write(_folder() / name) as beside:  # where there is a home
            shutil.copyfile(path, beside)
        return library


def _declared(path: Path) -> ctypes.CDLL:
    """The library at `path`, its two functions declared; AttributeError where it has not got them."""
    library = ctypes.CDLL(str(path))
    library.product.argtypes = [Pointer, Pointer, Pointer, Long]
    library.step.argtypes = [Pointer, Long, Pointer, Pointer, Pointer, Pointer, Pointer]
    library.product.restype = library.step.restype = None
    return library


def _folder() -> Path:
    """Where compiled kernels are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "makegpt"


def _compiler() -> list[str]:
    """The compiler's command: $CXX, which may hold options, or c++."""
    return shlex.split(os.environ.get("CXX", "")) or ["c++"]


def _key() -> str:
    """A hash of all that a compiled kernel depends on."""
    sources = [(_HERE / name).read_text(encoding="utf-8") for name in _SOURCES]
    made_of = (sources, _compiler(), _FLAGS, platform.platform(), _processor())
    return hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]


def _processor() -> str:
    """What the processor can do, as Linux lists it; elsewhere its name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
