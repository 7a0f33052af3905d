"""The designs of models that others release, as options of `model.kind=gpt`: GPT-2's, Llama's and Qwen3's.

A layout of files, Hugging Face's or llama.cpp's, belongs to a design: what a design fixes, its files cannot say otherwise.
"""

from typing import Any, Mapping

from lib.config.model import GPT_2, ModelConfig
from lib.config.schema import build_section
from lib.errors import UsageError

_LLAMA: dict[str, Any] = {
    "kind": "gpt",
    "positions": "rotary",
    "norm": "rms",
    "norm_position": "pre",
    "feed_forward": "swiglu",
    "qk_norm": False,
    "attention_pattern": "sliding",
    "summary_tokens": 1,
    "window": None,
    "ngram_order": 1,
    "ngram_rows": None,
}

_GPT_2_FREE = ("tie_weights", "ff_dim", "out_bias", "norm_eps")

#: What each design fixes. The other options are free in it: Llama's heads, widths, biases, base and scaling of the angles.
DESIGNS: dict[str, dict[str, Any]] = {
    "gpt2": {"kind": "gpt"} | {name: value for name, value in GPT_2.items() if name not in _GPT_2_FREE},
    "llama": _LLAMA,
    "qwen3": _LLAMA | {"qk_norm": True},
}

#: How they are written in messages.
TITLES = {"gpt2": "GPT-2", "llama": "Llama", "qwen3": "Qwen3"}

#: The longest context of an imported model: a mask of T × T bytes and one KV cache are made for it.
MAX_CONTEXT = 8192


def design_config(design: str, where: str, **values: Any) -> ModelConfig:
    """The model of that `design` with the `values` of its free options; UsageError names `where` they are from."""
    choices = {"drop_rate": 0.0, "attention_impl": "fused", "layer_impl": "fused"}
    config: ModelConfig = build_section("model", GPT_2 | choices | DESIGNS[design] | values, where)
    return config


def find_design(config: ModelConfig, where: str, designs: Mapping[str, Mapping[str, Any]] = DESIGNS) -> str:
    """The one of `designs` that `config` has; UsageError names an option at `where` that none has, by the nearest design."""
    mismatches = {design: _mismatches(config, fixed) for design, fixed in designs.items()}
    design = min(mismatches, key=lambda design: len(mismatches[design]))
    for name, value in mismatches[design].items():
        raise UsageError(
            f"{where} has model.{name}={getattr(config, name)}, which the layout of {TITLES[design]} does not have; "
            f"only {'null' if value is None else value} can be exported"
        )
    return design


def _mismatches(config: ModelConfig, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `config` that differ from those `fixed` by a design, and what they must be."""
    defaults = {"n_kv_heads": config.n_heads, "head_dim": config.emb_dim / config.n_heads}  # null, written as a number
    return {
        name: value
        for name, value in fixed.items()
        if (ours := getattr(config, name)) != value and not (value is None and ours == defaults.get(name))
    }
