"""An adapter in PEFT's files, merged into the model of a run."""

import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Iterator

import torch
from torch import Tensor

from lib.artifact.io import read_json
from lib.artifact.manifest import Manifest
from lib.artifact.tensors import open_safetensors
from lib.config.designs import find_design
from lib.config.model import ModelConfig
from lib.errors import MakegptError, UsageError
from lib.huggingface.convert import LAYOUTS
from lib.huggingface.files import LazyTensor, check_keys, open_tensors
from lib.huggingface.layout import Layout, tensor_mappings
from lib.huggingface.peft_export import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, BASE_KEY, PREFIX
from lib.run.folder import MODEL_FILE, chat_template_source, finished_manifest, load_run, read_model_config
from lib.run.imported import check_importable, write_imported_run

#: The keys of adapter_config.json that change what an adapter computes, and the supported values; the first is their default.
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None, []),
    "init_lora_weights": (True, False, None, "gaussian"),  # the others change the base model
    **dict.fromkeys(("use_dora", "use_qalora", "lora_bias"), (False, None)),
    **dict.fromkeys(("alora_invocation_tokens", "layer_replication", "target_parameters"), (None,)),
    **dict.fromkeys(("arrow_config", "kasa_config", "monteclora_config", "use_bdlora"), (None, False)),
}


@dataclass(frozen=True)
class _Matrix:
    """Where a matrix of theirs is: `rows` of our parameter `name`, (out, in)."""

    name: str
    rows: slice
    shape: tuple[int, int]


def import_adapter(source: Path, base: Path, target: Path, *, started: str) -> Manifest:
    """Write the run folder `target` with the model of the run in `base` and the adapter in the folder `source`, merged.

    Raises MakegptError if the adapter belongs to another model or does more than LoRA; UsageError if `target` holds
    something else.
    """
    check_importable(target)
    if target.resolve() == base.resolve():
        raise UsageError(f"{base} is the base model itself; choose another -o")
    manifest = finished_manifest(base)
    layout = LAYOUTS[find_design(read_model_config(base), str(base))]
    files = [source / ADAPTER_CONFIG_FILE, source / ADAPTER_WEIGHTS_FILE]
    settings = _read_settings(files[0])
    _check_base(files[1], base, manifest)
    trained = load_run(base, torch.device("cpu"))
    weights = {name: weight.detach() for name, weight in trained.model.named_parameters()}
    matrices = _matrices(layout, trained.config)
    with open_tensors(files[1:]) as lazy_tensors:
        for module, A, B in _pairs(lazy_tensors, matrices, files[1], base):
            matrix = matrices[module]
            weights[matrix.name][matrix.rows] += (B @ A) * settings.scale(module, A.shape[0])
    return write_imported_run(
        target,
        trained.config,
        trained.tokenizer,
        weights,
        checkpoint={"model": asdict(trained.config), "tokenizer": trained.tokenizer.identity()},
        inputs=[*files, base / MODEL_FILE],
        metadata={},
        started=started,
        chat_template=chat_template_source(base, manifest),
    )


@dataclass(frozen=True)
class _Settings:
    """What adapter_config.json at `where` says of the product's factor."""

    where: Path
    rank: int
    alpha: float
    ranks: dict[str, int]
    alphas: dict[str, float]
    is_root: bool  # rsLoRA (Kalajdzievski 2023): α/√r

    def scale(self, module: str, rank: int) -> float:
        """α/r of `module`, whose matrices have this rank; MakegptError if it is not the rank that the file says."""
        saved = next((r for end, r in self.ranks.items() if f".{module}".endswith(f".{end}")), self.rank)
        if saved != rank:
            raise MakegptError(f"{self.where} says rank {saved} of {module}, but its tensors have rank {rank}")
        alpha = next((alpha for end, alpha in self.alphas.items() if f".{module}".endswith(f".{end}")), self.alpha)
        return alpha / (math.sqrt(rank) if self.is_root else rank)


