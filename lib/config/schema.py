"""Every parameter: its name, type, range and unit. The values are in `params.yaml`.

One frozen dataclass per section, named after the stage. Code receives its section, never the whole config. Those of the text
and of the model have files of their own.
"""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from lib.config.model import ModelConfig
from lib.config.parameter import coerce, parameter
from lib.config.text import BuildDatasetConfig, TokenizeConfig
from lib.errors import UsageError, nearest

#: What a training changes: all weights, some, or none of them, but adapters.
FINETUNE_KINDS = ("all", "last_block", "lora")

#: The matrices that LoRA can adapt, by what they compute.
LORA_TARGETS = ("query", "key", "value", "out", "gate", "expand", "contract")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    task: str = parameter(
        "what the model learns: the next token of a text or of a conversation's answers, the classes of texts, to prefer the "
        "better of two answers, to give right ones, or the target that belongs to a source",
        one_of=("text", "classify", "dpo", "grpo", "translate"),
    )
    dpo_beta: float = parameter("with train.task=dpo: how strongly the model is held to the one it starts from", above=0.0)
    reward: str = parameter(
        "with train.task=grpo: an answer is worth 1 if it is the right one, or if it contains the right one",
        one_of=("exact", "contains"),
    )
    group_size: int = parameter("with train.task=grpo: answers to each question", at_least=2)
    answer_tokens: int = parameter("with train.task=grpo: maximum number of tokens of an answer", at_least=1)
    kl_weight: float = parameter(
        "with train.task=grpo: weight of the KL divergence from the model that the training starts from", at_least=0.0
    )
    optimizer: str = parameter("AdamW for all weights, or Muon for the matrices of the blocks", one_of=("adamw", "muon"))
    learning_rate: float = parameter("peak learning rate", at_least=0.0)
    embedding_lr_mult: float = parameter("multiplier of the learning rate for the embeddings and the output head", at_least=0.0)
    schedule: str = parameter("learning rate decay after the warmup", one_of=("cosine", "linear", "inverse_sqrt"))
    min_lr_ratio: float = parameter("lowest learning rate of the decay, as a fraction of the peak", at_least=0.0, at_most=1.0)
    warmup_steps: int = parameter("steps of linear learning rate warmup, at most a third of max_steps", at_least=0)
    label_smoothing: float = parameter(
        "weight of the uniform distribution in the targets of a training (0: none)", at_least=0.0, at_most=0.999
    )
    max_steps: int = parameter("number of optimizer steps", at_least=1)
    batch_size: int = parameter("batch size in windows (sequences) per optimizer step", at_least=1)
    grad_accum_steps: int = parameter("gradient accumulation: micro-batches per optimizer step, to save memory", at_least=1)
    weight_decay: float = parameter("decoupled weight decay of matrices and embeddings", at_least=0.0)
    beta1: float = parameter("AdamW beta1 (decay of the first moment)", at_least=0.0, at_most=0.9999)
    beta2: float = parameter("AdamW beta2 (decay of the second moment)", at_least=0.0, at_most=0.99999)
    head_init: str = parameter(
        "initial output head: random, zero (a uniform guess), or the training text's unigram counts",
        one_of=("random", "zero", "unigram"),
    )
    position_init: str = parameter("initial position embeddings: random, or sine waves", one_of=("random", "sinusoidal"))
    unseen_rows: str = parameter(
        "rows of tokens that the training text lacks: shared by all of them if they begin equal (faster), or separate",
        one_of=("shared", "separate"),
    )
    counts_share: float = parameter(
        "weight of Kneser-Ney counts of the other parts of the training text in the targets (0: none)",
        at_least=0.0,
        at_most=1.0,
    )
    counts_order: int = parameter("order of the n-grams in the targets", at_least=1, at_most=8)
    counts_cache: bool = parameter("mix the counts in the targets with those of the window up to each position")
    invented_share: float = parameter(
        "fraction of a batch's windows that are invented: the training text read with jumps, its targets mixed with counts",
        at_least=0.0,
        at_most=1.0,
    )
    finetune: str = parameter(
        "weights that are trained: all, those of the last block, final norm and head, or LoRA adapters of some matrices",
        one_of=FINETUNE_KINDS,
    )
    lora_rank: int = parameter("rank of the adapters, with train.finetune=lora", at_least=1, at_most=2**16)
    lora_alpha: float = parameter("the adapters' products are multiplied by lora_alpha / lora_rank", above=0.0, at_most=1e6)
    lora_targets: str = parameter(f"matrices with adapters: all, or some of {', '.join(LORA_TARGETS)}, separated by commas")
    grad_clip: float = parameter("maximum gradient norm (0: no clipping)", at_least=0.0)
    publish: str = parameter(
        "weights that become the run's: of the last step, or those with the lowest validation loss", one_of=("last", "best")
    )
    eval_interval: int = parameter("steps between validations (0: only at the end)", at_least=0)
    checkpoint_interval: int = parameter("steps between checkpoints, besides those at validations (0: none)", at_least=0)
    log_interval: int = parameter("steps between lines of metrics.jsonl", at_least=1)
    sample_interval: int | None = parameter(
        "steps between samples in samples.jsonl (null: at every validation, 0: none)", at_least=0
    )
    sample_prompt: str | None = parameter("prompt of the samples (null: a line break)")
    sample_tokens: int = parameter("tokens per sample", at_least=1)
    sample_temperature: float = parameter("sampling temperature of the samples; 0 = greedy", at_least=0.0)
    precision: str = parameter(
        "dtype of matrix products (auto: bfloat16 or float16 on CUDA, else float32)",
        one_of=("auto", "float32", "bfloat16", "float16"),
    )
    compile: str = parameter("use torch.compile, except for the output head (auto: on CUDA)", one_of=("auto", "on", "off"))
    seed: int = parameter("random seed of the initial weights, the batches and dropout", at_least=0, at_most=2**63 - 1)

    def __post_init__(self) -> None:
        if self.batch_size % self.grad_accum_steps:
            raise UsageError(
                f"train.batch_size={self.batch_size} must be divisible by train.grad_accum_steps={self.grad_accum_steps}"
            )
        if self.label_smoothing and self.counts_share:
            raise UsageError(
                f"train.label_smoothing={self.label_smoothing} and train.counts_share={self.counts_share} both soften the "
                "targets; set one of them to 0"
            )
        if self.invented_share and not self.counts_share:
            raise UsageError(
                f"train.invented_share={self.invented_share} needs counts that teach it; "
                "set train.counts_share, 0.9 for example, or train.invented_share=0"
            )
        if self.counts_cache and not self.counts_share:
            raise UsageError("train.counts_cache=true needs counts; set train.counts_share, 0.9 for example")
        if self.invented_share and not self.invented_windows:
            raise UsageError(
                f"train.invented_share={self.invented_share} of train.batch_size={self.batch_size} windows is none; "
                f"use {0.5 / self.batch_size:.3g} or more"
            )

        for target in self.lora_targets.split(","):
            if target not in ("all", *LORA_TARGETS):
                raise UsageError(f"train.lora_targets has {target!r}; {nearest(target, ('all', *LORA_TARGETS))}")

    @property
    def invented_windows(self) -> int:
        """How many windows of a batch are invented."""
        return math.floor(self.batch_size * self.invented_share + 0.5)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    split: str = parameter("split of the dataset to evaluate on", one_of=("val", "train", "test"))
    ngram_order: int = parameter("highest order of the n-gram baselines (Kneser-Ney counts)", at_least=1, at_most=8)
    overlap: float = parameter(
        "window overlap of the sliding-window evaluation, as a fraction (0: no such evaluation)",
        at_least=0.0,
        at_most=0.99,
    )
    passages: int = parameter(
        "number of texts of each kind to search for copied training text; of questions to answer (0: none)",
        at_least=0,
        at_most=1000,
    )
    dynamic_lr: float = parameter("learning rate of dynamic evaluation (SGD)", at_least=0.0)


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    prompt: str | None = parameter("text to continue (null: a line break)")
    max_new_tokens: int = parameter("maximum number of tokens to generate", at_least=1)
    temperature: float = parameter("sampling temperature; 0 = greedy", at_least=0.0, at_most=1e6)
    top_k: int | None = parameter("sample from the k most likely tokens (null: all)", at_least=1)
    top_p: float | None = parameter(
        "sample from the fewest tokens whose probabilities sum to this (null: all)", above=0.0, at_most=1.0
    )
    min_p: float | None = parameter(
        "sample from tokens with at least this fraction of the highest probability (null: all)", at_least=0.0, at_most=1.0
    )
    repetition_penalty: float = parameter(
        "divide positive logits of tokens already in the text by this, multiply negative ones (1: off)",
        at_least=0.01,
        at_most=100.0,
    )
    seed: int = parameter("random seed of sampling", at_least=0, at_most=2**63 - 1)


