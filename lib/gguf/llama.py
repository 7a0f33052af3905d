"""The architecture `llama` of GGUF files (Llama, SmolLM2), and `qwen3`.

Both are `model.kind=gpt` with rotary positions, RMSNorm, SwiGLU and grouped-query attention. qwen3 also normalizes queries and
keys; llama.cpp reads no biases and no scaled angles in its files. Their projections of queries, keys and values are three
matrices, ours is one: their rows, one below the other.

Rotary positions rotate pairs of numbers: ours and qwen3's x_i with x_{i+D/2}, llama's x_{2i} with x_{2i+1}. So the rows of q
and k in a llama file are in another order within each head.

H heads, D head size
"""

import numpy as np

from lib.config.designs import DESIGNS
from lib.gguf.architecture import COMMON_NAMES, Architecture

_NAMES = COMMON_NAMES | {
    "blocks.{n}.attention.W_qkv.weight": ("blk.{n}.attn_q.weight", "blk.{n}.attn_k.weight", "blk.{n}.attn_v.weight"),
    "blocks.{n}.attention.W_qkv.bias": ("blk.{n}.attn_q.bias", "blk.{n}.attn_k.bias", "blk.{n}.attn_v.bias"),
    "blocks.{n}.attention.q_norm.scale": ("blk.{n}.attn_q_norm.weight",),
    "blocks.{n}.attention.k_norm.scale": ("blk.{n}.attn_k_norm.weight",),
    "blocks.{n}.feed_forward.gate.weight": ("blk.{n}.ffn_gate.weight",),
}
_NORM_EPS = "attention.layer_norm_rms_epsilon"

LLAMA = Architecture(
    name="llama",
    fixed=DESIGNS["llama"],
    names=_NAMES,
    norm_eps=_NORM_EPS,
    rotary=True,
    interleaved=True,
)

QWEN3 = Architecture(
    name="qwen3",
    fixed=DESIGNS["qwen3"] | {"qkv_bias": False, "out_bias": False, "rope_factor": 1.0},
    names=_NAMES,
    norm_eps=_NORM_EPS,
    rotary=True,
)


def split_halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of interleaved pairs to rows of two halves: within each head, 0, 2, 4, … and then 1, 3, 5, …: (heads·D, …) -> same.

    The inverse of what llama.cpp's converter does to q and k (conversion/llama.py, `permute`).
    """
    D = rows.shape[0] // heads
    return np.ascontiguousarray(rows.reshape(heads, D // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape))


def interleave_halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `split_halves`: (heads·D, …) -> same."""
    D = rows.shape[0] // heads
    return np.ascontiguousarray(rows.reshape(heads, 2, D // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape))
