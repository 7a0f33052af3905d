"""A GGUF file: its keys and values, and its tensors as float32.

    "GGUF", version, number of tensors, number of keys
    key, type, value                     for each key
    name, dimensions, type, offset       for each tensor
    the numbers of the tensors           each at its offset, which is a multiple of the alignment

The format is that of llama.cpp (github.com/ggml-org/ggml, docs/gguf.md), little-endian, versions 2 and 3. The header is
parsed here, every length against what is left of the file, so that no claim in it takes more memory than the file is long.
The package `gguf` turns blocks of quantized numbers into float32.
"""

import math
import mmap
import struct
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

import numpy as np

from lib.errors import MakegptError

#: The number of a tensor's type in the file -> its name, numbers in a block, bytes of a block.
TENSOR_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    30: ("BF16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
}

#: The number of a value's type -> how `struct` and numpy write it.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_DIMS = 4
_ALIGNMENT = 32  # if general.alignment is missing


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor is in the file. `shape` is in numpy's order, the last dimension contiguous; `type` as in TENSOR_TYPES."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int  # in bytes, from the start of the file

    @property
    def type_name(self) -> str:
        return TENSOR_TYPES[self.type][0]

    @property
    def size(self) -> int:
        """Its bytes in the file."""
        _, numbers, size = TENSOR_TYPES[self.type]
        return math.prod(self.shape) // numbers * size


class GGUFFile:
    """An open GGUF file: `values` by key (text, numbers, lists of text, numpy arrays), and where its `tensors` are."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        """MakegptError, in one line, for whatever is wrong with the header."""
        self.path = path
        self._content = content
        header = _Header(path, content)
        self.values: dict[str, Any] = header.values
        self.tensors: dict[str, TensorInfo] = header.tensors

    def read(self, name: str) -> np.ndarray:
        """The tensor `name` as float32, in its shape; MakegptError if a number is not finite."""
        info = self.tensors[name]
        raw = np.frombuffer(self._content, np.uint8, info.size, info.offset)
        with np.errstate(all="ignore"):
            numbers = _dequantize(raw, info)
        if not np.isfinite(numbers).all():
            raise MakegptError(f"{self.path}: {name} has numbers that are not finite; the file is damaged")
        return numbers


@contextmanager
def open_gguf(path: Path) -> Iterator[GGUFFile]:
    """The GGUF file `path`, open for reading; MakegptError if it is none, or damaged."""
    with open(path, "rb") as file:
        if not file.read(1):
            raise MakegptError(f"{path} is empty; it must be a GGUF file")
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            yield GGUFFile(path, content)
        finally:
            with suppress(BufferError):  # an array of the file is still in use, in the traceback of an error: closed with it
                content.close()


def _dequantize(raw: np.ndarray, info: TensorInfo) -> np.ndarray:
    """The bytes of a tensor as float32, not a view of them."""
    if info.type_name == "F32":
        return raw.view("<f4").astype(np.float32).reshape(info.shape)
    if info.type_name == "F16":
        return raw.view("<f2").astype(np.float32).reshape(info.shape)
    if info.type_name == "BF16":  # the upper half of a float32
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(info.shape)
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    _, numbers, size = TENSOR_TYPES[info.type]
    rows = raw.reshape(-1, info.shape[-1] // numbers * size)
    return np.asarray(dequantize(rows, GGMLQuantizationType(info.type)), np.float32).reshape(info.shape)


class _Header:
    """The parsed header of the file `path`."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self._path, self._content, self._at = path, content, 0
        self.values: dict[str, Any] = {}
        self.tensors: dict[str, TensorInfo] = {}
        self._names: set[str] = set()
        if self._take(4) != b"GGUF":
            raise MakegptError(f"{path} is not a GGUF file: it does not begin with GGUF")
        if (version := self._number("I")) not in (2, 3):
            raise MakegptError(f"{path} is GGUF of version {version}; versions 2 and 3 are supported, little-endian")
        tensors, keys = self._count(24, "tensors"), self._count(13, "keys")
        for _ in range(keys):
            key = self._text("a key")
            if key in self.values:
                raise self._error(f"the key {key} is there twice")
            self.values[key] = self._value(self._number("I"), key)
        infos = [self._tensor() for _ in range(tensors)]
        alignment = self.values.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise self._error(f"general.alignment={alignment} is no power of two up to 1048576")
        start = -(-self._at // alignment) * alignment
        end = start
        for info in sorted(infos, key=lambda info: info.offset):
            if info.offset % alignment:
                raise self._error(f"{info.name} is at {info.offset}, which is no multiple of {alignment}")
            placed = TensorInfo(info.name, info.shape, info.type, start + info.offset)
            if placed.offset < end:
                raise self._error(f"{info.name} overlaps another tensor")
            end = placed.offset + placed.size
            if end > len(content):
                raise self._error(f"{info.name} ends at byte {end}, the file at {len(content)}; it was cut off")
            self.tensors[info.name] = placed

    def _error(self, problem: str) -> MakegptError:
        return MakegptError(f"{self._path} is damaged: {problem}")

    def _take(self, size: int) -> bytes:
        if size > len(self._content) - self._at:
            raise self._error("its header goes past the end of the file; it was cut off")
        self._at += size
        return self._content[self._at - size : self._at]

    def _number(self, kind: str) -> Any:
        return struct.unpack("<" + kind, self._take(struct.calcsize("<" + kind)))[0]

    def _count(self, least: int, what: str) -> int:
        """A number of things that take at least `least` bytes each."""
        count = int(self._number("Q"))
        if count * least > len(self._content) - self._at:
            raise self._error(f"it claims {count} {what}, more than fit into it")
        return count

    def _text(self, what: str) -> str:
        raw = self._take(self._count(1, f"bytes of {what}"))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self._error(f"{what} is not valid UTF-8") from None

    def _value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self._text(key)
        if kind == _ARRAY:
            of = int(self._number("I"))
            if of == _STRING:
                return [self._text(key) for _ in range(self._count(8, f"elements of {key}"))]
            if of in _NUMBERS:
                dtype = np.dtype("<" + _NUMBERS[of])
                count = self._count(dtype.itemsize, f"elements of {key}")
                return np.frombuffer(self._take(count * dtype.itemsize), dtype)
            raise self._error(f"{key} is an array of the unknown type {of}")
        if kind not in _NUMBERS:
            raise self._error(f"{key} has the unknown type {kind}")
        return self._number(_NUMBERS[kind])

    def _tensor(self) -> TensorInfo:
        name = self._text("the name of a tensor")
        dims = int(self._number("I"))
        if not 1 <= dims <= _MAX_DIMS:
            raise self._error(f"{name} has {dims} dimensions, not 1 to {_MAX_DIMS}")
        shape = tuple(int(self._number("Q")) for _ in range(dims))[::-1]  # in the file the contiguous one comes first
        kind, offset = int(self._number("I")), int(self._number("Q"))
        if kind not in TENSOR_TYPES:
            known = ", ".join(known_name for known_name, _, _ in TENSOR_TYPES.values())
            raise MakegptError(f"{self._path}: {name} has type {kind}, which is not supported; supported are {known}")
        if 0 in shape or shape[-1] % TENSOR_TYPES[kind][1]:
            raise self._error(f"{name} has the shape {shape}, which is no whole number of blocks of {TENSOR_TYPES[kind][0]}")
        if name in self._names:
            raise self._error(f"the tensor {name} is there twice")
        self._names.add(name)
        return TensorInfo(name, shape, kind, offset)
