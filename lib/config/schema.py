"""What every parameter is: its name, its type, its range and its unit. Values live in `params.yaml`.

One frozen dataclass a section, under the stage's own name. Code receives its section, never the whole.
Model parameters carry the names of the field's textbook (Raschka, Build a Large Language Model, 2024).
"""

import types
import typing
from dataclasses import asdict, dataclass, field, fields
from decimal import Decimal
from typing import Any

from lib.errors import UsageError, nearest


def parameter(
    help: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    one_of: tuple[str, ...] = (),
) -> Any:
    """A field that must be given, with its help text and its range beside it."""
    return field(metadata={"help": help, "at_least": at_least, "above": above, "at_most": at_most, "one_of": one_of})


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    tokenizer: str = parameter("what a token is", one_of=("gpt2", "char", "bytes", "word"))
    errors: str = parameter("what to do about invalid UTF-8", one_of=("strict", "replace"))
    shard_tokens: int = parameter("tokens a shard file, at most", at_least=1, at_most=2**31)


@dataclass(frozen=True, kw_only=True)
class BuildDatasetConfig:
    stride: int | None = parameter("tokens from one window's start to the next (null: the context length)", at_least=1)
    val_fraction: float = parameter("share of the tokens, at the end, kept for validation", at_least=1e-9, at_most=0.999)


#: GPT-2's choice where kind gpt has one.
GPT_2: dict[str, Any] = {
    "tie_weights": False,
    "positions": "learned",
    "norm": "layer",
    "feed_forward": "gelu",
    "n_kv_heads": None,
    "qk_norm": False,
    "window": None,
}