@dataclass(frozen=True, kw_only=True)
class PlotConfig:
    prompt: str = parameter("text whose attention or surprisal is drawn")
    width: float = parameter("figure width in inches", at_least=1.0, at_most=100.0)
    height: float = parameter("figure height in inches", at_least=1.0, at_most=100.0)
    dpi: int = parameter("resolution of a PNG in dots per inch", at_least=10, at_most=1000)


@dataclass(frozen=True, kw_only=True)
class Config:
    """All sections, resolved from `params.yaml`, a named config and `--set`."""

    tokenize: TokenizeConfig
    build_dataset: BuildDatasetConfig
    model: ModelConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    generate: GenerateConfig
    plot: PlotConfig


#: Parameters that change what is saved during training but not the weights. A change of one retrains nothing.
IGNORED_FOR_IDENTITY = frozenset(
    f"train.{name}"
    for name in ("checkpoint_interval", "sample_interval", "sample_prompt", "sample_tokens", "sample_temperature")
)

#: Section name as written in params.yaml and `--set` -> its class.
SECTIONS: dict[str, Any] = {f.name.replace("_", "-"): f.type for f in fields(Config)}


def build_config(tree: dict[str, dict[str, Any]], source: str) -> Config:
    """Build a Config from a tree of sections and check every value; `source` names the tree in errors."""
    if unknown := sorted(set(tree) - set(SECTIONS)):
        raise UsageError(f"{source}: unknown section {unknown[0]!r}; {nearest(unknown[0], SECTIONS)}")
    return Config(**{name.replace("-", "_"): build_section(name, tree.get(name, {}), source) for name in SECTIONS})


def build_section(name: str, values: Any, source: str) -> Any:
    """Build the dataclass of section `name` from `values`: all of its fields and no others, each of its type and range."""
    cls = SECTIONS[name]
    if not isinstance(values, dict):
        raise UsageError(f"{source}: {name} must be a mapping of parameters, not {values!r}")
    specs = {spec.name: spec for spec in fields(cls)}
    if unknown := sorted(set(values) - set(specs)):
        raise UsageError(f"{source}: unknown parameter {name}.{unknown[0]}; {nearest(unknown[0], specs)}")
    if missing := sorted(set(specs) - set(values)):
        raise UsageError(f"{source}: {name}.{missing[0]} is missing")
    typed = {key: coerce(spec, values[key], f"{source}: {name}.{key}") for key, spec in specs.items()}
    try:
        return cls(**typed)
    except UsageError as error:  # an impossible combination
        raise UsageError(f"{source}: {error}") from None


def config_tree(config: Config) -> dict[str, dict[str, Any]]:
    """The resolved config as plain data, by the section names of `params.yaml`."""
    return {name: asdict(getattr(config, name.replace("-", "_"))) for name in SECTIONS}
