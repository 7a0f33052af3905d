"""An architecture of GGUF files: what it fixes of a model, and its names for our tensors.

`lib.gguf.gpt2` and `lib.gguf.llama` describe three. Their tables are read in both directions, by import and by export.
"""

from dataclasses import dataclass, field
from typing import Any, Mapping

from lib.run.weights import names_in_layout

#: Our names -> theirs, in every architecture; {n} is the number of a block.
COMMON_NAMES = {
    "tok_emb.weight": ("token_embd.weight",),
    "blocks.{n}.norm1.scale": ("blk.{n}.attn_norm.weight",),
    "blocks.{n}.attention.out_proj.weight": ("blk.{n}.attn_output.weight",),
    "blocks.{n}.attention.out_proj.bias": ("blk.{n}.attn_output.bias",),
    "blocks.{n}.norm2.scale": ("blk.{n}.ffn_norm.weight",),
    "blocks.{n}.feed_forward.expand.weight": ("blk.{n}.ffn_up.weight",),
    "blocks.{n}.feed_forward.contract.weight": ("blk.{n}.ffn_down.weight",),
    "final_norm.scale": ("output_norm.weight",),
    "out_head.weight": ("output.weight",),
}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """`fixed`: the options that a model needs to be one of this architecture, as in `lib.config.designs`.

    `names`: ours -> theirs, several where ours is one: queries, keys and values. `written`: the options of the tensors in a
    file, if they differ from those of the model; a bias that ours lacks is written as zeros.
    """

    name: str
    fixed: Mapping[str, Any]
    names: Mapping[str, tuple[str, ...]]
    norm_eps: str  # the key, after the architecture's name and a dot
    rotary: bool
    interleaved: bool = False  # rotary positions rotate pairs (2i, 2i+1), not (i, i + D/2)
    written: Mapping[str, Any] = field(default_factory=dict)

    def theirs(self, ours: str) -> tuple[str, ...]:
        """Their names of our parameter `ours`."""
        return names_in_layout(self.names, ours)
