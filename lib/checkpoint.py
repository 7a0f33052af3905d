"""Tensors on disk: safetensors files with their facts inside, the same bytes for the same content.

Facts go under one metadata key as one JSON string, since several keys would be written in random order.
"""

import json
import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Mapping

import torch
from safetensors import SafetensorError, safe_open

from lib import artifact, json_reader, model
from lib.config import ModelConfig
from lib.errors import MakegptError
from lib.model import LanguageModel

_KEY = "makegpt"
_NAMED = 8  # tensors that an error names; of more it tells how many


def save(path: Path, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    """Write `tensors`, each stored once and contiguous, and the plain data `facts`, whole or not at all."""
    write(path, tensors, {_KEY: artifact.canonical(facts)})


def write(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
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
    with artifact.replacing(path) as beside, open(beside, "wb", buffering=1 << 20) as file:
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
def opened(path: Path, framework: str = "pt") -> Iterator[Any]:
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


def load(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and facts of the file `path`; MakegptError where it is missing, damaged or not ours."""
    facts = read_facts(path)
    with opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 - not a dict


def read_facts(path: Path) -> dict[str, Any]:
    """The facts of the file `path` alone."""
    with opened(path) as file:
        written = (file.metadata() or {}).get(_KEY)
    if written is None:
        raise MakegptError(f"{path} was not written by this program: its metadata lacks {_KEY!r}")
    try:
        facts = json_reader.loads(written)
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise MakegptError(f"{path} is damaged: the facts in its metadata cannot be read")
    return facts


def build(config: ModelConfig, path: Path, device: torch.device) -> LanguageModel:
    """The model of `config` with the weights in the file `path`; MakegptError where they do not fit.

    A configuration may claim any size, so it is held against the file before memory is taken for it.
    """
    with opened(path) as file:
        check_size(config, {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}, path)  # noqa: SIM118
    built = model.build(config, device)
    fill(built, load(path)[0], path)
    return built


def check_size(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """MakegptError where the model of `config` has other tensors than those of `shapes`; nothing of its size is built."""
    complaint = f"{path} does not fit the model in its config.json"
    if config.n_layers > len(shapes):
        raise MakegptError(f"{complaint}: {len(shapes)} tensors are no {config.n_layers} blocks")
    wanted = _shapes(dict(model.build(config, "meta").named_parameters()))
    check(wanted, shapes, complaint)


def fill(model: torch.nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Copy `tensors` into the model's parameters; MakegptError names those that are missing, spare or of another shape."""
    wanted = dict(model.named_parameters())
    check(_shapes(wanted), _shapes(tensors), f"{path} does not fit the model in its config.json")
    if odd := [name for name in wanted if tensors[name].dtype != torch.float32]:
        raise MakegptError(f"{path} is damaged: {odd[0]} holds {tensors[odd[0]].dtype}, not torch.float32")
    with torch.no_grad():
        for name, weight in wanted.items():
            weight.copy_(tensors[name])


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def check(wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], complaint: str) -> None:
    """MakegptError with the `complaint` and every tensor that is missing, spare or of another shape than `wanted`."""
    both = [name for name in wanted if name in found]
    parts = [
        _listed("missing: ", [name for name in wanted if name not in found]),
        _listed("not part of it: ", sorted(found.keys() - wanted.keys())),
        _listed(
            "", [f"{name} has the shape {found[name]}, not {wanted[name]}" for name in both if found[name] != wanted[name]]
        ),
    ]
    if any(parts):
        raise MakegptError(f"{complaint}: {'; '.join(filter(None, parts))}")


def _listed(head: str, items: list[str]) -> str:
    """The items in words, the first few of many; nothing where there are none."""
    more = f", and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return f"{head}{', '.join(items[:_NAMED])}{more}" if items else ""
