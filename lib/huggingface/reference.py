"""GPT-2, Llama and Qwen3 a second time, in NumPy and float64, by Hugging Face's names.

They share neither the model's code nor the tables of names with the export, so that an error there does not cancel here.

T time, C embedding, H heads, G key and value heads, D head size, V vocabulary
"""

import math
from pathlib import Path
from typing import Any, Callable

import numpy as np
from numpy.typing import NDArray

from lib.artifact.io import read_json
from lib.artifact.tensors import open_safetensors

Numbers = NDArray[np.float64]


def exported_logits(folder: Path, ids: list[int]) -> Numbers:
    """The logits (T, V) that the files in `folder` give for `ids`, one tensor in memory at a time."""
    config = read_json(folder / "config.json")
    with open_safetensors(folder / "model.safetensors", "numpy") as file:
        names = set(file.keys())

        def tensor(name: str) -> Numbers:
            return np.asarray(file.get_tensor(name), dtype=np.float64)

        def optional(name: str) -> Numbers | float:
            return tensor(name) if name in names else 0.0

        with np.errstate(all="ignore"):  # what is not finite shows in the difference
            if config["model_type"] == "gpt2":
                x, table = gpt2_features(tensor, config, ids), "transformer.wte.weight"
            else:
                x, table = llama_features(tensor, optional, config, ids), "model.embed_tokens.weight"
            return x @ tensor(table if config["tie_word_embeddings"] else "lm_head.weight").T


def gpt2_features(tensor: Callable[[str], Numbers], config: dict[str, Any], ids: list[int]) -> Numbers:
    """GPT-2 (Radford et al. 2019), a linear layer's matrix as (in, out): ids (T,) -> what the head is applied to (T, C)."""

    def linear(x: Numbers, name: str) -> Numbers:
        return x @ tensor(f"transformer.{name}.weight") + tensor(f"transformer.{name}.bias")

    def norm(x: Numbers, name: str) -> Numbers:
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + config["layer_norm_epsilon"])
        return x * tensor(f"transformer.{name}.weight") + tensor(f"transformer.{name}.bias")

    T = len(ids)
    x = tensor("transformer.wte.weight")[ids] + tensor("transformer.wpe.weight")[:T]  # (T, C)
    for n in range(config["n_layer"]):
        qkv = linear(norm(x, f"h.{n}.ln_1"), f"h.{n}.attn.c_attn")
        q, k, v = (part.reshape(T, config["n_head"], -1).transpose(1, 0, 2) for part in np.split(qkv, 3, axis=-1))  # (H, T, D)
        x = x + linear(attention(q, k, v), f"h.{n}.attn.c_proj")
        wide = linear(norm(x, f"h.{n}.ln_2"), f"h.{n}.mlp.c_fc")
        wide = 0.5 * wide * (1 + np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)))
        x = x + linear(wide, f"h.{n}.mlp.c_proj")
    return norm(x, "ln_f")


def llama_features(
    tensor: Callable[[str], Numbers], optional: Callable[[str], Numbers | float], config: dict[str, Any], ids: list[int]
) -> Numbers:
    """Llama (Touvron et al. 2023) and Qwen3 (Yang et al. 2025): ids (T,) -> what the head is applied to (T, C).

    `optional`: a bias, or 0 if there is none.
    """
    T, H, G, D = len(ids), config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    angles = np.arange(T)[:, None] * rotary_speeds(config["rope_parameters"], D)  # (T, D/2)

    def linear(x: Numbers, name: str) -> Numbers:
        return x @ tensor(f"{name}.weight").T + optional(f"{name}.bias")

    def norm(x: Numbers, name: str) -> Numbers:
        return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + config["rms_norm_eps"]) * tensor(f"{name}.weight")

    def heads(x: Numbers, name: str, count: int) -> Numbers:
        return linear(x, name).reshape(T, count, D).transpose(1, 0, 2)  # (count, T, D)

    def rotate(x: Numbers, name: str) -> Numbers:
        x = norm(x, name) if config["model_type"] == "qwen3" else x
        rotated = (x[..., : D // 2] + 1j * x[..., D // 2 :]) * np.exp(1j * angles)
        return np.concatenate([rotated.real, rotated.imag], axis=-1)

    x = tensor("model.embed_tokens.weight")[ids]  # (T, C)
    for n in range(config["num_hidden_layers"]):
        layer = f"model.layers.{n}."
        y = norm(x, layer + "input_layernorm")
        q = rotate(heads(y, layer + "self_attn.q_proj", H), layer + "self_attn.q_norm")
        k = rotate(heads(y, layer + "self_attn.k_proj", G), layer + "self_attn.k_norm")
        v = heads(y, layer + "self_attn.v_proj", G)
        shared = [part.repeat(H // G, axis=0) for part in (k, v)]
        x = x + linear(attention(q, *shared), layer + "self_attn.o_proj")
        y = norm(x, layer + "post_attention_layernorm")
        gate = linear(y, layer + "mlp.gate_proj")
        x = x + linear(gate / (1 + np.exp(-gate)) * linear(y, layer + "mlp.up_proj"), layer + "mlp.down_proj")
    return norm(x, "model.norm")


def rotary_speeds(rope: dict[str, Any], size: int) -> Numbers:
    """The radians per token of each pair (D/2,), slowed as in Llama 3.1 (Grattafiori et al. 2024) if `rope` asks for it."""
    speeds = np.asarray([rope["rope_theta"] ** (-2 * i / size) for i in range(size // 2)], dtype=np.float64)
    if rope["rope_type"] == "default":
        return speeds
    wavelengths = 2 * math.pi / speeds
    original, low, high = rope["original_max_position_embeddings"], rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = (original / wavelengths - low) / (high - low)
    between = (1 - smooth) * speeds / rope["factor"] + smooth * speeds
    fast, slow = wavelengths < original / high, wavelengths > original / low
    return np.where(fast, speeds, np.where(slow, speeds / rope["factor"], between))


def attention(q: Numbers, k: Numbers, v: Numbers) -> Numbers:
    """Causal attention (Vaswani et al. 2017): (H, T, D) three times -> (T, H·D)."""
    T = q.shape[1]
    mask = np.triu(np.ones((T, T), dtype=bool), 1)
    scores = np.where(mask, -np.inf, q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]))  # (H, T, T)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return (weights / weights.sum(axis=-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(T, -1)
