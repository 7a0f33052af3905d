"""An architecture of GGUF files: which of our options it has, and its names for our tensors.

`lib.gguf.gpt2` and `lib.gguf.llama` describe three. Their tables are read in both directions, by import and by export.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Mapping

from lib.config.model import GPT_2, ModelConfig
from lib.errors import UsageError

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
    """`options`: the values that make a `model.kind=gpt` one of this architecture, where they are not GPT-2's.

    `choices`: our options that a file of it can have any value of. `names`: of our tensors, by which it has several where ours
    is one: queries, keys and values. `written`: options of the tensors in a file; a bias that ours lacks is written as zeros.
    """

    name: str
    options: Mapping[str, Any]
    choices: frozenset[str]
    names: Mapping[str, tuple[str, ...]]
    norm_eps: str  # the key, after the architecture's name and a dot
    rotary: bool
    interleaved: bool = False  # rotary positions rotate pairs (2i, 2i+1), not (i, i + D/2)
    written: Mapping[str, Any] = field(default_factory=dict)

    def check(self, config: ModelConfig) -> None:
        """UsageError names the first option of `config` that no file of this architecture has."""
        gpt2 = {name: value for name, value in GPT_2.items() if name not in self.choices}
        required: dict[str, Any] = {"kind": "gpt", **gpt2, **self.options}
        if config.head_size * config.n_heads == config.emb_dim:
            required.pop("head_dim", None)
        for name, value in required.items():
            if (ours := getattr(config, name)) != value:
                raise UsageError(
                    f"model.{name}={_text(ours)} cannot be exported to GGUF: in llama.cpp's architecture {self.name} it must "
                    f"be {_text(value)}"
                )

    def theirs(self, ours: str) -> list[str]:
        """Their names of our parameter `ours`."""
        number = re.search(r"\d+", ours)
        return [name.format(n=number and number[0]) for name in self.names[re.sub(r"\.\d+\.", ".{n}.", ours)]]


def _text(value: Any) -> str:
    """A value as it is written in params.yaml."""
    return "null" if value is None else str(value).lower()
