"""GPT-2 in Hugging Face's layout: the names and shapes of its tensors and its config.json, mapped to ours.

"Theirs" is Hugging Face's. Their linear weights are (in, out), ours (out, in). Only safetensors files are read: other
formats can run code when opened.
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
from lib.config.model import GPT_2, ModelConfig
from lib.config.schema import build_section
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
    """The names of a tensor in both layouts, its shape in theirs, and whether it is transposed."""

    ours: str
    theirs: str
    shape: tuple[int, ...]
    transposed: bool


def tensor_mappings(config: ModelConfig) -> list[TensorMapping]:
    """Every tensor of a GPT-2 of this size; theirs always has biases of queries, keys and values."""
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
            f"{source} does not exist; it must be a folder with {HF_CONFIG_FILE} and {HF_WEIGHTS_FILE}, or a {HF_WEIGHTS_FILE}"
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
    raise MakegptError(f"{source} has no {HF_WEIGHTS_FILE}; it must be a model in Hugging Face's layout")


def _pickled(path: Path) -> UsageError:
    return UsageError(
        f"{path} is a pickle, which can run code when it is opened, and is not read; convert it to {HF_WEIGHTS_FILE} with "
        "transformers: GPT2LMHeadModel.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
    )


@contextmanager
def open_tensors(files: list[Path]) -> Iterator[dict[str, LazyTensor]]:
    """The tensors in `files` by their names without prefix, not read yet; masks are left out."""
    with ExitStack() as stack:
        tensors: dict[str, LazyTensor] = {}
        for path in files:
            file = stack.enter_context(open_safetensors(path))
            for name in file.keys():  # noqa: SIM118 - not a dict
                short = name.removeprefix(_PREFIX)
                if short in tensors:
                    raise MakegptError(f"{path}: duplicate tensor {short}: {tensors[short].name} and {name}")
                if not _MASKS.fullmatch(short):
                    tensors[short] = LazyTensor(file, name)
        yield tensors


def from_hf_config(path: Path) -> ModelConfig:
    """The model that their config.json at `path` describes; MakegptError names an unsupported value."""
    saved = read_json(path)
    if not isinstance(saved, dict):
        raise MakegptError(f"{path} describes no model; it must be Hugging Face's {HF_CONFIG_FILE} of a GPT-2")
    if "model_type" not in saved and "model" in saved:
        raise _own_run(path.parent)
    width = saved.get("n_embd")
    for name, allowed in [*SUPPORTED.items(), ("n_inner", (None, 4 * width if isinstance(width, int) else None))]:
        if (value := saved.get(name, allowed[0])) not in allowed:
            supported = " or ".join(str(choice) for choice in allowed if choice is not None)
            raise MakegptError(f"{path}: {name}={value} is not supported; it must be {supported}")
    if missing := [theirs for theirs in SHAPE_KEYS.values() if saved.get(theirs) is None]:
        raise MakegptError(f"{path} lacks {', '.join(missing)}")
    sizes = {ours: saved[theirs] for ours, theirs in SHAPE_KEYS.items()}
    return _gpt2(str(path), tie_weights=saved.get("tie_word_embeddings", True), **sizes)


def _gpt2(where: str, **sizes: Any) -> ModelConfig:
    choices = {"kind": "gpt", "drop_rate": 0.0, "qkv_bias": True, "attention_impl": "fused", "layer_impl": "fused"}
    config: ModelConfig = build_section("model", GPT_2 | choices | sizes, where)
    return config


def _own_run(folder: Path) -> UsageError:
    return UsageError(f"{folder} is a makegpt run folder already; use it as it is")


def released_config(tensors: dict[str, LazyTensor], path: Path) -> ModelConfig:
    """The config of the released size with the shapes of the `tensors`; MakegptError if there is none."""
    if "tok_emb.weight" in tensors:
        raise _own_run(path.parent)
    blocks = {match[1] for name in tensors if (match := re.match(r"h\.(\d+)\.", name))}
    tables = [tensors[name].shape for name in ("wte.weight", "wpe.weight") if name in tensors]
    for layers, width, heads in RELEASED_SIZES.values():
        rows = tables[0][0] if tables else 0
        if len(blocks) == layers and tables == [(rows, width), (_RELEASED_CONTEXT, width)] and is_padded_gpt2(rows):
            sizes = {"emb_dim": width, "n_layers": layers, "n_heads": heads, "context_length": _RELEASED_CONTEXT}
            return _gpt2(str(path), vocab_size=rows, tie_weights=_is_tied(tensors), **sizes)
    known = ", ".join(f"{name} {layers} × {width}" for name, (layers, width, _) in RELEASED_SIZES.items())
    shapes = f"{len(blocks)} blocks, embeddings of {' and '.join(map(str, tables))}" if tables else "no embeddings"
    raise MakegptError(
        f"{path} has the shapes of no released size ({shapes}); a single file can be {known}, with {GPT2_VOCAB_SIZE} tokens "
        f"and {_RELEASED_CONTEXT} positions; for another size give a folder with the file and its {HF_CONFIG_FILE}"
    )


def is_padded_gpt2(rows: int) -> bool:
    """Whether embeddings with so many rows are those of GPT-2's tokens, maybe padded: nanoGPT's have 50,304."""
    return GPT2_VOCAB_SIZE <= rows < GPT2_VOCAB_SIZE + 1024


def drop_padding_rows(tensors: dict[str, Tensor], vocab_size: int) -> dict[str, Tensor]:
    """Our `tensors` with only the first `vocab_size` rows of the embeddings and the head."""
    tables = ("tok_emb.weight", "out_head.weight")
    return {name: tensor[:vocab_size].clone() if name in tables else tensor for name, tensor in tensors.items()}


def _is_tied(tensors: dict[str, LazyTensor]) -> bool:
    """Whether the head shares the token embeddings: it is missing, or has the same numbers."""
    head, table = tensors.get(_HEAD), tensors.get(_TABLE)
    return head is None or (table is not None and head.shape == table.shape and torch.equal(head.read(), table.read()))


def read_weights(lazy_tensors: dict[str, LazyTensor], config: ModelConfig, source: Path) -> dict[str, Tensor]:
    """Our tensors of a model of `config`, float32; MakegptError names a missing, unexpected or wrong tensor."""
    if config.n_layers > len(lazy_tensors):
        raise MakegptError(
            f"{source} is not the expected GPT-2: {len(lazy_tensors)} tensors are too few for {config.n_layers} blocks"
        )
    if unsupported := [f"{name} ({tensor.dtype})" for name, tensor in lazy_tensors.items() if tensor.dtype not in _FLOATS]:
        raise MakegptError(f"{source}: {unsupported[0]} has an unsupported type; it must be one of {', '.join(_FLOATS)}")
    mappings = tensor_mappings(config)
    shapes = {mapping.theirs: mapping.shape for mapping in mappings}
    if config.tie_weights and _HEAD in lazy_tensors and lazy_tensors[_HEAD].shape == shapes[_TABLE]:
        if not _is_tied(lazy_tensors):
            raise MakegptError(
                f"{source}: {_HEAD} differs from {_TABLE}, but {HF_CONFIG_FILE} says tie_word_embeddings=true; set it to false"
            )
        lazy_tensors = {name: tensor for name, tensor in lazy_tensors.items() if name != _HEAD}
    check_shapes(shapes, {name: tensor.shape for name, tensor in lazy_tensors.items()}, f"{source} is not the expected GPT-2")
    tensors = {}
    for mapping in mappings:
        tensor = lazy_tensors[mapping.theirs].read()
        if not torch.isfinite(tensor).all():
            raise MakegptError(
                f"{source}: {mapping.theirs} has numbers that are not finite; it is damaged, or of a training that diverged"
            )
        tensors[mapping.ours] = tensor.T.contiguous() if mapping.transposed else tensor
    return tensors


def check_expressible(config: ModelConfig, folder: Path) -> None:
    """UsageError names the first option of the run in `folder` that their GPT-2 does not support."""
    theirs = {name: value for name, value in ({"kind": "gpt"} | GPT_2).items() if name != "tie_weights"}
    if config.n_kv_heads == config.n_heads:
        theirs["n_kv_heads"] = config.n_heads
    for name, value in theirs.items():
        if (ours := getattr(config, name)) != value:
            raise UsageError(
                f"{folder} has model.{name}={ours}, which Hugging Face's GPT-2 does not support; "
                f"only {'null' if value is None else value} can be exported"
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
    """Write our `weights` as their model.safetensors; missing biases become zeros."""
    tensors = {}
    for mapping in tensor_mappings(config):
        tensor = weights[mapping.ours].detach() if mapping.ours in weights else torch.zeros(mapping.shape)
        name = mapping.theirs if mapping.theirs == _HEAD else _PREFIX + mapping.theirs
        tensors[name] = tensor.T.contiguous() if mapping.transposed else tensor
    write_safetensors(path, tensors, {"format": "pt"})
