"""GPT-2 as Hugging Face lays it out: the names and shapes of its tensors and its config.json, next to ours.

Linear weights are (in, out) there and (out, in) here. Only safetensors files are read: other formats can run code when opened.
"""

import re
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Iterator

import torch
from torch import Tensor

from lib.artifact.io import read_json
from lib.artifact.tensors import open_safetensors, write_safetensors
from lib.config.schema import GPT_2, ModelConfig, build_section
from lib.errors import MakegptError, UsageError
from lib.model.registry import build_model
from lib.run.weights import check_shapes
from lib.tokenizer.gpt2 import GPT2_VOCAB_SIZE

HF_WEIGHTS_FILE = "model.safetensors"
HF_CONFIG_FILE = "config.json"
_INDEX = HF_WEIGHTS_FILE + ".index.json"

#: Our names -> theirs; {n} is the number of a block.
TENSOR_NAMES = {
    "tok_emb.weight": "wte.weight",
    "pos_emb.weight": "wpe.weight",
    "blocks.{n}.norm1.scale": "h.{n}.ln_1.weight",
    "blocks.{n}.norm1.shift": "h.{n}.ln_1.bias",
    "blocks.{n}.attention.W_qkv.weight": "h.{n}.attn.c_attn.weight",
    "blocks.{n}.attention.W_qkv.bias": "h.{n}.attn.c_attn.bias",
    "blocks.{n}.attention.out_proj.weight": "h.{n}.attn.c_proj.weight",
    "blocks.{n}.attention.out_proj.bias": "h.{n}.attn.c_proj.bias",
    "blocks.{n}.norm2.scale": "h.{n}.ln_2.weight",
    "blocks.{n}.norm2.shift": "h.{n}.ln_2.bias",
    "blocks.{n}.feed_forward.expand.weight": "h.{n}.mlp.c_fc.weight",
    "blocks.{n}.feed_forward.expand.bias": "h.{n}.mlp.c_fc.bias",
    "blocks.{n}.feed_forward.contract.weight": "h.{n}.mlp.c_proj.weight",
    "blocks.{n}.feed_forward.contract.bias": "h.{n}.mlp.c_proj.bias",
    "final_norm.scale": "ln_f.weight",
    "final_norm.shift": "ln_f.bias",
    "out_head.weight": "lm_head.weight",
}

#: The parameters of ours that config.json tells under another name.
SHAPE_KEYS = {
    "vocab_size": "vocab_size",
    "context_length": "n_positions",
    "emb_dim": "n_embd",
    "n_heads": "n_head",
    "n_layers": "n_layer",
}

#: What else config.json may say that changes the result, and what GPT-2's design here can follow; the first is their default.
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
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

_HEAD, _TABLE = TENSOR_NAMES["out_head.weight"], TENSOR_NAMES["tok_emb.weight"]
_PREFIX = "transformer."  # before all names but the head's; the files as first released have none
_MASKS = re.compile(r"h\.\d+\.attn\.(masked_)?bias")  # buffers that older files hold
_FLOATS = ("F64", "F32", "F16", "BF16")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class TensorMapping:
    """Where a tensor stands on both sides: its names, its shape on theirs, and whether it is turned over on the way."""

    ours: str
    theirs: str
    shape: tuple[int, ...]
    transposed: bool


def tensor_mappings(config: ModelConfig) -> list[TensorMapping]:
    """Every tensor of a GPT-2 of this size; the biases of queries, keys and values are always among theirs."""
    mappings = []
    for ours, weight in build_model(replace(config, qkv_bias=True), "meta").named_parameters():
        number = re.search(r"\d+", ours)
        template = re.sub(r"\.\d+\.", ".{n}.", ours)
        transposed = template.startswith("blocks.") and weight.dim() == 2
        shape = tuple(weight.T.shape if transposed else weight.shape)
        mappings.append(TensorMapping(ours, TENSOR_NAMES[template].format(n=number and number[0]), shape, transposed))
    return mappings


@dataclass(frozen=True)
class LazyTensor:
    """A tensor in an open file, not read yet."""

    file: Any
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.file.get_slice(self.name).get_shape())

    @property
    def dtype(self) -> str:
        return str(self.file.get_slice(self.name).get_dtype())

    def read(self) -> Tensor:
        """The tensor as float32."""
        tensor: Tensor = self.file.get_tensor(self.name)
        return tensor.float()


