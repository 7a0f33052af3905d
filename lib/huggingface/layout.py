"""A layout: how the tensors and the config.json of one design are called and stored, and both ways through it.

"Theirs" is Hugging Face's. A layout lists their names of our tensors; everything else here is the same for all layouts.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping

import torch
from torch import Tensor

from lib.artifact.tensors import write_safetensors
from lib.config.model import ModelConfig
from lib.errors import MakegptError
from lib.huggingface.files import HF_CONFIG_FILE, LazyTensor
from lib.model.registry import build_model
from lib.run.weights import check_shapes, names_in_layout

_FLOATS = ("F64", "F32", "F16", "BF16")
_TABLE, _HEAD = "tok_emb.weight", "out_head.weight"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The layout of one design.

    `tensor_names`: ours -> theirs, {n} is the number of a block; where ours is several of theirs, ours has their rows one below
    the other. `prefix`: before all names but the head's; some files have none. `transposed`: matrices of blocks are (in, out).
    `buffers`: what some files hold that is no weight. `read_config`: our model of the content of their config.json, and where
    that is from; `write_config`: the reverse, with the end-of-text token. `stored`: the model with the biases that files have.
    """

    title: str
    tensor_names: Mapping[str, tuple[str, ...]]
    prefix: str
    transposed: bool
    buffers: re.Pattern[str]
    read_config: Callable[[dict[str, Any], str], ModelConfig]
    write_config: Callable[[ModelConfig, int | None], dict[str, Any]]
    stored: Callable[[ModelConfig], ModelConfig]

    @property
    def head(self) -> str:
        """Their name of the output head."""
        return self.tensor_names[_HEAD][0]

    @property
    def table(self) -> str:
        """Their name of the token embeddings."""
        return self.tensor_names[_TABLE][0]


@dataclass(frozen=True)
class TensorMapping:
    """The name of a tensor in both layouts, the shapes of its parts in theirs, and whether they are transposed."""

    ours: str
    theirs: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    transposed: bool


def tensor_mappings(layout: Layout, config: ModelConfig) -> list[TensorMapping]:
    """Every tensor of a model of `config`."""
    mappings = []
    for ours, weight in build_model(config, "meta").named_parameters():
        theirs = names_in_layout(layout.tensor_names, ours)
        transposed = layout.transposed and ours.startswith("blocks.") and weight.dim() == 2
        parts = weight.split(config.qkv_rows) if len(theirs) > 1 else (weight,)  # type: ignore[no-untyped-call]
        shapes = tuple(tuple(part.T.shape if transposed else part.shape) for part in parts)
        mappings.append(TensorMapping(ours, theirs, shapes, transposed))
    return mappings


def short_names(layout: Layout, lazy_tensors: dict[str, LazyTensor], source: Path) -> dict[str, LazyTensor]:
    """The weights among `lazy_tensors` by their names without prefix; MakegptError if a name is there with it and without."""
    tensors: dict[str, LazyTensor] = {}
    for name, tensor in lazy_tensors.items():
        short = name.removeprefix(layout.prefix)
        if short in tensors:
            raise MakegptError(f"{source}: duplicate tensor {short}: {tensors[short].name} and {name}")
        if not layout.buffers.fullmatch(short):
            tensors[short] = tensor
    return tensors


def is_tied(layout: Layout, tensors: dict[str, LazyTensor]) -> bool:
    """Whether the head shares the token embeddings: it is missing, or has the same numbers."""
    head, table = tensors.get(layout.head), tensors.get(layout.table)
    return head is None or (table is not None and head.shape == table.shape and torch.equal(head.read(), table.read()))


def read_weights(layout: Layout, lazy_tensors: dict[str, LazyTensor], config: ModelConfig, source: Path) -> dict[str, Tensor]:
    """Our tensors of a model of `config`, float32; MakegptError names a missing, unexpected or wrong tensor."""
    lazy_tensors = short_names(layout, lazy_tensors, source)
    complaint = f"{source} is not the expected {layout.title}"
    if config.n_layers > len(lazy_tensors):
        raise MakegptError(f"{complaint}: {len(lazy_tensors)} tensors are too few for {config.n_layers} blocks")
    if unsupported := [f"{name} ({tensor.dtype})" for name, tensor in lazy_tensors.items() if tensor.dtype not in _FLOATS]:
        raise MakegptError(f"{source}: {unsupported[0]} has an unsupported type; it must be one of {', '.join(_FLOATS)}")
    mappings = tensor_mappings(layout, config)
    shapes = {name: shape for mapping in mappings for name, shape in zip(mapping.theirs, mapping.shapes, strict=True)}
    head, table = layout.head, layout.table
    if config.tie_weights and head in lazy_tensors and lazy_tensors[head].shape == shapes[table]:
        if not is_tied(layout, lazy_tensors):
            raise MakegptError(
                f"{source}: {head} differs from {table}, but {HF_CONFIG_FILE} says tie_word_embeddings=true; set it to false"
            )
        del lazy_tensors[head]
    check_shapes(shapes, {name: tensor.shape for name, tensor in lazy_tensors.items()}, complaint)
    tensors = {}
    for mapping in mappings:
        parts = [lazy_tensors[name].read() for name in mapping.theirs]
        for name, part in zip(mapping.theirs, parts, strict=True):
            if not torch.isfinite(part).all():
                raise MakegptError(
                    f"{source}: {name} has numbers that are not finite; it is damaged, or of a training that diverged"
                )
        tensor = torch.cat(parts) if len(parts) > 1 else parts[0]
        tensors[mapping.ours] = tensor.T.contiguous() if mapping.transposed else tensor
    return tensors


def drop_padding_rows(tensors: dict[str, Tensor], vocab_size: int) -> dict[str, Tensor]:
    """Our `tensors` with only the first `vocab_size` rows of the embeddings and the head."""
    return {name: tensor[:vocab_size].clone() if name in (_TABLE, _HEAD) else tensor for name, tensor in tensors.items()}


def write_weights(layout: Layout, path: Path, weights: dict[str, Tensor], config: ModelConfig) -> None:
    """Write our `weights` of a model of `config` as their model.safetensors; missing biases become zeros."""
    tensors = {}
    for mapping in tensor_mappings(layout, layout.stored(config)):
        rows = [shape[-1 if mapping.transposed else 0] for shape in mapping.shapes]
        weight = weights[mapping.ours].detach() if mapping.ours in weights else torch.zeros(sum(rows))
        for name, part in zip(mapping.theirs, weight.split(rows), strict=True):  # type: ignore[no-untyped-call]
            full_name = name if name == layout.head else layout.prefix + name
            tensors[full_name] = part.T.contiguous() if mapping.transposed else part
    write_safetensors(path, tensors, {"format": "pt"})
