"""What `plot` shows: a figure of each kind, and a run in words: what came out, what to try next."""

from dataclasses import replace
from pathlib import Path
from typing import Iterable, Mapping

import torch
from matplotlib.figure import Figure

from lib.artifact.record import to_json
from lib.config.schema import Config, ModelConfig
from lib.errors import MakegptError, UsageError
from lib.evaluate.comparison import ComparisonRow, comparison_rows
from lib.evaluate.results import of_own_validation, read_evaluation
from lib.generate.request import encode_prompt
from lib.huggingface.gpt2 import RELEASED_TOKENS
from lib.model.maps import attention_maps, attentions
from lib.plot.architecture import model_figure
from lib.plot.concepts import (
    activations_figure,
    attention_figure,
    gradients_figure,
    mask_figure,
    positions_figure,
    schedule_figure,
)
from lib.plot.loss_curves import Curve, loss_figure, panels_figure
from lib.plot.size_vs_loss import ladder_figure
from lib.run.folder import (
    EVALUATION_FILE,
    finished_manifest,
    load_run,
    read_metrics,
    read_model_config,
)
from lib.tokenizer.bytes_ import BytesTokenizer


def draw_figure(
    kind: str, folders: tuple[Path, ...], config: Config, *, panels: bool = False, configs: Mapping[str, Config] | None = None
) -> Figure:
    """The figure of `kind` of the runs in `folders`, or, for the kinds without runs, of what `config` describes.

    `panels`: a panel a run and not all in one, for the kind loss. `configs`: for the kind model, those among `folders` that
    are no folder but the name of a config.
    """
    plot = config.plot
    match kind:
        case "loss":
            return (panels_figure if panels else loss_figure)(load_curves(folders), plot)
        case "ladder":
            return ladder_figure(_compared(folders), plot)
        case "attention":
            return _attention(folders[0], config)
        case "mask":
            if config.model.kind == "bigram":
                raise UsageError("a bigram has no attention, and so no mask")
            if config.model.context_length > _LARGEST_MASK:
                raise UsageError(
                    f"a mask of {config.model.context_length}² squares cannot be drawn; "
                    f"--set model.context_length={_LARGEST_MASK} could"
                )
            return mask_figure(config.model, plot)
        case "positions":
            return positions_figure(config.model, plot)
        case "model":
            return model_figure(_models(folders, config, configs or {}), plot)
        case "schedule":
            return schedule_figure(config.train, plot)
        case "activations":
            return activations_figure(plot)
        case "gradients":
            return gradients_figure(plot)
    raise AssertionError(kind)


_LARGEST_MASK = 4096  # positions


#: Vocabularies that are known before there is a text.
_VOCABULARIES = {"gpt2": RELEASED_TOKENS, "bytes": BytesTokenizer.vocab_size}


def _models(folders: tuple[Path, ...], config: Config, configs: Mapping[str, Config]) -> list[tuple[str, ModelConfig]]:
    """The models of runs and of configs, with their names; without any what `config` describes."""
    if not folders:
        return [("", _known(config))]
    return [
        (str(folder), _known(configs[str(folder)])) if str(folder) in configs else (_named(folder), read_model_config(folder))
        for folder in folders
    ]


def _named(folder: Path) -> str:
    finished_manifest(folder)
    return folder.resolve().name


def _known(config: Config) -> ModelConfig:
    """The model that `config` describes, its vocabulary that of the tokenizer."""
    if config.model.vocab_size is not None:
        return config.model
    kind = config.tokenize.tokenizer
    if kind not in _VOCABULARIES:
        raise UsageError(
            f"the vocabulary of tokenizer {kind} comes from a text; say its size with --set model.vocab_size=65, or name a run"
        )
    return replace(config.model, vocab_size=_VOCABULARIES[kind])


def _attention(folder: Path, config: Config) -> Figure:
    trained = load_run(folder, torch.device("cpu"))
    if not attentions(trained.model):
        raise MakegptError(f"{folder} is a {trained.config.kind}, which has no attention to draw")
    ids = encode_prompt(trained.tokenizer, config.plot.prompt).ids
    maps = attention_maps(trained.model, torch.tensor([ids]))
    tokens = [trained.tokenizer.decode([id]) for id in ids]
    return attention_figure(maps, tokens, config.plot)


def _compared(folders: Iterable[Path]) -> list[ComparisonRow]:
    """The rows of evaluated runs and their baselines; MakegptError where the tokens of one stand for no bytes."""
    rows = comparison_rows(folders)
    for row in rows:
        if row.bits_per_byte is None:
            raise MakegptError(f"{row.name} was evaluated on {row.tokens} tokens that stand for no text; bits/byte need some")
    return rows


def load_curves(folders: Iterable[Path]) -> list[Curve]:
    """What a loss figure shows of each run; its baselines where it has been evaluated on its own validation split."""
    gathered = []
    for folder in folders:
        metadata = finished_manifest(folder)["metadata"]
        evaluation = to_json(read_evaluation(folder)) if (folder / EVALUATION_FILE).is_file() else {}
        if evaluation and not of_own_validation(evaluation, metadata):
            evaluation = {}  # its baselines are of another text than the curves
        losses = {name: baseline["loss"] for name, baseline in evaluation.get("baselines", {}).items()}
        identity = (metadata.get("tokenizer"), evaluation.get("text_sha256"), metadata.get("dataset"))
        gathered.append(Curve(folder.resolve().name, read_metrics(folder), losses, *identity))
    return gathered
