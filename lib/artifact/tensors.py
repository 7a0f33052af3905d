"""Tensors on disk: safetensors files with metadata, the same bytes for the same content.

The metadata are one JSON string under one key, since safetensors writes several keys in random order.
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
    """Write `tensors`, each stored once, and `metadata`, plain data, atomically."""
    write_safetensors(path, tensors, {_KEY: canonical_json(metadata)})


def write_safetensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """The same with the format's own `metadata`, for other programs.

    Writes the bytes of safetensors' `save_file`, which would leave its temporary file after a kill and reports disk errors
    as text.
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
    with atomic_write(path) as part, open(part, "wb", buffering=1 << 20) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in ordered:
            file.write(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


#: The format's name of each dtype. A file has the larger ones first, so that all numbers are aligned.
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
    """The safetensors file `path`, ours or not, open for reading single tensors."""
    if not path.is_file():
        raise MakegptError(f"{path} is missing")
    with open(path, "rb") as raw:  # raises the system's own error if it cannot be opened
        try:
            file = safe_open(_as_unicode(path, raw.fileno()), framework=framework)
        except (SafetensorError, OSError) as error:
            if system_error := _system_error(error, path):
                raise system_error from None
            raise MakegptError(f"{path} is damaged: it cannot be read as safetensors") from None
        with file:
            yield file


def _as_unicode(path: Path, descriptor: int) -> str:
    """A name of the open file `path` that is valid Unicode, as safetensors requires."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return f"/dev/fd/{descriptor}"
    return str(path)


def _system_error(error: Exception, path: Path) -> OSError | None:
    """The OSError that safetensors reports as text, about `path`; None if it is another error."""
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1])), str(path)) if number else None


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and metadata of the file `path`; MakegptError if it is missing, damaged or not ours."""
    metadata = read_tensor_metadata(path)
    with open_safetensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 - not a dict


def read_tensor_metadata(path: Path) -> dict[str, Any]:
    """Only the metadata of the file `path`."""
    with open_safetensors(path) as file:
        text = (file.metadata() or {}).get(_KEY)
    if text is None:
        raise MakegptError(f"{path} was not written by this program: its metadata lacks {_KEY!r}")
    try:
        metadata = loads_json(text)
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict):
        raise MakegptError(f"{path} is damaged: its metadata cannot be read")
    return metadata
