"""GPT-2 in Hugging Face's layout: the names of its tensors and its config.json, mapped to ours.

Their linear weights are (in, out), ours (out, in).
"""

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lib.config.designs import design_config
from lib.config.model import GPT_2, ModelConfig
from lib.errors import MakegptError
from lib.huggingface.files import HF_CONFIG_FILE, LazyTensor, check_keys, own_run
from lib.huggingface.layout import Layout, is_tied, short_names
from lib.tokenizer.gpt2 import GPT2_VOCAB_SIZE

#: Our names -> theirs; {n} is the number of a block.
TENSOR_NAMES = {
    "tok_emb.weight": ("wte.weight",),
    "pos_emb.weight": ("wpe.weight",),
    "blocks.{n}.norm1.scale": ("h.{n}.ln_1.weight",),
    "blocks.{n}.norm1.shift": ("h.{n}.ln_1.bias",),
    "blocks.{n}.attention.W_qkv.weight": ("h.{n}.attn.c_attn.weight",),
    "blocks.{n}.attention.W_qkv.bias": ("h.{n}.attn.c_attn.bias",),
    "blocks.{n}.attention.out_proj.weight": ("h.{n}.attn.c_proj.weight",),
    "blocks.{n}.attention.out_proj.bias": ("h.{n}.attn.c_proj.bias",),
    "blocks.{n}.norm2.scale": ("h.{n}.ln_2.weight",),
    "blocks.{n}.norm2.shift": ("h.{n}.ln_2.bias",),
    "blocks.{n}.feed_forward.expand.weight": ("h.{n}.mlp.c_fc.weight",),
    "blocks.{n}.feed_forward.expand.bias": ("h.{n}.mlp.c_fc.bias",),
    "blocks.{n}.feed_forward.contract.weight": ("h.{n}.mlp.c_proj.weight",),
    "blocks.{n}.feed_forward.contract.bias": ("h.{n}.mlp.c_proj.bias",),
    "final_norm.scale": ("ln_f.weight",),
    "final_norm.shift": ("ln_f.bias",),
    "out_head.weight": ("lm_head.weight",),
}

#: Our parameters -> their names in config.json.
SHAPE_KEYS = {
    "vocab_size": "vocab_size",
    "context_length": "n_positions",
    "emb_dim": "n_embd",
    "n_heads": "n_head",
    "n_layers": "n_layer",
}

#: Other keys of config.json that change the result, and the supported values; the first is their default.
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}

#: The sizes that were released (Radford et al. 2019, table 2): blocks, width, heads.
RELEASED_SIZES = {
    "gpt2_small": (12, 768, 12),
    "gpt2_medium": (24, 1024, 16),
    "gpt2_large": (36, 1280, 20),
    "gpt2_xl": (48, 1600, 25),
}
_RELEASED_CONTEXT = 1024


def _read_config(saved: dict[str, Any], where: str) -> ModelConfig:
    check_keys(saved, SUPPORTED, SHAPE_KEYS.values(), where)
    return design_config(
        "gpt2",
        where,
        **{ours: saved[theirs] for ours, theirs in SHAPE_KEYS.items()},
        ff_dim=saved.get("n_inner"),
        norm_eps=saved.get("layer_norm_epsilon", GPT_2["norm_eps"]),
        qkv_bias=True,
        tie_weights=saved.get("tie_word_embeddings", True),
    )


def _write_config(config: ModelConfig, endoftext: int | None) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        **{name: allowed[0] for name, allowed in SUPPORTED.items()},
        **{theirs: asdict(config)[ours] for ours, theirs in SHAPE_KEYS.items()},
        "n_ctx": config.context_length,  # what llama.cpp's converter reads
        "n_inner": config.ff_dim,
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tie_weights,
        **dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), config.drop_rate),
        **dict.fromkeys(("bos_token_id", "eos_token_id"), endoftext),
    }


GPT2 = Layout(
    title="GPT-2",
    tensor_names=TENSOR_NAMES,
    prefix="transformer.",  # the files as first released have none
    transposed=True,
    buffers=re.compile(r"h\.\d+\.attn\.(masked_)?bias"),  # masks
    read_config=_read_config,
    write_config=_write_config,
    stored=lambda config: replace(config, qkv_bias=True, out_bias=True),
)


def released_config(lazy_tensors: dict[str, LazyTensor], path: Path) -> ModelConfig:
    """The config of the released size with the shapes of the tensors; MakegptError if there is none."""
    if "tok_emb.weight" in lazy_tensors:
        raise own_run(path.parent)
    tensors = short_names(GPT2, lazy_tensors, path)
    blocks = {match[1] for name in tensors if (match := re.match(r"h\.(\d+)\.", name))}
    tables = [tensors[name].shape for name in ("wte.weight", "wpe.weight") if name in tensors]
    for layers, width, heads in RELEASED_SIZES.values():
        rows = tables[0][0] if tables else 0
        if len(blocks) == layers and tables == [(rows, width), (_RELEASED_CONTEXT, width)] and is_padded_gpt2(rows):
            sizes = {"emb_dim": width, "n_layers": layers, "n_heads": heads, "context_length": _RELEASED_CONTEXT}
            tied = is_tied(GPT2, tensors)
            return design_config("gpt2", str(path), qkv_bias=True, vocab_size=rows, tie_weights=tied, **sizes)
    known = ", ".join(f"{name} {layers} × {width}" for name, (layers, width, _) in RELEASED_SIZES.items())
    shapes = f"{len(blocks)} blocks, embeddings of {' and '.join(map(str, tables))}" if tables else "no embeddings"
    raise MakegptError(
        f"{path} has the shapes of no released size ({shapes}); a single file can be {known}, with {GPT2_VOCAB_SIZE} tokens "
        f"and {_RELEASED_CONTEXT} positions; for another size give a folder with the file and its {HF_CONFIG_FILE}"
    )


def is_padded_gpt2(rows: int) -> bool:
    """Whether embeddings with so many rows are those of GPT-2's tokens, maybe padded: nanoGPT's have 50,304."""
    return GPT2_VOCAB_SIZE <= rows < GPT2_VOCAB_SIZE + 1024
