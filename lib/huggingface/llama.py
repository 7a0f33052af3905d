"""Llama and Qwen3 in Hugging Face's layout: the names of their tensors and their config.json, mapped to ours.

Mistral without a window is Llama, and Qwen2 is Llama with biases in queries, keys and values: both are read too. Rotary
positions rotate the pairs (x_i, x_{i+D/2}), as ours do.
"""

import re
from dataclasses import asdict, replace
from typing import Any

from lib.config.designs import MAX_CONTEXT, TITLES, design_config
from lib.config.model import ModelConfig
from lib.errors import MakegptError, UsageError
from lib.huggingface.files import check_keys
from lib.huggingface.layout import Layout
from lib.model.registry import build_model

_SELF = "layers.{n}.self_attn."

#: Our names -> theirs; {n} is the number of a block. W_qkv is three of theirs.
TENSOR_NAMES = {
    "tok_emb.weight": ("embed_tokens.weight",),
    "blocks.{n}.norm1.scale": ("layers.{n}.input_layernorm.weight",),
    "blocks.{n}.attention.W_qkv.weight": (_SELF + "q_proj.weight", _SELF + "k_proj.weight", _SELF + "v_proj.weight"),
    "blocks.{n}.attention.W_qkv.bias": (_SELF + "q_proj.bias", _SELF + "k_proj.bias", _SELF + "v_proj.bias"),
    "blocks.{n}.attention.q_norm.scale": (_SELF + "q_norm.weight",),
    "blocks.{n}.attention.k_norm.scale": (_SELF + "k_norm.weight",),
    "blocks.{n}.attention.out_proj.weight": (_SELF + "o_proj.weight",),
    "blocks.{n}.attention.out_proj.bias": (_SELF + "o_proj.bias",),
    "blocks.{n}.norm2.scale": ("layers.{n}.post_attention_layernorm.weight",),
    "blocks.{n}.feed_forward.gate.weight": ("layers.{n}.mlp.gate_proj.weight",),
    "blocks.{n}.feed_forward.expand.weight": ("layers.{n}.mlp.up_proj.weight",),
    "blocks.{n}.feed_forward.contract.weight": ("layers.{n}.mlp.down_proj.weight",),
    "final_norm.scale": ("norm.weight",),
    "out_head.weight": ("lm_head.weight",),
}

#: Our parameters -> their names in config.json.
SHAPE_KEYS = {
    "vocab_size": "vocab_size",
    "context_length": "max_position_embeddings",
    "emb_dim": "hidden_size",
    "n_heads": "num_attention_heads",
    "n_layers": "num_hidden_layers",
    "ff_dim": "intermediate_size",
}

#: Other keys of config.json that change the result, and the supported values; the first is their default.
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "mlp_bias": (False,),
    "use_sliding_window": (False, None),
    "partial_rotary_factor": (1.0, None),
    "quantization_config": (None,),
}

#: The keys of rotary positions of each supported type; of the first, the plain one, only the base.
_ROPE_KEYS = {
    "default": {},
    "llama3": {
        "factor": "rope_factor",
        "low_freq_factor": "rope_low_freq_factor",
        "high_freq_factor": "rope_high_freq_factor",
        "original_max_position_embeddings": "rope_original_context",
    },
}
_EPS, _ROPE_BASE, _QWEN3_HEAD = 1e-6, 10_000.0, 128  # what a config.json without the key means


def _read_config(saved: dict[str, Any], where: str) -> ModelConfig:
    kind = saved["model_type"]
    needed = [*SHAPE_KEYS.values(), *([] if kind == "llama" else ["num_key_value_heads"])]
    check_keys(saved, SUPPORTED, needed, where)
    _check_windows(saved, where)
    sizes = {ours: saved[theirs] for ours, theirs in SHAPE_KEYS.items()}
    if isinstance(sizes["context_length"], int):
        sizes["context_length"] = min(sizes["context_length"], MAX_CONTEXT)
    attention_bias = saved.get("attention_bias", False) if kind in ("llama", "qwen3") else False
    return design_config(
        "qwen3" if kind == "qwen3" else "llama",
        where,
        **sizes,
        **_rope_options(saved, where),
        n_kv_heads=saved.get("num_key_value_heads"),
        head_dim=saved.get("head_dim", _QWEN3_HEAD if kind == "qwen3" else None),
        norm_eps=saved.get("rms_norm_eps", _EPS),
        qkv_bias=True if kind == "qwen2" else attention_bias,
        out_bias=attention_bias,
        tie_weights=saved.get("tie_word_embeddings", False),
    )


