"""The architecture `gpt2` of GGUF files: GPT-2's learned positions, LayerNorm and biases everywhere."""

from lib.config.designs import DESIGNS
from lib.gguf.architecture import COMMON_NAMES, Architecture

GPT2 = Architecture(
    name="gpt2",
    fixed={
        name: value for name, value in DESIGNS["gpt2"].items() if name != "n_kv_heads"
    },  # llama.cpp's code has them here too
    names=COMMON_NAMES
    | {
        "pos_emb.weight": ("position_embd.weight",),
        "blocks.{n}.norm1.shift": ("blk.{n}.attn_norm.bias",),
        "blocks.{n}.attention.W_qkv.weight": ("blk.{n}.attn_qkv.weight",),
        "blocks.{n}.attention.W_qkv.bias": ("blk.{n}.attn_qkv.bias",),
        "blocks.{n}.norm2.shift": ("blk.{n}.ffn_norm.bias",),
        "blocks.{n}.feed_forward.expand.bias": ("blk.{n}.ffn_up.bias",),
        "blocks.{n}.feed_forward.contract.bias": ("blk.{n}.ffn_down.bias",),
        "final_norm.shift": ("output_norm.bias",),
    },
    norm_eps="attention.layer_norm_epsilon",
    rotary=False,
    written={"qkv_bias": True, "out_bias": True},
)
