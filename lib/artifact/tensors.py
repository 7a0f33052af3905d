"""Tensors on disk: safetensors files with their metadata inside, the same bytes for the same content.

Facts go under one metadata key as one JSON string, since several keys would be written in random order.
"""

import json
import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import torch
from safetensors import SafetensorError, safe_open

from lib.artifact.files import atomic_write
from lib.artifact.io import canonical_json
from lib.artifact.strict_json import loads_json
from lib.errors import MakegptError

_KEY = "makegpt"


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> None:
    """Write `tensors`, each stored once and contiguous, and the plain data `metadata`, whole or not at all."""
    write_safetensors(path, tensors, {_KEY: canonical_json(metadata)})


def write_safetensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """The same with the bare `metadata` of the format, for others to read.

    The bytes are those that safetensors' own `save_file` writes. That one makes a temporary file of its own beside, which a
    kill would leave there for good, and tells the disk's errors as text.
    """
    ordered = sorted(tensors, key=lambda name: (-_DTYPES.index(tensors[name].dtype), name))
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name in ordered:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(path) as beside, open(beside, "wb", buffering=1 << 20) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in ordered:
            file.write(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


#: The format's name of each dtype; the larger ones come first in a file, so that all numbers are aligned.
_DTYPE_NAMES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
_DTYPES = list(_DTYPE_NAMES)


@contextmanager
def open_safetensors(path: Path, framework: str = "pt") -> Iterator[Any]:
    """The safetensors file `path`, ours or not, open to read one tensor or another; MakegptError where it is none."""
    if not path.is_file():
        raise MakegptError(f"{path} is missing")
    with open(path, "rb") as bytes_of_it:  # says what the system says where it cannot be opened
        try:
            file = safe_open(_as_unicode(path, bytes_of_it.fileno()), framework=framework)
        except (SafetensorError, OSError) as error:
            if problem := _system_error(error, path):
                raise problem from None
            raise MakegptError(f"{path} is damaged: it cannot be read as safetensors") from None
        with file:
            yield file


def _as_unicode(path: Path, descriptor: int) -> str:
    """A name of the open file `path` that is Unicode, as safetensors wants it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return f"/dev/fd/{descriptor}"
    return str(path)


def _system_error(error: Exception, path: Path) -> OSError | None:
    """The system's error that safetensors tells of in its text, about `path`; None where it is another."""
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1])), str(path)) if number else None


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and metadata of the file `path`; MakegptError where it is missing, damaged or not ours."""
    metadata = read_tensor_metadata(path)
    with open_safetensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 - not a dict


def read_tensor_metadata(path: Path) -> dict[str, Any]:
    """The metadata of the file `path` alone."""
    with open_safetensors(path) as file:
        written = (file.metadata() or {}).get(_KEY)
    if written is None:
        raise MakegptError(f"{path} was not written by this program: its metadata lacks {_KEY!r}")
    try:
        metadata = loads_json(written)
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict):
        raise MakegptError(f"{path} is damaged: the metadata in its metadata cannot be read")
    return metadata