def _check_windows(saved: dict[str, Any], where: str) -> None:
    """MakegptError if a layer attends to fewer than all tokens."""
    window = saved.get("sliding_window", 4096) if saved["model_type"] == "mistral" else None
    if window is not None:
        raise MakegptError(f"{where}: sliding_window={str(window)[:40]} is not supported; it must be null")
    kinds = saved.get("layer_types") or ["full_attention"]
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        raise MakegptError(f"{where}: layer_types={str(kinds)[:60]} is not supported; all must be full_attention")


def _rope_options(saved: dict[str, Any], where: str) -> dict[str, Any]:
    """Our options of rotary positions: from `rope_parameters`, or from `rope_theta` and `rope_scaling` of older files."""
    rope = saved.get("rope_scaling") or saved.get("rope_parameters") or {}
    if not isinstance(rope, dict):
        raise MakegptError(f"{where}: the parameters of rotary positions must be a mapping, not {str(rope)[:40]}")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if not isinstance(kind, str) or kind not in _ROPE_KEYS:
        raise MakegptError(f"{where}: rope_type={str(kind)[:40]} is not supported; it must be {' or '.join(_ROPE_KEYS)}")
    check_keys(rope, {"partial_rotary_factor": SUPPORTED["partial_rotary_factor"]}, _ROPE_KEYS[kind], where)
    known = {"rope_type", "type", "rope_theta", "partial_rotary_factor", *_ROPE_KEYS[kind]}
    if unknown := [name for name, value in rope.items() if name not in known and value is not None]:
        raise MakegptError(f"{where}: {unknown[0]}={str(rope[unknown[0]])[:40]} is not supported with rope_type={kind}")
    options = {"rope_base": rope.get("rope_theta", saved.get("rope_theta", _ROPE_BASE))}
    scaling = {ours: rope[theirs] for theirs, ours in _ROPE_KEYS[kind].items()}
    return options if scaling.get("rope_factor", 1) == 1 else options | scaling


def _write_config(config: ModelConfig, endoftext: int | None) -> dict[str, Any]:
    design = "qwen3" if config.qk_norm else "llama"
    if design == "llama" and config.emb_dim % config.n_heads:
        raise UsageError(
            f"model.emb_dim={config.emb_dim} is no multiple of model.n_heads={config.n_heads}, as Llama's layout requires; "
            "the run cannot be exported"
        )
    sizes = asdict(config) | {"ff_dim": build_model(config, "meta").get_parameter("blocks.0.feed_forward.gate.weight").shape[0]}
    rope: dict[str, Any] = {"rope_type": "default"}
    if config.rope_factor != 1:
        rope = {"rope_type": "llama3"} | {theirs: sizes[ours] for theirs, ours in _ROPE_KEYS["llama3"].items()}
    own = {"use_sliding_window": False, "sliding_window": None} if design == "qwen3" else {"mlp_bias": False}
    return {
        "architectures": [f"{TITLES[design]}ForCausalLM"],
        "model_type": design,
        "hidden_act": "silu",
        **{theirs: sizes[ours] for ours, theirs in SHAPE_KEYS.items()},
        "num_key_value_heads": config.n_kv_heads or config.n_heads,
        "head_dim": config.head_size,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_base,
        "rope_scaling": None if rope["rope_type"] == "default" else rope,
        "rope_parameters": rope | {"rope_theta": config.rope_base},
        "attention_bias": config.qkv_bias or config.out_bias,
        **own,
        "attention_dropout": config.drop_rate,
        "tie_word_embeddings": config.tie_weights,
        **dict.fromkeys(("bos_token_id", "eos_token_id"), endoftext),
    }


def _stored(config: ModelConfig) -> ModelConfig:
    """Their one key is for the biases of queries, keys, values and output."""
    bias = config.qkv_bias or config.out_bias
    return replace(config, qkv_bias=bias, out_bias=bias)


LLAMA = Layout(
    title="Llama",
    tensor_names=TENSOR_NAMES,
    prefix="model.",
    transposed=False,
    buffers=re.compile(r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq"),
    read_config=_read_config,
    write_config=_write_config,
    stored=_stored,
)

QWEN3 = replace(LLAMA, title="Qwen3")
