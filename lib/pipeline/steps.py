"""What `make` chains: the artifacts that a config and a text lead to, stage by stage, and their names.

Two texts never get the same name. `TEXT=my.txt` gives `my`; any other way to write a file (another folder or ending, capitals,
letters that a target's name cannot hold, the name of a pinned input) gets eight digits of a hash of its path: `my-1c0e3f5a`.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable, Collection, Self

from lib.artifact.io import sha256_of
from lib.artifact.manifest import MANIFEST
from lib.config.params import config_lineage, load_params, resolve_config
from lib.config.schema import IGNORED_FOR_IDENTITY, Config, config_tree
from lib.config.text import SIZED_KINDS
from lib.data.downloads import Input, data_folder, load_inputs
from lib.errors import MakegptError, UsageError, nearest

#: From a file to its SHA-256.
Sha256 = Callable[[Path], str]

FIGURES = Path("artifacts/plots")
RUNS = Path("artifacts/runs")

#: The Makefile's default DATASET, which a figure's name leaves out.
USUAL_DATASET = "hamlet"

#: A name that stands for one file alone: no capitals, which some file systems do not tell apart, and no digits of a hash.
_PLAIN = re.compile(r"(?!.*-[0-9a-f]{8}$)[a-z0-9_][a-z0-9._-]{0,59}(?<!\.)")

#: Of a config, no dash either: CONFIG-DATASET is cut at the first one.
_PLAIN_CONFIG = re.compile(r"[a-z0-9_][a-z0-9._]{0,59}")


@dataclass(frozen=True)
class Step:
    """One stage: the file whose presence means it is done, its parameters by section.key, the stages whose output it reads."""

    stage: str
    target: Path
    parameters: dict[str, Any]
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Base:
    """Pretrained weights that a training starts from: the input they are, their file in data/, and the run they become."""

    name: str
    weights: Path
    run: Path


@dataclass(frozen=True)
class Pipeline:
    """All steps from a text to a figure, and the files that must be fetched first.

    `conversations`: the shape of those that are learned from instead of running text, or None; `layout`: "labels" or "parallel"
    for labeled or parallel texts, or None; `base`: the weights that such a training starts from, if the config extends that of
    pretrained weights.
    """

    texts: list[Path]  # fetched if they are missing; empty if the text is the user's own
    vocabulary: list[Path]
    hashes: list[str]  # SHA-256 of each document
    steps: list[Step]
    figure: Path  # a copy of the run's figure
    conversations: str | None = None
    layout: str | None = None
    base: Base | None = None

    def step(self, stage: str) -> Step:
        """The step of `stage`."""
        return next(step for step in self.steps if step.stage == stage)

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.step("train").target.parent


def build_pipeline(config_name: str, dataset: str, text: str, changes: str, sha256: Sha256 = sha256_of) -> Pipeline:
    """The pipeline of a config over the input `dataset`, or over the file `text` where one is named; `changes` as in SET.

    `sha256` gives the hash of a file. Raises UsageError for an unknown name or a test split that `changes` do not ask for,
    MakegptError for a text that cannot be read.
    """
    tree = load_params()
    config = resolve_config(tree, config_name, changes.split())
    if config.evaluate.split == "test" and not config.build_dataset.test_fraction:
        raise UsageError("evaluate.split=test needs a test split; add build-dataset.test_fraction=0.1 to SET")
    pinned = load_inputs(tree)
    layout = _LAYOUTS.get(config.train.task)
    conversations = None if text or layout or dataset not in pinned else pinned[dataset].conversations
    base = _base(tree, config_name, pinned) if conversations or layout else None
    if text:
        dataset, texts = text_name(text, pinned), []
        hashes = [_hash_of_text(text, sha256)]
    elif dataset in pinned and pinned[dataset].is_text:
        texts = [data_folder() / name for name in pinned[dataset].files]
        pins = pinned[dataset].files.values()
        hashes = [sha256(path) if path.is_file() else pin for path, pin in zip(texts, pins, strict=True)]
    else:
        names = [name for name in pinned if pinned[name].is_text]
        raise UsageError(f"DATASET={dataset} is unknown; {nearest(dataset, names)}; TEXT=my.txt takes a text of yours")
    needs_vocabulary = config.tokenize.tokenizer == "gpt2" and base is None
    vocabulary = [data_folder() / name for name in pinned["gpt2"].files] if needs_vocabulary else []
    config_part = config_name if _PLAIN_CONFIG.fullmatch(config_name) else _with_digits(config_name, config_name)
    figure = FIGURES / (config_part.upper() + ("" if dataset == USUAL_DATASET else f"-{dataset}") + ".png")
    run = f"{config_part}-{dataset}"
    steps = _steps(config, _Places.of(config, run, dataset, base), conversations, layout, base)
    return Pipeline(texts, vocabulary, hashes, steps, figure, conversations, layout, base)


def _base(tree: dict[str, Any], config_name: str, pinned: dict[str, Input]) -> Base | None:
    """The pretrained weights whose config the config `config_name` extends, or is."""
    for name in reversed(config_lineage(tree, config_name)):
        if name in pinned and (weights := pinned[name].weights):
            return Base(name, data_folder() / weights, RUNS / name)
    return None


def _hash_of_text(text: str, sha256: Sha256) -> str:
    try:
        if not Path(text).is_file():
            raise MakegptError(f"TEXT={text} does not exist, or is no file")
        return sha256(Path(text))
    except OSError as error:
        raise MakegptError(f"TEXT={text} cannot be read: {error.strerror}") from None


def text_name(text: str, taken: Collection[str] = ()) -> str:
    """A dataset's name after the file `text`, another one for every path; those `taken` by pinned inputs are not given."""
    path = os.path.normpath(text)
    inside = os.path.relpath(path)
    path = path if inside.startswith(os.pardir) else inside  # the same name for ./my.txt and an absolute path
    stem, ending = os.path.splitext(path)
    if ending == ".txt" and _PLAIN.fullmatch(stem) and stem not in taken:
        return stem
    return _with_digits(os.path.basename(stem), path)


