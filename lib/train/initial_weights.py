"""The weights that a training starts from: random ones, those of a finished run, or those of its own checkpoint."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from lib.artifact.manifest import Manifest, identity_of, verify_files
from lib.artifact.record import from_json
from lib.artifact.tensors import load_tensors
from lib.config.model import ModelConfig
from lib.config.schema import TrainConfig
from lib.data.dataset import Dataset
from lib.errors import MakegptError, UsageError
from lib.model.finetuning import Finetuning, select_trained
from lib.model.language_model import LanguageModel
from lib.model.layers import Linear
from lib.model.norm import LayerNorm
from lib.model.positions import wave_table
from lib.model.registry import build_model
from lib.ngrams.counts import NGrams
from lib.ngrams.kneser_ney import KneserNey
from lib.run.folder import MODEL_FILE, finished_manifest, read_model_config
from lib.run.state import CHECKPOINT_FOLDER, SavedState
from lib.run.weights import fill_base, fill_weights
from lib.tokenizer.extended import is_extension
from lib.tokenizer.registry import load_tokenizer

#: Parameters of a model that its weights do not depend on.
_FREE = ("drop_rate", "attention_impl", "layer_impl", "context_length", "n_classes")


@dataclass(frozen=True)
class InitFrom:
    """A finished run whose weights another training starts from."""

    folder: Path
    manifest: Manifest

    @property
    def sha256(self) -> str:
        """SHA-256 of the weights' file."""
        return self.manifest.outputs[MODEL_FILE].sha256

    @property
    def identity(self) -> str:
        """The identity of the whole run."""
        return identity_of(self.manifest)


def resolve_init_from(folder: Path, dataset: Dataset, config: ModelConfig) -> InitFrom:
    """The finished run in `folder`, for a training of `config` on `dataset` to start from.

    Raises MakegptError if the dataset was made with another tokenizer, UsageError if the design differs.
    """
    source = InitFrom(folder, finished_manifest(folder))
    is_same = source.manifest.metadata.get("tokenizer") == dataset.tokenizer_identity
    if not is_same and not is_extension(dataset.tokens.load_tokenizer(), load_tokenizer(folder)):
        raise MakegptError(
            f"{dataset.folder} was made with another tokenizer than the model of {folder}; "
            f"tokenize its text with `tokenize FILE -o TOKENS --tokenizer {folder}` and build the dataset again"
        )
    there = read_model_config(folder)
    if there.n_classes:
        raise UsageError(f"{folder} is a classifier; --init-from takes a model of texts")
    theirs, ours = asdict(there), asdict(config)
    theirs["vocab_size"] = config.vocab_size  # the dataset's may have more special tokens
    same = {"n_kv_heads", "head_dim"} if _heads(there) == _heads(config) else set()  # null, and the number it stands for
    differing = [name for name in ours if ours[name] != theirs[name] and name not in {*_FREE, *same}]
    if differing:
        differences = [f"model.{name} is {_as_set(theirs[name])} in {folder}, {_as_set(ours[name])} here" for name in differing]
        changes = " ".join(f"--set model.{name}={_as_set(theirs[name])}" for name in differing)
        raise UsageError(f"--init-from needs a run of the same design: {', '.join(differences)}; use {changes}")
    if config.positions == "learned" and config.context_length > theirs["context_length"]:
        raise UsageError(
            f"model.context_length is {config.context_length}, but {folder} has learned {theirs['context_length']} positions; "
            f"use that many or fewer: --set model.context_length={theirs['context_length']}"
        )
    return source


def _heads(config: ModelConfig) -> tuple[int, int]:
    """The heads of keys and values, and their size."""
    return config.n_kv_heads or config.n_heads, config.head_size


def _as_set(value: object) -> str:
    """A parameter's value as --set takes it."""
    return "null" if value is None else str(value).lower()


