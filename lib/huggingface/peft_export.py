"""The adapters of a run in PEFT's files: `adapter_config.json` and `adapter_model.safetensors`.

Its matrices are A, `lora_A.weight` (r, in), and B, `lora_B.weight` (out, r), by the names of Hugging Face's layout. r rank
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib.artifact.folders import check_replaceable, replacing_folder
from lib.artifact.io import write_json
from lib.artifact.manifest import (
    Input,
    Manifest,
    describe_files,
    identity_of,
    new_manifest,
    relative_place,
    verify_files,
    write_manifest,
)
from lib.artifact.tensors import load_tensors, write_safetensors
from lib.config.designs import find_design
from lib.config.model import ModelConfig
from lib.errors import MakegptError, UsageError
from lib.huggingface.convert import LAYOUTS
from lib.huggingface.layout import Layout
from lib.model.lora import PARTS
from lib.run.folder import ADAPTER_FILE, finished_manifest, read_model_config
from lib.run.weights import names_in_layout

ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"

#: Before the names of a model's modules.
PREFIX = "base_model.model."

#: Of the tensors' metadata: the SHA-256 of the weights' file that the adapters belong to.
BASE_KEY = "base_sha256"


def export_adapter(folder: Path, target: Path, *, started: str) -> Manifest:
    """Write the adapters that the run in `folder` has learned into the folder `target`, in PEFT's files.

    Raises MakegptError if it has none, UsageError for a classifier or if no layout has its design.
    """
    source = finished_manifest(folder)
    config = read_model_config(folder)
    if config.n_classes:
        raise UsageError(f"{folder} is a classifier; only the adapters of models of texts can be exported")
    layout = LAYOUTS[find_design(config, str(folder))]
    check_replaceable(target, "export")
    if ADAPTER_FILE not in source.outputs:
        raise MakegptError(f"{folder} has no adapters, which a training with train.finetune=lora learns; use --to hf")
    verify_files(folder, {ADAPTER_FILE: source.outputs[ADAPTER_FILE]})
    adapters, metadata = load_tensors(folder / ADAPTER_FILE)
    tensors = to_peft_tensors(adapters, layout, config)
    with replacing_folder(target, "export") as temporary:
        write_json(temporary / ADAPTER_CONFIG_FILE, to_peft_config(tensors, layout, adapters, metadata["lora_alpha"]))
        write_safetensors(temporary / ADAPTER_WEIGHTS_FILE, tensors, {"format": "pt", BASE_KEY: metadata["init_from"]})
        manifest = new_manifest(
            "export",
            "export-weights",
            parameters={},
            inputs={relative_place(folder, target): Input(identity=identity_of(source))},
            outputs=describe_files(temporary, [ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE]),
            metadata={"parameters": sum(tensor.numel() for tensor in tensors.values())},
            started=started,
        )
        write_manifest(temporary, manifest)
    return manifest


def to_peft_tensors(adapters: dict[str, Tensor], layout: Layout, config: ModelConfig) -> dict[str, Tensor]:
    """The `adapters` by PEFT's names. Where one matrix of theirs is several parts of ours, the parts' ranks add up.

    Then A has the rows of all their As, and B is 0 outside the blocks that are their Bs: the same product.
    """
    tensors = {}
    for layer in dict.fromkeys(name.split(".adapters.")[0] for name in adapters):
        parts = PARTS[layer.rpartition(".")[2]]
        sizes = config.qkv_rows if len(parts) > 1 else None
        theirs = names_in_layout(layout.tensor_names, f"{layer}.weight")
        for name, group in zip(theirs, [parts] if len(theirs) == 1 else [(part,) for part in parts], strict=True):
            learned = [part for part in group if f"{layer}.adapters.{part}.A" in adapters]
            if not learned:
                continue
            As, Bs = ([adapters[f"{layer}.adapters.{part}.{matrix}"] for part in learned] for matrix in "AB")
            if sizes and len(group) > 1:
                Bs = [_among(B, part, parts, sizes) for B, part in zip(Bs, learned, strict=True)]
            module = PREFIX + layout.prefix + name.removesuffix(".weight")
            tensors[f"{module}.lora_A.weight"] = torch.cat(As)
            tensors[f"{module}.lora_B.weight"] = torch.cat(Bs, dim=1)
    return tensors


def _among(B: Tensor, part: str, parts: tuple[str, ...], sizes: tuple[int, ...]) -> Tensor:
    """B of one part, (rows, r), with rows of zeros for the others: (all rows, r)."""
    return torch.cat([B if other == part else B.new_zeros(rows, B.shape[1]) for other, rows in zip(parts, sizes, strict=True)])


def to_peft_config(tensors: dict[str, Tensor], layout: Layout, adapters: dict[str, Tensor], alpha: float) -> dict[str, Any]:
    """The content of adapter_config.json. Every matrix keeps α/r, also one whose rank is that of several parts."""
    scale = alpha / next(tensor.shape[0] for name, tensor in adapters.items() if name.endswith(".A"))
    ranks: dict[str, int] = {}
    for name, tensor in tensors.items():
        if name.endswith(".lora_A.weight"):
            ranks[_target(name.removesuffix(".lora_A.weight"), layout)] = tensor.shape[0]
    rank = min(ranks.values())
    larger = {target: r for target, r in ranks.items() if r != rank}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": _number(scale * rank),
        "rank_pattern": larger,
        "alpha_pattern": {target: _number(scale * r) for target, r in larger.items()},
        "target_modules": sorted(ranks),
        "fan_in_fan_out": layout.transposed,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "init_lora_weights": True,
    }


def _target(module: str, layout: Layout) -> str:
    """The end of a module's name, as long as needed to tell it from the others of a block: both of GPT-2's are c_proj."""
    *_, parent, last = module.split(".")
    same = [name for names in layout.tensor_names.values() for name in names if name.endswith(f".{last}.weight")]
    return last if len(same) == 1 else f"{parent}.{last}"


def _number(value: float) -> float | int:
    """A whole number as an integer."""
    return int(value) if value == int(value) else value