#: The kinds of models, lowest rung first, and what each has no choice in: those below gpt are made as GPT-2 is.
UNSUPPORTED_OPTIONS: dict[str, dict[str, Any]] = {
    "bigram": GPT_2 | {"n_layers": 1, "n_heads": 1, "drop_rate": 0.0, "qkv_bias": False},
    "single_head": GPT_2 | {"n_layers": 1, "n_heads": 1},
    "multi_head": GPT_2 | {"n_layers": 1},
    "single_block": GPT_2 | {"n_layers": 1},
    "gpt": {},
}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    kind: str = parameter("the model's design", one_of=tuple(UNSUPPORTED_OPTIONS))
    vocab_size: int | None = parameter("distinct tokens, V (null: the tokenizer's)", at_least=1, at_most=2**32)
    context_length: int = parameter("tokens the model sees at once, T", at_least=1, at_most=2**20)
    emb_dim: int = parameter("width of the embeddings and of every block, C (bigram: none)", at_least=1, at_most=2**28)
    n_heads: int = parameter("attention heads a block, H", at_least=1)
    n_layers: int = parameter("transformer blocks", at_least=1, at_most=4096)
    drop_rate: float = parameter("probability of dropping an activation in training", at_least=0.0, at_most=0.999)
    qkv_bias: bool = parameter("biases in the query, key and value projections")
    tie_weights: bool = parameter("one matrix for the token embedding and the output head")
    positions: str = parameter("how a token is told where it stands", one_of=("learned", "sinusoidal", "rotary"))
    norm: str = parameter("LayerNorm, or RMSNorm", one_of=("layer", "rms"))
    feed_forward: str = parameter("GELU between two matrices, or SwiGLU between three", one_of=("gelu", "swiglu"))
    n_kv_heads: int | None = parameter("heads of keys and values, each shared by several queries (null: n_heads)", at_least=1)
    qk_norm: bool = parameter("RMSNorm, with learned scales, on queries and keys before they meet")
    window: int | None = parameter("tokens a position looks back on, itself included (null: all)", at_least=1)
    attention_impl: str = parameter(
        "attention written out, or PyTorch's fused twin (single_head: always written out)", one_of=("naive", "fused")
    )
    layer_impl: str = parameter("norm and activation written out, or PyTorch's fused twins", one_of=("naive", "fused"))

    def __post_init__(self) -> None:
        if self.emb_dim % self.n_heads:
            near = self.emb_dim - self.emb_dim % self.n_heads
            raise UsageError(
                f"model.emb_dim={self.emb_dim} cannot be cut into model.n_heads={self.n_heads} equal heads; "
                f"{near or self.n_heads} or {near + self.n_heads} could"
            )
        if self.positions == "rotary" and self.emb_dim // self.n_heads % 2:
            raise UsageError(
                f"model.positions=rotary turns pairs of numbers, but model.emb_dim={self.emb_dim} over "
                f"model.n_heads={self.n_heads} makes heads of {self.emb_dim // self.n_heads}, an odd count"
            )
        if self.positions == "sinusoidal" and self.emb_dim % 2:
            raise UsageError(f"model.positions=sinusoidal wants pairs of numbers, but model.emb_dim={self.emb_dim} is odd")
        if self.n_kv_heads is not None and self.n_heads % self.n_kv_heads:
            could = " or ".join(str(n) for n in range(1, self.n_heads + 1) if self.n_heads % n == 0)
            raise UsageError(
                f"model.n_heads={self.n_heads} cannot share model.n_kv_heads={self.n_kv_heads} equally; it could {could}"
            )
        for name, value in UNSUPPORTED_OPTIONS[self.kind].items():
            if getattr(self, name) != value:
                raise UsageError(
                    f"model.{name}={getattr(self, name)} is not for model.kind={self.kind}, where it is "
                    f"{'null' if value is None else value}; model.kind=gpt has the choice"
                )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    optimizer: str = parameter("AdamW for all weights, or Muon for the matrices of the blocks", one_of=("adamw", "muon"))
    learning_rate: float = parameter("the rate at its peak", at_least=0.0)
    embedding_lr_mult: float = parameter("the embeddings' and the head's rate, as a multiple of it", at_least=0.0)
    min_lr_ratio: float = parameter("the rate at the end, as a share of the peak", at_least=0.0, at_most=1.0)
    warmup_steps: int = parameter("steps over which the rate rises to its peak", at_least=0)
    max_steps: int = parameter("optimizer steps", at_least=1)
    batch_size: int = parameter("windows an optimizer step", at_least=1)
    grad_accum_steps: int = parameter("equal pieces the batch is cut into, to save memory", at_least=1)
    weight_decay: float = parameter("AdamW's decay of matrices and embeddings", at_least=0.0)
    beta1: float = parameter("AdamW's memory of the gradient", at_least=0.0, at_most=0.9999)
    beta2: float = parameter("AdamW's memory of the squared gradient", at_least=0.0, at_most=0.99999)
    grad_clip: float = parameter("largest gradient norm, longer ones are shortened (0: never)", at_least=0.0)
    eval_interval: int = parameter("steps between validations (0: only at the end)", at_least=0)
    checkpoint_interval: int = parameter("steps between saved states, besides those at validations (0: none)", at_least=0)
    log_interval: int = parameter("steps between lines of metrics.jsonl", at_least=1)
    sample_interval: int | None = parameter(
        "steps between samples in samples.jsonl (null: at validations, 0: none)", at_least=0
    )
    sample_prompt: str | None = parameter("what each of them continues (null: a line break)")
    sample_tokens: int = parameter("tokens a sample", at_least=1)
    sample_temperature: float = parameter("how freely they are chosen, as in generate.temperature", at_least=0.0)
    precision: str = parameter(
        "type of the products' factors (auto: bfloat16 or float16 on CUDA, else float32)",
        one_of=("auto", "float32", "bfloat16", "float16"),
    )
    compile: str = parameter("torch.compile for all but the head (auto: on CUDA)", one_of=("auto", "on", "off"))
    seed: int = parameter("seed of the initial weights, the batches and dropout", at_least=0, at_most=2**63 - 1)

    def __post_init__(self) -> None:
        if self.batch_size % self.grad_accum_steps:
            raise UsageError(
                f"train.batch_size={self.batch_size} cannot be cut into train.grad_accum_steps={self.grad_accum_steps} "
                "equal pieces; choose a divisor"
            )


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    split: str = parameter("the part of the dataset to evaluate on", one_of=("val", "train"))
    ngram_order: int = parameter("counted n-grams to compare with, up to this order", at_least=1, at_most=5)
    overlap: float = parameter(
        "share of each window that the one before it has read, in a second evaluation (0: none is made)",
        at_least=0.0,
        at_most=0.99,
    )
    passages: int = parameter("texts of each kind that are searched for what was copied (0: none)", at_least=0, at_most=1000)


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    prompt: str | None = parameter("the text to continue (null: a line break)")
    max_new_tokens: int = parameter("tokens to make", at_least=1)
    temperature: float = parameter("below 1 safer, above 1 wilder; 0 takes the likeliest token", at_least=0.0, at_most=1e6)
    top_k: int | None = parameter("choose among the k likeliest tokens (null: among all)", at_least=1)
    top_p: float | None = parameter(
        "choose among the fewest likeliest tokens that have this probability together (null: all)", above=0.0, at_most=1.0
    )
    min_p: float | None = parameter(
        "choose among tokens with at least this share of the likeliest one's probability (null: all)", at_least=0.0, at_most=1.0
    )
    repetition_penalty: float = parameter(
        "logits of tokens that are in the text already are divided by it where positive, else multiplied (1: off)",
        at_least=0.01,
        at_most=100.0,
    )
    seed: int = parameter("seed of the choices", at_least=0, at_most=2**63 - 1)