def initial_model(
    folder: Path,
    state: SavedState | None,
    source: InitFrom | None,
    config: ModelConfig,
    train_config: TrainConfig,
    dataset: Dataset,
) -> LanguageModel:
    """The model with the weights of the checkpoint `state` in the run `folder`, else those of `source`, else random ones.

    Weights that `train.finetune` freezes are in no checkpoint and always from `source`; tokens that `source` lacks begin at the
    mean of those that it has. Random weights are drawn on the CPU, so that every device starts alike. UsageError if the design
    cannot have the `train.finetune`, `train.head_init` or `train.position_init` that is asked for.
    """
    model = build_model(config)
    if source and (state is None or train_config.finetune != "all"):
        verify_files(source.folder, {MODEL_FILE: source.manifest.outputs[MODEL_FILE]})
        if config.n_classes:
            _init_class_head(model, train_config.seed)
        fill_base(model, source.folder / MODEL_FILE)
    elif state is None:
        model.initialize(torch.Generator().manual_seed(train_config.seed))
        init_head(model, train_config.head_init, dataset)
        init_positions(model, train_config.position_init)
    select_trained(model, from_json(Finetuning, asdict(train_config)))
    if state:
        path = folder / CHECKPOINT_FOLDER / state.weights
        fill_weights(model, load_tensors(path)[0], path)
    return model


@torch.no_grad()
def _init_class_head(model: LanguageModel, seed: int) -> None:
    """Draw the head of a classifier, which the run that it starts from does not have."""
    weight = model.get_parameter("out_head.weight")
    weight.normal_(0.0, model.init_std("out_head.weight", weight), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def init_head(model: LanguageModel, kind: str, dataset: Dataset) -> None:
    """Have the head of `model` begin with a guess: `random`, uniform (`zero`) or the training text's `unigram` counts.

    What LayerNorm puts out before its scale and shift sums to 0, so the direction of all ones is free: with a shift of 1, a
    head row that is ln p / C in all its numbers gives the logit ln p, whatever the input. No parameter is added.
    """
    if kind == "random":
        return
    if model.config.n_classes:
        raise UsageError(
            f"train.head_init={kind} is a guess of the next token, and a classifier has none; use head_init=random"
        )
    head, final_norm = model.out_head, getattr(model, "final_norm", None)
    if model.config.tie_weights or not isinstance(head, Linear):
        raise UsageError(f"train.head_init={kind} needs a separate head; use model.tie_weights=false, or head_init=random")
    head.weight.zero_()
    if kind == "unigram":
        if not isinstance(final_norm, LayerNorm):
            raise UsageError(
                "train.head_init=unigram needs a final LayerNorm; use model.norm=layer and model.norm_position=pre, or "
                "head_init=zero"
            )
        if dataset.parallel:
            raise UsageError("train.head_init=unigram counts running text, not targets; use head_init=zero or random")
        unigram = KneserNey(NGrams(dataset.tokens, [dataset.split("train")], 1, model.vocab_size))
        p = torch.from_numpy(unigram.rows(dataset.tokens, np.array([dataset.split("train")[0]]))[0])  # (V,)
        head.weight.copy_((p.log() / head.weight.shape[1])[:, None].expand_as(head.weight))
        final_norm.shift.fill_(1.0)


@torch.no_grad()
def init_positions(model: LanguageModel, kind: str) -> None:
    """Have the position embeddings of `model` begin as they are drawn (`random`), or as waves (`sinusoidal`).

    Rows of random numbers say nothing of what is near. In waves every row is its neighbor, turned: attention that looks one
    position back is then one matrix, the same for all positions (Vaswani et al. 2017, 3.5), and training goes on from there.
    """
    if kind == "random":
        return
    table = dict(model.named_parameters()).get("pos_emb.weight")
    if table is None:
        raise UsageError(
            f"train.position_init={kind} needs a model with learned position embeddings; use model.kind=gpt and "
            "model.positions=learned, or train.position_init=random"
        )
    length, size = table.shape
    table.copy_(_AMPLITUDE * wave_table(length, size, _LONGEST)[:, :size])


_AMPLITUDE = 0.15  # of the waves; a token's embedding is drawn with a std of 0.02
_LONGEST = 100.0  # the longest wave has nearly 2π times that many positions
