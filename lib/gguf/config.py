"""The keys of a GGUF file that describe a model, from and to our configuration."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from lib.config.designs import MAX_CONTEXT, design_config, find_design
from lib.config.model import GPT_2, ModelConfig
from lib.errors import MakegptError, UsageError
from lib.gguf.architecture import Architecture
from lib.gguf.gpt2 import GPT2
from lib.gguf.llama import LLAMA, QWEN3
from lib.gguf.reader import GGUFFile
from lib.model.positions import Llama3Scaling, frequencies

ARCHITECTURES = {architecture.name: architecture for architecture in (GPT2, QWEN3, LLAMA)}

#: Our parameters -> their keys, after the architecture's name and a dot.
_SIZES = {
    "context_length": "context_length",
    "emb_dim": "embedding_length",
    "n_layers": "block_count",
    "n_heads": "attention.head_count",
    "ff_dim": "feed_forward_length",
}
_KV_HEADS = "attention.head_count_kv"
_ROPE_BASE, _ROPE_CONTEXT = "rope.freq_base", "rope.scaling.original_context_length"
_HEAD_SIZES = ("attention.key_length", "attention.value_length", "rope.dimension_count")

#: More keys that are understood.
_OTHER_KEYS = {"rope.scaling.type", "vocab_size", "expert_count"}

#: What the frequencies of rotary positions are divided by, if they are scaled as in Llama 3: (D/2,).
ROPE_FREQS = "rope_freqs.weight"


def architecture_of(config: ModelConfig, where: str) -> Architecture:
    """The architecture that has the model of `config`; UsageError names an option at `where` that none has."""
    return ARCHITECTURES[find_design(config, where, {name: architecture.fixed for name, architecture in ARCHITECTURES.items()})]


def config_values(config: ModelConfig, architecture: Architecture, ff_dim: int) -> dict[str, Any]:
    """The keys of a file with the model of `config`, by their full names; `ff_dim` is the width of its feed-forward layers."""
    values = {theirs: (asdict(config) | {"ff_dim": ff_dim})[ours] for ours, theirs in _SIZES.items()}
    values |= {_KV_HEADS: config.n_kv_heads or config.n_heads, architecture.norm_eps: config.norm_eps}
    if architecture.rotary:
        values |= {_ROPE_BASE: config.rope_base} | dict.fromkeys(_HEAD_SIZES, config.head_size)
        if config.rope_factor != 1:
            values[_ROPE_CONTEXT] = config.rope_original_context
    return {f"{architecture.name}.{name}": value for name, value in values.items()}


def read_config(file: GGUFFile) -> ModelConfig:
    """The model that the keys and tensors of `file` describe; MakegptError names what is missing or not supported."""
    architecture = architecture_in(file)
    keys = _Keys(file, architecture)
    keys.check()
    sizes = {ours: keys.integer(theirs) for ours, theirs in _SIZES.items()}
    table = file.tensors.get("token_embd.weight")
    if table is None or len(table.shape) != 2:
        raise MakegptError(f"{file.path} has no matrix token_embd.weight")
    heads = sizes["n_heads"]
    head_dim = keys.integer("attention.key_length", sizes["emb_dim"] // max(heads, 1))
    for key in _HEAD_SIZES:
        if (size := keys.integer(key, head_dim)) != head_dim:
            raise MakegptError(
                f"{file.path}: {architecture.name}.{key}={size} is not supported; it must be {head_dim}, the size of a head"
            )
    if (rows := keys.integer("vocab_size", table.shape[0])) != table.shape[0]:
        raise MakegptError(
            f"{file.path}: {architecture.name}.vocab_size={rows}, but token_embd.weight has {table.shape[0]} rows"
        )
    if sizes["n_layers"] > len(file.tensors):
        raise MakegptError(f"{file.path}: {len(file.tensors)} tensors are no {sizes['n_layers']} blocks")
    sizes["context_length"] = min(sizes["context_length"], MAX_CONTEXT)

    def has(ours: str) -> bool:
        return architecture.theirs(ours)[0] in file.tensors

    options: dict[str, Any] = {
        "vocab_size": table.shape[0],
        "qkv_bias": has("blocks.0.attention.W_qkv.bias"),
        "out_bias": has("blocks.0.attention.out_proj.bias"),
        "tie_weights": not has("out_head.weight"),
        "n_kv_heads": keys.integer(_KV_HEADS, heads),
        "head_dim": head_dim,
        "norm_eps": keys.number(architecture.norm_eps),
    }
    if architecture.rotary:
        options["rope_base"] = keys.number(_ROPE_BASE, GPT_2["rope_base"])
        if ROPE_FREQS in file.tensors:
            options |= _rope_scaling(file, keys, frequencies(head_dim, options["rope_base"]))
    try:
        return design_config(architecture.name, str(file.path), **options, **sizes)
    except UsageError as error:
        raise MakegptError(str(error)) from None


def _rope_scaling(file: GGUFFile, keys: "_Keys", speeds: Tensor) -> dict[str, Any]:
    """Our options of the Llama-3 scaling that the divisors of the `speeds` in `file` are made by.

    The file has the divisors alone; every release of Llama 3 has the same parameters but for the factor, which is the largest.
    """
    divisors = file.read(ROPE_FREQS)
    context = keys.integer(_ROPE_CONTEXT, GPT_2["rope_original_context"])
    factor = float(f"{divisors.max(initial=1):.6g}")
    scaling = Llama3Scaling(factor, GPT_2["rope_low_freq_factor"], GPT_2["rope_high_freq_factor"], context)
    expected = 1 / scaling.scales(speeds).numpy()
    if factor == 1 or divisors.shape != expected.shape or not np.allclose(divisors, expected, rtol=1e-4):
        raise MakegptError(f"{file.path}: {ROPE_FREQS} is not Llama 3's scaling for {context} tokens, and is not supported")
    return {"rope_factor": factor, "rope_original_context": context}


def architecture_in(file: GGUFFile) -> Architecture:
    """The architecture of `file`; MakegptError if it is none of ours."""
    name = file.values.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise MakegptError(f"{file.path} has the architecture {name}; supported are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


@dataclass(frozen=True)
class _Keys:
    """The keys of a file that begin with the name of its architecture."""

    file: GGUFFile
    architecture: Architecture

    def check(self) -> None:
        """MakegptError for a key that could change the result and is not understood."""
        known = {*_SIZES.values(), *_OTHER_KEYS, _KV_HEADS, self.architecture.norm_eps}
        if self.architecture.rotary:
            known |= {_ROPE_BASE, _ROPE_CONTEXT, *_HEAD_SIZES}
        for key, value in self.file.values.items():
            name = key.removeprefix(f"{self.architecture.name}.")
            unknown = name != key and name not in known
            if unknown or (name == "rope.scaling.type" and value != "none") or (name == "expert_count" and value != 0):
                raise MakegptError(f"{self.file.path}: {key}={str(value)[:40]} is not supported")

    def integer(self, name: str, default: int | None = None) -> int:
        """The whole number of the key `name`."""
        value = self._value(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise MakegptError(f"{self.file.path}: {self.architecture.name}.{name}={str(value)[:40]} must be a whole number")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """The number of the key `name`, the shortest decimal of its float32: 1e-5, not 9.99999975e-06."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise MakegptError(f"{self.file.path}: {self.architecture.name}.{name}={str(value)[:40]} must be a number")
        return float(str(np.float32(value)))

    def _value(self, name: str, default: Any) -> Any:
        value = self.file.values.get(f"{self.architecture.name}.{name}", default)
        if value is None:
            raise MakegptError(f"{self.file.path} lacks the key {self.architecture.name}.{name}")
        return value