@dataclass(frozen=True, kw_only=True)
class PlotConfig:
    prompt: str = parameter("the text whose attention is drawn")
    width: float = parameter("width of the figure in inches", at_least=1.0, at_most=100.0)
    height: float = parameter("height of the figure in inches", at_least=1.0, at_most=100.0)
    dpi: int = parameter("dots an inch, in a PNG", at_least=10, at_most=1000)


@dataclass(frozen=True, kw_only=True)
class Config:
    """All sections, resolved: what `params.yaml`, a named config and `--set` come to."""

    tokenize: TokenizeConfig
    build_dataset: BuildDatasetConfig
    model: ModelConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    generate: GenerateConfig
    plot: PlotConfig


#: Parameters that decide what is kept on the way to the weights, not the weights: another value trains nothing again.
IGNORED_FOR_IDENTITY = frozenset(
    f"train.{name}"
    for name in ("checkpoint_interval", "sample_interval", "sample_prompt", "sample_tokens", "sample_temperature")
)

#: Section name as written in params.yaml and `--set` -> its class.
SECTIONS: dict[str, Any] = {f.name.replace("_", "-"): f.type for f in fields(Config)}


def build_config(tree: dict[str, dict[str, Any]], source: str) -> Config:
    """Make a Config of a tree of sections, every value checked; `source` names the tree in errors."""
    if unknown := sorted(set(tree) - set(SECTIONS)):
        raise UsageError(f"{source}: unknown section {unknown[0]!r}; {nearest(unknown[0], SECTIONS)}")
    return Config(**{name.replace("-", "_"): build_section(name, tree.get(name, {}), source) for name in SECTIONS})


def build_section(name: str, values: Any, source: str) -> Any:
    """Make the dataclass of section `name` from `values`: all of its fields, no others, right in type and range."""
    cls = SECTIONS[name]
    if not isinstance(values, dict):
        raise UsageError(f"{source}: {name} is a section of parameters, not {values!r}")
    known = {f.name: f for f in fields(cls)}
    if unknown := sorted(set(values) - set(known)):
        raise UsageError(f"{source}: unknown parameter {name}.{unknown[0]}; {nearest(unknown[0], known)}")
    if missing := sorted(set(known) - set(values)):
        raise UsageError(f"{source}: {name}.{missing[0]} is missing")
    read = {key: coerce(known[key], values[key], f"{source}: {name}.{key}") for key in known}
    try:
        return cls(**read)
    except UsageError as error:  # an impossible combination
        raise UsageError(f"{source}: {error}") from None


def coerce(spec: Any, value: Any, where: str) -> Any:
    """Turn `value` (text, or already of the right type) into the type of the field `spec`, within its range."""
    kinds = typing.get_args(spec.type) if isinstance(spec.type, types.UnionType) else (spec.type,)
    optional = type(None) in kinds
    kind = kinds[0]
    if optional and (value is None or value in ("null", "~", "")):
        return None
    try:
        result = _read(kind, value)
    except (ValueError, TypeError, ArithmeticError):
        raise UsageError(f"{where}={value} is not {_NOUN[kind]}{' or null' if optional else ''}") from None
    rule = spec.metadata
    if rule["one_of"] and result not in rule["one_of"]:
        raise UsageError(f"{where}={value} is unknown; {nearest(str(result), rule['one_of'])}")
    low, above, high = rule["at_least"], rule["above"], rule["at_most"]
    if (low is not None and result < low) or (above is not None and result <= above) or (high is not None and result > high):
        least = f"more than {above}" if above is not None else f"at least {low}"
        span = f"{low} to {high}" if None not in (low, high) else f"{least} and at most {high}" if high is not None else least
        raise UsageError(f"{where}={value} is out of range; {span} would do")
    return result


_NOUN: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}


def _read(kind: Any, value: Any) -> Any:
    """Read `value` as `kind`; ValueError, TypeError or ArithmeticError where it is none."""
    if isinstance(value, dict):
        raise TypeError
    if kind is str:
        return str(value)
    text = str(value).lower()
    if kind is bool:
        if text not in _BOOLEANS:
            raise ValueError
        return _BOOLEANS[text]
    if "_" in text:
        raise ValueError
    number = Decimal(text)
    if not number.is_finite() or number.adjusted() > 300 or (kind is int and number != int(number)):
        raise ValueError
    return kind(number)


def config_tree(config: Config) -> dict[str, dict[str, Any]]:
    """The resolved configuration as plain data, section by section, under the names `params.yaml` uses."""
    return {name: asdict(getattr(config, name.replace("-", "_"))) for name in SECTIONS}