def weight_files(source: Path) -> list[Path]:
    """The safetensors files of `source`, a folder or one of them; MakegptError if there are none."""
    if not source.exists():
        raise MakegptError(
            f"{source} does not exist; a folder with {HF_CONFIG_FILE} and {HF_WEIGHTS_FILE}, "
            f"or a {HF_WEIGHTS_FILE}, is expected"
        )
    if source.is_file():
        if source.suffix in _PICKLED:
            raise _pickled(source)
        return [source]
    if (source / HF_WEIGHTS_FILE).is_file():
        return [source / HF_WEIGHTS_FILE]
    if (source / _INDEX).is_file():
        index = read_json(source / _INDEX)
        try:
            return [source / Path(name).name for name in sorted(set(index["weight_map"].values()))]
        except (KeyError, TypeError, AttributeError):
            raise MakegptError(f"{source / _INDEX} is damaged: it lists no files") from None
    if pickled := [path for path in sorted(source.iterdir()) if path.suffix in _PICKLED]:
        raise _pickled(pickled[0])
    raise MakegptError(f"{source} holds no {HF_WEIGHTS_FILE}; a model in Hugging Face's layout is expected there")


def _pickled(path: Path) -> UsageError:
    return UsageError(
        f"{path} is a pickle, which can run code when it is opened, and is not read; make a {HF_WEIGHTS_FILE} of it with "
        "transformers: GPT2LMHeadModel.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
    )


@contextmanager
def open_tensors(files: list[Path]) -> Iterator[dict[str, LazyTensor]]:
    """The tensors in `files` by their names without prefix, none read yet; masks are left out."""
    with ExitStack() as stack:
        held: dict[str, LazyTensor] = {}
        for path in files:
            file = stack.enter_context(open_safetensors(path))
            for name in file.keys():  # noqa: SIM118 - not a dict
                short = name.removeprefix(_PREFIX)
                if short in held:
                    raise MakegptError(f"{path}: the tensor {short} is there twice, as {held[short].name} and as {name}")
                if not _MASKS.fullmatch(short):
                    held[short] = LazyTensor(file, name)
        yield held


def from_hf_config(path: Path) -> ModelConfig:
    """The model that their config.json at `path` describes; MakegptError names what GPT-2's design here cannot follow."""
    saved = read_json(path)
    if not isinstance(saved, dict):
        raise MakegptError(f"{path} describes no model; Hugging Face's {HF_CONFIG_FILE} of a GPT-2 is expected")
    if "model_type" not in saved and "model" in saved:
        raise _own(path.parent)
    width = saved.get("n_embd")
    for name, allowed in [*SUPPORTED.items(), ("n_inner", (None, 4 * width if isinstance(width, int) else None))]:
        if (value := saved.get(name, allowed[0])) not in allowed:
            could = " or ".join(str(tensor) for tensor in allowed if tensor is not None)
            raise MakegptError(f"{path}: {name}={value} is not GPT-2's as it is written here; {could} would be")
    if missing := [theirs for theirs in SHAPE_KEYS.values() if saved.get(theirs) is None]:
        raise MakegptError(f"{path} does not say {', '.join(missing)}")
    sizes = {ours: saved[theirs] for ours, theirs in SHAPE_KEYS.items()}
    return _gpt2(str(path), tie_weights=saved.get("tie_word_embeddings", True), **sizes)


def _gpt2(where: str, **sizes: Any) -> ModelConfig:
    choices = {"kind": "gpt", "drop_rate": 0.0, "qkv_bias": True, "attention_impl": "fused", "layer_impl": "fused"}
    config: ModelConfig = build_section("model", GPT_2 | choices | sizes, where)
    return config


def _own(folder: Path) -> UsageError:
    return UsageError(f"{folder} is a run folder of this program already; use it as it is")


def is_released_size(held: dict[str, LazyTensor], path: Path) -> ModelConfig:
    """The released size whose shapes the tensors have; MakegptError if they have those of none."""
    if "tok_emb.weight" in held:
        raise _own(path.parent)
    blocks = {match[1] for name in held if (match := re.match(r"h\.(\d+)\.", name))}
    tables = [held[name].shape for name in ("wte.weight", "wpe.weight") if name in held]
    for layers, width, heads in RELEASED_SIZES.values():
        rows = tables[0][0] if tables else 0
        if len(blocks) == layers and tables == [(rows, width), (_RELEASED_CONTEXT, width)] and only_padded(rows):
            sizes = {"emb_dim": width, "n_layers": layers, "n_heads": heads, "context_length": _RELEASED_CONTEXT}
            return _gpt2(str(path), vocab_size=rows, tie_weights=_tied(held), **sizes)
    known = ", ".join(f"{name} {layers} × {width}" for name, (layers, width, _) in RELEASED_SIZES.items())
    seen = f"{len(blocks)} blocks, tables of {' and '.join(map(str, tables))}" if tables else "no tables of embeddings"
    raise MakegptError(
        f"{path} has the shapes of no released size ({seen}); a bare file can be {known}, with {GPT2_VOCAB_SIZE} tokens and "
        f"{_RELEASED_CONTEXT} positions; of another size name a folder that holds it and its {HF_CONFIG_FILE}"
    )


