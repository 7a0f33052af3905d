"""Tensors on disk: safetensors files with their facts inside, the same bytes for the same content.

Facts go under one metadata key as one JSON string, since several keys would be written in random order.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lib import artifact
from lib.errors import MakegptError

_KEY = "makegpt"


def save(path: Path, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    """Write `tensors`, each stored once and contiguous, and the plain data `facts`, whole or not at all."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with artifact.replacing(path) as beside:
        try:
            save_file(held, beside, metadata={_KEY: artifact.canonical(facts)})
        except SafetensorError as error:  # it reports the disk's errors as text
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise MakegptError(f"{path} cannot be written: {error}") from None
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None


def load(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and facts of the file `path`; MakegptError where it is missing, damaged or not ours."""
    if not path.is_file():
        raise MakegptError(f"{path} is missing")
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get(_KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, ValueError, OSError):
        raise MakegptError(f"{path} is damaged: it cannot be read as safetensors") from None
    if facts is None:
        raise MakegptError(f"{path} was not written by this program: its metadata lacks {_KEY!r}")
    return tensors, facts


def fill(model: torch.nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Copy `tensors` into the model's parameters; MakegptError names the first that is missing, spare or of another shape."""
    wanted = dict(model.named_parameters())
    for name in sorted(wanted.keys() | tensors.keys()):
        if name not in wanted or name not in tensors:
            raise MakegptError(
                f"{path}: the tensor {name} is {'missing' if name in wanted else 'not part of the model'}; "
                "its config.json is another model's"
            )
        if wanted[name].shape != tensors[name].shape:
            raise MakegptError(
                f"{path}: {name} has the shape {tuple(tensors[name].shape)}, the model's is {tuple(wanted[name].shape)}"
            )
    with torch.no_grad():
        for name, weight in wanted.items():
            weight.copy_(tensors[name])
