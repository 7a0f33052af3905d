"""The architecture `llama` of GGUF files (Llama, SmolLM2), and `qwen3`: names, shapes and keys, mapped to ours.

Both are `model.kind=gpt` with rotary positions, RMSNorm, SwiGLU and grouped-query attention; qwen3 also normalizes queries and
keys. Their projections of queries, keys and values are three matrices, ours is one: their rows, one below the other.

Rotary positions rotate pairs of numbers: ours and qwen3's x_i with x_{i+D/2}, llama's x_{2i} with x_{2i+1}. So the rows of q
and k in a llama file are in another order within each head, which is undone here.

V vocabulary, C embedding, H heads, G key and value heads, D head size
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lib.config.designs import MAX_CONTEXT, design_config
from lib.config.model import GPT_2, ModelConfig
from lib.errors import MakegptError, UsageError
from lib.gguf.reader import GGUFFile
from lib.model.positions import Llama3Scaling, frequencies
from lib.model.registry import build_model
from lib.run.weights import check_shapes

ARCHITECTURES = ("llama", "qwen3")

#: Our parameters -> their keys, after the architecture's name and a dot.
SIZES = {
    "context_length": "context_length",
    "emb_dim": "embedding_length",
    "n_layers": "block_count",
    "n_heads": "attention.head_count",
    "ff_dim": "feed_forward_length",
}

#: The other keys that are understood.
_OTHER_KEYS = {
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.freq_base",
    "rope.dimension_count",
    "rope.scaling.type",
    "rope.scaling.original_context_length",
    "vocab_size",
    "expert_count",
}

#: What the frequencies of rotary positions are divided by, if they are scaled as in Llama 3: (D/2,).
ROPE_FREQS = "rope_freqs.weight"

#: Our names -> theirs; {n} is the number of a block. W_qkv is three of theirs.
TENSOR_NAMES = {
    "tok_emb.weight": ("token_embd.weight",),
    "blocks.{n}.norm1.scale": ("blk.{n}.attn_norm.weight",),
    "blocks.{n}.attention.W_qkv.weight": ("blk.{n}.attn_q.weight", "blk.{n}.attn_k.weight", "blk.{n}.attn_v.weight"),
    "blocks.{n}.attention.W_qkv.bias": ("blk.{n}.attn_q.bias", "blk.{n}.attn_k.bias", "blk.{n}.attn_v.bias"),
    "blocks.{n}.attention.q_norm.scale": ("blk.{n}.attn_q_norm.weight",),
    "blocks.{n}.attention.k_norm.scale": ("blk.{n}.attn_k_norm.weight",),
    "blocks.{n}.attention.out_proj.weight": ("blk.{n}.attn_output.weight",),
    "blocks.{n}.attention.out_proj.bias": ("blk.{n}.attn_output.bias",),
    "blocks.{n}.norm2.scale": ("blk.{n}.ffn_norm.weight",),
    "blocks.{n}.feed_forward.gate.weight": ("blk.{n}.ffn_gate.weight",),
    "blocks.{n}.feed_forward.expand.weight": ("blk.{n}.ffn_up.weight",),
    "blocks.{n}.feed_forward.contract.weight": ("blk.{n}.ffn_down.weight",),
    "final_norm.scale": ("output_norm.weight",),
    "out_head.weight": ("output.weight",),
}


def read_config(file: GGUFFile) -> ModelConfig:
    """The model that the keys and tensors of `file` describe; MakegptError names what is missing or not supported."""
    architecture = file.values.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise MakegptError(f"{file.path} has the architecture {architecture}; supported are {' and '.join(ARCHITECTURES)}")
    keys = _Keys(file, f"{architecture}.")
    keys.check()
    sizes = {ours: keys.integer(theirs) for ours, theirs in SIZES.items()}
    table = file.tensors.get("token_embd.weight")
    if table is None or len(table.shape) != 2:
        raise MakegptError(f"{file.path} has no matrix token_embd.weight")
    heads = sizes["n_heads"]
    head_dim = keys.integer("attention.key_length", sizes["emb_dim"] // max(heads, 1))
    for key in ("attention.value_length", "rope.dimension_count"):
        if (size := keys.integer(key, head_dim)) != head_dim:
            raise MakegptError(
                f"{file.path}: {architecture}.{key}={size} is not supported; it must be {head_dim}, the size of a head"
            )
    if (rows := keys.integer("vocab_size", table.shape[0])) != table.shape[0]:
        raise MakegptError(f"{file.path}: {architecture}.vocab_size={rows}, but token_embd.weight has {table.shape[0]} rows")
    if sizes["n_layers"] > len(file.tensors):
        raise MakegptError(f"{file.path}: {len(file.tensors)} tensors are no {sizes['n_layers']} blocks")
    sizes["context_length"] = min(sizes["context_length"], MAX_CONTEXT)
    options = {
        "vocab_size": table.shape[0],
        "qkv_bias": "blk.0.attn_q.bias" in file.tensors,
        "out_bias": "blk.0.attn_output.bias" in file.tensors,
        "tie_weights": "output.weight" not in file.tensors,
        "n_kv_heads": keys.integer("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "rope_base": keys.number("rope.freq_base", 10_000.0),
    }
    if ROPE_FREQS in file.tensors:
        options |= _rope_scaling(file, keys, frequencies(head_dim, options["rope_base"]))
    try:
        return design_config(architecture, str(file.path), **options, **sizes)
    except UsageError as error:
        raise MakegptError(str(error)) from None


def _rope_scaling(file: GGUFFile, keys: "_Keys", speeds: torch.Tensor) -> dict[str, Any]:
    """Our options of the Llama-3 scaling that the divisors of the `speeds` in `file` are made by.

    The file has the divisors alone; every release of Llama 3 has the same parameters but for the factor, which is the largest.
    """
    divisors = file.read(ROPE_FREQS)
    context = keys.integer("rope.scaling.original_context_length", GPT_2["rope_original_context"])
    factor = float(f"{divisors.max(initial=1):.6g}")
    scaling = Llama3Scaling(factor, GPT_2["rope_low_freq_factor"], GPT_2["rope_high_freq_factor"], context)
    expected = 1 / scaling.scales(speeds).numpy()
    if factor == 1 or divisors.shape != expected.shape or not np.allclose(divisors, expected, rtol=1e-4):
        raise MakegptError(f"{file.path}: {ROPE_FREQS} is not Llama 3's scaling for {context} tokens, and is not supported")
    return {"rope_factor": factor, "rope_original_context": context}


@dataclass(frozen=True)
class _Keys:
    """The keys of a file that begin with the name of its architecture."""

    file: GGUFFile
    prefix: str

    def check(self) -> None:
        """MakegptError for a key that could change the result and is not understood."""
        for key, value in self.file.values.items():
            name = key.removeprefix(self.prefix)
            unknown = name != key and name not in {*SIZES.values(), *_OTHER_KEYS}
            if unknown or (name == "rope.scaling.type" and value != "none") or (name == "expert_count" and value != 0):
                raise MakegptError(f"{self.file.path}: {key}={str(value)[:40]} is not supported")

    def integer(self, name: str, default: int | None = None) -> int:
        """The whole number of the key `name`."""
        value = self._value(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise MakegptError(f"{self.file.path}: {self.prefix}{name}={str(value)[:40]} must be a whole number")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """The number of the key `name`, the shortest decimal of its float32: 1e-5, not 9.99999975e-06."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise MakegptError(f"{self.file.path}: {self.prefix}{name}={str(value)[:40]} must be a number")
        return float(str(np.float32(value)))

    def _value(self, name: str, default: Any) -> Any:
        value = self.file.values.get(self.prefix + name, default)
        if value is None:
            raise MakegptError(f"{self.file.path} lacks the key {self.prefix}{name}")
        return value


