"""The kinds of figures that `plot` draws: what each shows, what it takes, how it is drawn.

A drawing function imports what it needs when it draws, so that this list loads neither torch nor matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from lib.config.schema import Config
from lib.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_MASK = 4096  # positions


class Takes(Enum):
    """The arguments of a kind: how the help writes them, how many there may be, and their name in an error."""

    RUNS = ("RUN...", 1, None, "runs")
    RUN = ("RUN", 1, 1, "one run")
    MODELS = ("[RUN|CONFIG...]", 0, None, "runs and configs")
    NOTHING = ("", 0, 0, "no run; use --config and --set")

    def __init__(self, metavar: str, least: int, most: int | None, words: str) -> None:
        self.metavar, self.least, self.most, self.words = metavar, least, most, words


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to draw: the runs in `folders`, or what `config` describes.

    `configs`: those of `folders` that name a config instead of a run. `panels`: one panel per run.
    """

    config: Config
    folders: tuple[Path, ...] = ()
    configs: Mapping[str, Config] = field(default_factory=dict)
    panels: bool = False


@dataclass(frozen=True)
class Kind:
    """A kind of figure. `options`: the options that not every kind has. `draw` is None if the output is a page of text."""

    name: str
    help: str
    takes: Takes
    draw: Callable[[Request], Figure] | None
    options: tuple[str, ...] = ()


def _loss(request: Request) -> Figure:
    from lib.plot.loss_curves import loss_figure, panels_figure, read_curves

    return (panels_figure if request.panels else loss_figure)(read_curves(request.folders), request.config.plot)


def _classes(request: Request) -> Figure:
    from lib.plot.classes import classes_figure, read_classifier

    return classes_figure(read_classifier(request.folders[0]), request.config.plot)


def _values(request: Request) -> Figure:
    from lib.plot.values import read_values, values_figure

    return values_figure(read_values(request.folders), request.config.plot)


def _ladder(request: Request) -> Figure:
    from lib.plot.size_vs_loss import ladder_figure, read_ladder

    return ladder_figure(read_ladder(request.folders), request.config.plot)


def _attention(request: Request) -> Figure:
    from lib.plot.concepts import attention_figure, read_attention

    return attention_figure(read_attention(request.folders[0], request.config.plot.prompt), request.config.plot)


def _lens(request: Request) -> Figure:
    from lib.plot.lens import lens_figure, read_lens

    return lens_figure(read_lens(request.folders[0], request.config.plot.prompt), request.config.plot)


def _model(request: Request) -> Figure:
    from lib.plot.architecture import described_model, model_figure, run_model

    models = [
        (str(folder), described_model(request.configs[str(folder)])) if str(folder) in request.configs else run_model(folder)
        for folder in request.folders
    ]
    return model_figure(models or [("", described_model(request.config))], request.config.plot)


def _mask(request: Request) -> Figure:
    from lib.plot.concepts import mask_figure

    model = request.config.model
    if model.kind in ("bigram", "lstm"):
        raise UsageError(f"a {model.kind} has no attention mask; choose another --config")
    if model.context_length > _MAX_MASK:
        raise UsageError(
            f"a mask of {model.context_length}² positions is too large to draw; use --set model.context_length={_MAX_MASK}"
        )
    return mask_figure(model, request.config.plot)


def _positions(request: Request) -> Figure:
    from lib.plot.concepts import positions_figure

    return positions_figure(request.config.model, request.config.plot)


def _schedule(request: Request) -> Figure:
    from lib.plot.concepts import schedule_figure

    return schedule_figure(request.config.train, request.config.plot)


def _activations(request: Request) -> Figure:
    from lib.plot.concepts import activations_figure

    return activations_figure(request.config.plot)


def _gradients(request: Request) -> Figure:
    from lib.plot.concepts import gradients_figure

    return gradients_figure(request.config.plot)


def _picture(name: str) -> Callable[[Request], Figure]:
    """The picture of the book called `name`."""

    def draw(request: Request) -> Figure:
        from lib.plot import attention_pictures, pictures

        module = pictures if hasattr(pictures, f"{name}_figure") else attention_pictures
        picture: Figure = getattr(module, f"{name}_figure")(request.config)
        return picture

    return draw


#: Pictures of the book, and what they show; only the size of `lora` follows the config.
PICTURES = {
    "merges": "what byte-pair encoding merges, step by step",
    "lookup": "embeddings: rows of two tables, added",
    "windows": "inputs and targets of overlapping windows",
    "scores": "self-attention from queries to the output, with numbers",
    "heads": "a tensor split into heads and joined",
    "norm": "vectors before and after LayerNorm",
    "sampling": "temperature and filters on a distribution",
    "cache": "what a step of generation computes, with a KV cache and without",
    "rotary": "how far each pair of numbers turns",
    "groups": "query heads that share keys and values",
    "lora": "a matrix and its adapter, to scale",
    "packing": "what is learned, and what is kept apart, of conversations",
}

#: The kinds by name, in the order of the help.
KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "loss",
            "training and validation loss by step and by tokens, with the baselines",
            Takes.RUNS,
            _loss,
            options=("panels", "summary"),
        ),
        Kind("classes", "a classifier: loss and accuracy by step, and its confusion matrix", Takes.RUN, _classes),
        Kind("values", "what a training measured besides its loss: rewards, divergence, margins", Takes.RUNS, _values),
        Kind("ladder", "bits/byte against parameters, with the baselines", Takes.RUNS, _ladder, options=("summary",)),
        Kind(
            "attention",
            "what each head attends to as it reads --prompt, or as it writes what belongs to it",
            Takes.RUN,
            _attention,
            options=("summary",),
        ),
        Kind("lens", "what each layer would predict as the model reads --prompt", Takes.RUN, _lens, options=("summary",)),
        Kind("tokens", "--text or --prompt, colored by the surprisal of each token", Takes.RUN, None, options=("text",)),
        Kind("model", "the parts of a model, the shapes of its weights and activations", Takes.MODELS, _model),
        Kind("mask", "which position may attend to which", Takes.NOTHING, _mask),
        Kind("positions", "the sinusoidal position table", Takes.NOTHING, _positions),
        Kind("schedule", "the learning rate by step", Takes.NOTHING, _schedule),
        Kind("activations", "ReLU, GELU and SiLU (the same for every config)", Takes.NOTHING, _activations),
        Kind("gradients", "of a deep network, with and without shortcuts (likewise)", Takes.NOTHING, _gradients),
        *(Kind(name, about, Takes.NOTHING, _picture(name)) for name, about in PICTURES.items()),
    )
}


def check_arguments(kind: Kind, folders: tuple[Path, ...], options: Collection[str]) -> None:
    """UsageError unless `kind` takes this many `folders` and has all of these `options`."""
    takes = kind.takes
    if len(folders) < takes.least:
        raise UsageError(f"plot {kind.name} needs a trained run; name its folder")
    if takes.most is not None and len(folders) > takes.most:
        raise UsageError(f"plot {kind.name} takes {takes.words}; remove {folders[-1]}")
    for option in options:
        if option not in kind.options:
            *others, last = [other.name for other in KINDS.values() if option in other.options]
            having = f"{', '.join(others)} or {last}" if others else last
            raise UsageError(f"--{option} is for plot {having}; plot {kind.name} does not have it")