def _with_digits(name: str, whole: str) -> str:
    """`name`, with _ for what a target's name could not hold, and eight digits of the hash of `whole`."""
    held = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name).strip(".")[:60]
    return f"{held or 'text'}-{hashlib.sha256(os.fsencode(whole)).hexdigest()[:8]}"


@dataclass(frozen=True)
class _Places:
    """Where the artifacts of a config and a text are."""

    tokens: Path
    windows: Path
    run: Path

    @classmethod
    def of(cls, config: Config, run: str, dataset: str, base: Base | None) -> Self:
        name = f"{dataset}.{base.name if base else config.tokenize.label}"
        windows = Path("artifacts/datasets") / f"{name}.{config.model.context_length}"
        return cls(Path("artifacts/tokens") / name / MANIFEST, windows / MANIFEST, RUNS / run)


def _parameters(config: Config, *sections: str) -> dict[str, Any]:
    """The parameters of `sections`, by section.key."""
    tree = config_tree(config)
    values = {f"{section}.{key}": value for section in sections for key, value in tree[section].items()}
    return {key: value for key, value in values.items() if key not in IGNORED_FOR_IDENTITY}


#: How the texts of a task are laid out: the option of `tokenize` that reads them, where they are not running text.
_LAYOUTS = {"classify": "labels", "translate": "parallel"}

#: The figure that a task ends in, where it is not the loss: no text is written then, and no report.
_FIGURES = {"classify": "classes", "dpo": "values", "translate": "attention"}


def _steps(config: Config, places: _Places, conversations: str | None, layout: str | None, base: Base | None) -> list[Step]:
    of, folder = partial(_parameters, config), places.run
    figure = _FIGURES.get(config.train.task, "loss")
    of_labels = ("build-dataset.balance", "build-dataset.seed")
    windows = {key: value for key, value in of("build-dataset").items() if layout == "labels" or key not in of_labels}
    windows["model.context_length"] = config.model.context_length
    steps = [
        Step("tokenize", places.tokens, _text_parameters(config, conversations, layout, base)),
        Step("build-dataset", places.windows, windows, ("tokenize",)),
        Step("train", folder / "model.safetensors", of("model", "train"), ("build-dataset",)),
    ]
    if figure != "loss":
        return [
            *steps,
            Step("evaluate", folder / "evaluation.json", {"evaluate.split": config.evaluate.split}, ("train",)),
            Step("plot", folder / f"{figure}.png", of("plot"), ("evaluate",)),
        ]
    of_base = [Step("base", base.run / "evaluation.json", of("evaluate", "generate"), ("build-dataset",))] if base else []
    return [
        *steps,
        *of_base,
        Step("evaluate", folder / "evaluation.json", of("evaluate", "generate"), ("train",)),
        Step("generate", folder / "sample.txt", of("generate"), ("train",)),
        Step("plot", folder / "loss.png", of("plot"), ("evaluate",)),
        Step("report", folder / "report.html", {}, ("evaluate", "generate")),
    ]


def _text_parameters(config: Config, conversations: str | None, layout: str | None, base: Base | None) -> dict[str, Any]:
    """The parameters of `tokenize`, for running text, conversations, labeled or parallel texts."""
    of = partial(_parameters, config)
    text = of("tokenize")
    # a vocabulary of a chosen size is not learned from what build-dataset will hold out
    fractions = ("build-dataset.val_fraction", "build-dataset.test_fraction")
    held_out = {key: of("build-dataset")[key] for key in fractions if config.tokenize.tokenizer in SIZED_KINDS}
    if layout:
        kept = ["tokenize.shard_tokens"] if base else ["tokenize.shard_tokens", "tokenize.tokenizer"]
        columns = {"tokenize.text_column": "text", "tokenize.label_column": "label"} if layout == "labels" else {}
        return {key: text[key] for key in kept} | columns
    if conversations:
        kept = ["tokenize.shard_tokens", *([] if base else ["tokenize.tokenizer", "tokenize.vocab_size"])]
        text = {key: text[key] for key in kept} | {"tokenize.format": conversations}
    return text | held_out