def read_tensors(file: GGUFFile, config: ModelConfig) -> dict[str, torch.Tensor]:
    """The weights of the model of `config`, by our names, float32; MakegptError if a tensor does not belong to it."""
    parameters = dict(build_model(config, "meta").named_parameters())
    names = {ours: _theirs(ours) for ours in parameters}
    expected: dict[str, tuple[int, ...]] = {}
    for ours, theirs in names.items():
        shape = tuple(parameters[ours].shape)
        rows = [shape[0]] if len(theirs) == 1 else config.qkv_rows
        expected |= {name: (count, *shape[1:]) for name, count in zip(theirs, rows, strict=True)}
    shapes = {name: info.shape for name, info in file.tensors.items() if name != ROPE_FREQS}
    check_shapes(expected, shapes, f"{file.path} is not the expected model")
    permuted = file.values["general.architecture"] == "llama"
    tensors = {}
    for ours, theirs in names.items():
        parts = [file.read(name) for name in theirs]
        if permuted and len(parts) == 3:
            parts[0], parts[1] = (
                split_halves(parts[0], config.n_heads),
                split_halves(parts[1], config.n_kv_heads or config.n_heads),
            )
        tensors[ours] = torch.from_numpy(np.concatenate(parts) if len(parts) > 1 else parts[0])
    return tensors


def _theirs(ours: str) -> list[str]:
    number = re.search(r"\d+", ours)
    return [name.format(n=number and number[0]) for name in TENSOR_NAMES[re.sub(r"\.\d+\.", ".{n}.", ours)]]


def split_halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of interleaved pairs to rows of two halves: within each head, 0, 2, 4, … and then 1, 3, 5, …: (heads·D, …) -> same.

    The inverse of what llama.cpp's converter does to q and k (conversion/llama.py, `permute`).
    """
    D = rows.shape[0] // heads
    return np.ascontiguousarray(rows.reshape(heads, D // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape))