def _read_settings(path: Path) -> _Settings:
    saved = read_json(path)
    if not isinstance(saved, dict):
        raise MakegptError(f"{path} describes no adapter; it must be PEFT's {ADAPTER_CONFIG_FILE}")
    check_keys(saved, _SUPPORTED, ("peft_type", "r", "lora_alpha"), str(path))
    patterns = [saved.get(name) or {} for name in ("rank_pattern", "alpha_pattern")]
    for numbers in ({"r": saved["r"], "lora_alpha": saved["lora_alpha"]}, *patterns):
        if not isinstance(numbers, dict):
            raise MakegptError(f"{path}: its patterns must be objects, not {str(numbers)[:40]}")
        for name, number in numbers.items():
            if re.search(r"[^\w.]", name):
                raise MakegptError(f"{path}: the pattern {name[:40]} is not supported; it must be the end of a name")
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number < 1e9:
                raise MakegptError(f"{path}: {name}={str(number)[:40]} must be a number greater than 0")
    ranks, alphas = patterns
    return _Settings(path, saved["r"], saved["lora_alpha"], ranks, alphas, saved.get("use_rslora") is True)


def _check_base(path: Path, base: Path, manifest: Manifest) -> None:
    """MakegptError if the adapter in `path` names other weights than those of the run in `base`."""
    with open_safetensors(path) as file:
        named = (file.metadata() or {}).get(BASE_KEY)
    if named not in (None, manifest.outputs[MODEL_FILE].sha256):
        raise MakegptError(f"{path} is an adapter of another model: its {BASE_KEY} is not that of {base / MODEL_FILE}")


def _matrices(layout: Layout, config: ModelConfig) -> dict[str, _Matrix]:
    """Their matrices that can have an adapter, by module: those of the blocks, and a head that is not the embedding."""
    matrices = {}
    for mapping in tensor_mappings(layout, config):
        start = 0
        for name, shape in zip(mapping.theirs, mapping.shapes, strict=True):
            if len(shape) == 2 and (mapping.ours.startswith("blocks.") or name == layout.head):
                rows, columns = reversed(shape) if mapping.transposed else shape
                prefix = "" if name == layout.head else layout.prefix
                matrices[prefix + name.removesuffix(".weight")] = _Matrix(
                    mapping.ours, slice(start, start + rows), (rows, columns)
                )
                start += rows
    return matrices


def _pairs(
    lazy_tensors: dict[str, LazyTensor], matrices: dict[str, _Matrix], path: Path, base: Path
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Each module that is adapted, with A and B; MakegptError names a tensor that fits no matrix of the model in `base`."""
    modules: dict[str, dict[str, LazyTensor]] = {}
    for name, tensor in lazy_tensors.items():
        match = re.fullmatch(re.escape(PREFIX) + r"(.+)\.lora_([AB])\.weight", name)
        if match is None or match[1] not in matrices:
            raise MakegptError(
                f"{path}: {name} adapts no linear layer of the model in {base}; other weights cannot be merged, "
                "nor a head that is the embedding"
            )
        modules.setdefault(match[1], {})[match[2]] = tensor
    if not modules:
        raise MakegptError(f"{path} holds no adapters")
    for module, pair in modules.items():
        if missing := {"A", "B"} - pair.keys():
            raise MakegptError(f"{path}: {module} lacks lora_{min(missing)}")
        (rows, columns), rank = matrices[module].shape, pair["A"].shape[0] if pair["A"].shape else 0
        if rank == 0 or pair["A"].shape != (rank, columns) or pair["B"].shape != (rows, rank):
            raise MakegptError(
                f"{path} is an adapter of another model: {module} is ({rows}, {columns}) in {base}, "
                f"but A is {pair['A'].shape} and B {pair['B'].shape}"
            )
        A, B = pair["A"].read(), pair["B"].read()
        if not (A.isfinite().all() and B.isfinite().all()):
            raise MakegptError(f"{path}: {module} has numbers that are not finite")
        yield module, A, B