def only_padded(rows: int) -> bool:
    """Whether a table of so many rows is GPT-2's own, or that with rows behind it that no token has: nanoGPT's has 50,304."""
    return GPT2_VOCAB_SIZE <= rows < GPT2_VOCAB_SIZE + 1024


def without_spare_rows(tensors: dict[str, Tensor], vocab_size: int) -> dict[str, Tensor]:
    """Our `tensors` with the rows of the first `vocab_size` tokens in the tables of embeddings and of the head."""
    tables = ("tok_emb.weight", "out_head.weight")
    return {name: tensor[:vocab_size].clone() if name in tables else tensor for name, tensor in tensors.items()}


def _tied(held: dict[str, LazyTensor]) -> bool:
    """Whether the head is the table of the tokens: it is missing, or has the same numbers."""
    head, table = held.get(_HEAD), held.get(_TABLE)
    return head is None or (table is not None and head.shape == table.shape and torch.equal(head.read(), table.read()))


def read_weights(held: dict[str, LazyTensor], config: ModelConfig, source: Path) -> dict[str, Tensor]:
    """Our tensors of a model of `config`, float32; MakegptError names what is missing, spare or of another shape or type."""
    if config.n_layers > len(held):
        raise MakegptError(
            f"{source} does not hold the GPT-2 that is expected: {len(held)} tensors are no {config.n_layers} blocks"
        )
    if odd := [f"{name} ({tensor.dtype})" for name, tensor in held.items() if tensor.dtype not in _FLOATS]:
        raise MakegptError(f"{source}: {odd[0]} is not of a type that can be read; {', '.join(_FLOATS)} could")
    shapes = {place.theirs: place.shape for place in tensor_mappings(config)}
    if config.tie_weights and _HEAD in held and held[_HEAD].shape == shapes[_TABLE]:
        if not _tied(held):
            raise MakegptError(
                f"{source}: {_HEAD} is not {_TABLE}, though {HF_CONFIG_FILE} says tie_word_embeddings=true; "
                "false would be right"
            )
        held = {name: tensor for name, tensor in held.items() if name != _HEAD}
    check_shapes(
        shapes, {name: tensor.shape for name, tensor in held.items()}, f"{source} does not hold the GPT-2 that is expected"
    )
    tensors = {}
    for place in tensor_mappings(config):
        tensor = held[place.theirs].read()
        if not torch.isfinite(tensor).all():
            raise MakegptError(
                f"{source}: {place.theirs} holds numbers that are not finite; it is damaged, or of a training that diverged"
            )
        tensors[place.ours] = tensor.T.contiguous() if place.transposed else tensor
    return tensors


def check_expressible(config: ModelConfig, folder: Path) -> None:
    """UsageError names the first choice of the run in `folder` that their GPT-2 has not."""
    theirs = {name: value for name, value in ({"kind": "gpt"} | GPT_2).items() if name != "tie_weights"}
    if config.n_kv_heads == config.n_heads:
        theirs["n_kv_heads"] = config.n_heads
    for name, value in theirs.items():
        if (ours := getattr(config, name)) != value:
            raise UsageError(
                f"{folder} has model.{name}={ours}, which Hugging Face's GPT-2 has not; "
                f"it can be exported with {'null' if value is None else value} alone"
            )


def to_hf_config(config: ModelConfig, endoftext: int | None) -> dict[str, Any]:
    """Their config.json of a model of `config` whose texts end with the token `endoftext`."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        **{name: allowed[0] for name, allowed in SUPPORTED.items()},
        **{theirs: asdict(config)[ours] for ours, theirs in SHAPE_KEYS.items()},
        "n_inner": None,
        "tie_word_embeddings": config.tie_weights,
        **dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), config.drop_rate),
        **dict.fromkeys(("bos_token_id", "eos_token_id"), endoftext),
    }


def write_weights(path: Path, weights: dict[str, Tensor], config: ModelConfig) -> None:
    """Write our `weights` as their model.safetensors; biases that ours have not are zeros there."""
    tensors = {}
    for place in tensor_mappings(config):
        tensor = weights[place.ours].detach() if place.ours in weights else torch.zeros(place.shape)
        name = place.theirs if place.theirs == _HEAD else _PREFIX + place.theirs
        tensors[name] = tensor.T.contiguous() if place.transposed else tensor
    write_safetensors(path, tensors, {"format": "pt"})
