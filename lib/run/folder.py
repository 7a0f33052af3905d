"""A run folder: one model's whole story, from its configuration to its finished weights.

    config.json  tokenizer.json  manifest.json      written when training begins
    metrics.jsonl  timings.jsonl                    a line a logged step
    samples.jsonl                                   a line a sample of what the model writes by then
    checkpoint/                                           the state to resume from; checkpoint/state.json is written last
    model.safetensors                               the finished weights: its presence means "done"
    adapter.safetensors                             of a training with LoRA: its adapters, which are merged into those
    evaluation.json  sample.txt  loss.png  report.html    made from it by the later stages
    diverged.json                                   of a training that met a number that is not finite: where, in which batch

An imported run (`lib.huggingface.convert`) holds config.json, tokenizer.json, manifest.json and model.safetensors at once.
Every file is replaced whole. What a kill leaves is either the state before a checkpoint or the one after.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lib.artifact.io import read_json, sha256_of
from lib.artifact.manifest import MANIFEST, Manifest, Session, input_folder, read_manifest, verify_files
from lib.artifact.record import Count, RecordError, from_json
from lib.chat.template import ChatTemplate, template_in
from lib.config.model import GPT_2, ModelConfig
from lib.config.schema import build_section
from lib.errors import MakegptError, UsageError
from lib.model.finetuning import Finetuning
from lib.model.language_model import LanguageModel
from lib.run.state import CHECKPOINT_FOLDER as LAST
from lib.run.state import STATE_FILE as STATE
from lib.run.state import read_state
from lib.run.weights import load_finetuned, load_model
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.registry import load_tokenizer

MODEL_FILE = "model.safetensors"
ADAPTER_FILE = "adapter.safetensors"
CONFIG_FILE = "config.json"
EVALUATION_FILE = "evaluation.json"
SAMPLE_FILE = "sample.txt"
LOSS_FIGURE_FILE = "loss.png"
REPORT_FILE = "report.html"
DIVERGED_FILE = "diverged.json"

#: The key of a manifest's metadata with a chat template, as it was imported; GGUF files call it so too.
CHAT_TEMPLATE = "tokenizer.chat_template"

#: The stage of a run that was not trained here, and what the manifest of a finished run must tell.
IMPORT_STAGE = "import-weights"


@dataclass(frozen=True, kw_only=True)
class ImportedMetadata:
    """What the manifest of imported weights must tell of them."""

    parameters: Count
    tokenizer: str


@dataclass(frozen=True, kw_only=True)
class TrainedMetadata:
    """What the manifest of a finished training must tell of its result."""

    parameters: Count
    published_step: Count
    published_val_loss: float


@dataclass(frozen=True)
class ClassNames:
    """`classes` in a classifier's config.json: their names, in the order of the logits."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class TrainedModel:
    """A run's model, loaded; `sha256` is that of the file its weights are from."""

    model: LanguageModel
    tokenizer: Tokenizer
    config: ModelConfig
    sha256: str
    classes: tuple[str, ...] = ()  # the names of a classifier's classes


def load_run(folder: Path, device: torch.device, weights: str = "published", *, encoder_decoder: bool = False) -> TrainedModel:
    """Load the model of texts of the run in `folder`, its files verified; it is in evaluation mode.

    `weights`: "published", those of a finished run, or "last", those of the last saved state, of an unfinished run too.
    UsageError for a classifier, and for an encoder-decoder unless the caller has use for one.
    """
    return _load(folder, device, weights, classifier=False, encoder_decoder=encoder_decoder)


def load_classifier(folder: Path, device: torch.device, weights: str = "published") -> TrainedModel:
    """The same for a classifier; UsageError for a model of texts."""
    return _load(folder, device, weights, classifier=True)


def is_classifier(folder: Path) -> bool:
    """Whether the run in `folder` is a classifier; MakegptError if there is no run."""
    read_manifest(folder, "run")
    return read_model_config(folder).n_classes is not None


def _listed(classes: tuple[str, ...]) -> str:
    """The names of classes, the first few of many."""
    return ", ".join(classes[:4]) + (", …" if len(classes) > 4 else "")


def _load(folder: Path, device: torch.device, weights: str, *, classifier: bool, encoder_decoder: bool = False) -> TrainedModel:
    if weights == "published":
        path = folder / MODEL_FILE
        manifest = finished_manifest(folder)
        verify_files(folder, manifest.outputs)
        sha256 = manifest.outputs[MODEL_FILE].sha256
    else:
        manifest = read_manifest(folder, "run")
        state = read_state(folder)
        if state is None:
            raise MakegptError(f"{folder} has no saved state yet; train it on, or wait for its first validation")
        path = folder / LAST / state.weights
        sha256 = state.files[state.weights].sha256
    config = read_model_config(folder)
    if config.has_encoder and not encoder_decoder:
        raise UsageError(
            f"{folder} is an encoder-decoder, which writes what belongs to a source; use `generate {folder} SOURCE`, "
            f"`evaluate {folder}` or `plot attention {folder} --prompt SOURCE`"
        )
    classes = read_classes(folder) if config.n_classes else ()
    if classes and not classifier:
        raise UsageError(
            f"{folder} is a classifier ({_listed(classes)}), which predicts no tokens; use `classify {folder} TEXT`, or "
            f"`evaluate {folder}`"
        )
    if classifier and not classes:
        raise UsageError(
            f"{folder} is no classifier; `train DATASET -o RUN --task classify --init-from {folder}` makes one of it"
        )
    if len(classes) != (config.n_classes or 0):
        raise MakegptError(f"{folder}: it names {len(classes)} classes, the model has {config.n_classes}; train again")
    tokenizer = load_tokenizer(folder)
    if tokenizer.vocab_size != config.vocab_size:
        raise MakegptError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model {config.vocab_size}; train again"
        )
    options = _read_finetuning(folder) if weights == "last" else Finetuning()
    if options.finetune == "all":
        model = load_model(config, path, device)
    else:
        model = load_finetuned(config, _base_weights(folder, manifest), path, options, device)
    return TrainedModel(model.eval(), tokenizer, config, sha256, classes)


def _read_finetuning(folder: Path) -> Finetuning:
    """Which weights the training in `folder` changes: those that its checkpoints hold."""
    try:
        return from_json(Finetuning, read_json(folder / CONFIG_FILE).get("train", {}), "train")
    except RecordError as error:
        raise MakegptError(f"{folder / CONFIG_FILE} is damaged: {error}; train the run again") from None


def _base_weights(folder: Path, manifest: Manifest) -> Path:
    """The weights that the training in `folder` starts from."""
    for name in manifest.inputs:
        path = (folder / name / MODEL_FILE).resolve()
        if path.is_file() and sha256_of(path) == manifest.metadata.get("init_from"):
            return path
    raise MakegptError(
        f"{folder} has saved only the weights that it trains, and the run with the others is not where it was, or has changed; "
        f"put it back, or finish the training: `{manifest.command}`"
    )


def read_model_config(folder: Path) -> ModelConfig:
    """The model of the run in `folder`. An option that its config lacks is younger than the run, and off: as in GPT-2."""
    saved = read_json(folder / CONFIG_FILE)
    if not isinstance(saved, dict) or not isinstance(saved.get("model"), dict):
        raise MakegptError(f"{folder / CONFIG_FILE} is damaged: it describes no model; train the run again")
    config: ModelConfig = build_section("model", GPT_2 | saved["model"], str(folder / CONFIG_FILE))
    return config


def read_classes(folder: Path) -> tuple[str, ...]:
    """The names of the classes of the classifier in `folder`."""
    saved = read_json(folder / CONFIG_FILE)
    try:
        return from_json(ClassNames, saved.get("classes") if isinstance(saved, dict) else None, "classes").names
    except RecordError as error:
        raise MakegptError(f"{folder / CONFIG_FILE} is damaged: {error}; train the run again") from None


def read_chat_template(folder: Path) -> ChatTemplate | None:
    """How the model of the run in `folder` expects conversations; None if it is not said to know any."""
    return template_in(folder / CONFIG_FILE)


def chat_template_source(folder: Path, manifest: Manifest) -> str | None:
    """The chat template of the run in `folder` in Jinja's language: as it was imported, else that of the template it knows."""
    source: str | None = manifest.metadata.get(CHAT_TEMPLATE)
    template = None if source else read_chat_template(folder)
    return template.jinja() if template else source


def is_imported(manifest: Manifest) -> bool:
    """Whether a run's weights come from elsewhere: it was never trained here, and has no dataset and no losses."""
    return manifest.stage == IMPORT_STAGE


def is_gpt2_release(folder: Path, tokenizer: Tokenizer) -> bool:
    """Whether the run in `folder` is an imported model with GPT-2's tokenizer, whose texts begin with `<|endoftext|>`."""
    return tokenizer.kind == "gpt2" and is_imported(read_manifest(folder, "run"))


def finished_manifest(folder: Path) -> Manifest:
    """The manifest of the run in `folder`; MakegptError if its training is not finished."""
    manifest = read_manifest(folder, "run")
    if not (folder / MODEL_FILE).is_file() or MODEL_FILE not in manifest.outputs:
        raise MakegptError(f"{folder} has no finished {MODEL_FILE}; resume it with `{manifest.command}`")
    try:
        from_json(ImportedMetadata if is_imported(manifest) else TrainedMetadata, manifest.metadata, "metadata")
    except RecordError as error:
        raise MakegptError(f"{folder / MANIFEST} is damaged: {error}; train the run again") from None
    return manifest


def dataset_folder(folder: Path) -> Path:
    """The dataset that the run in `folder` was trained on; MakegptError if it has moved or is another now."""
    manifest = read_manifest(folder, "run")
    if is_imported(manifest):
        raise MakegptError(f"{folder} was imported, so it has no dataset; name one: `evaluate {folder} DATASET`")
    again = f"name it: `evaluate {folder} DATASET`; the command that trained the run, with that DATASET, records its new place"
    return input_folder(folder, manifest, again)


def sessions_of(folder: Path, manifest: Manifest) -> tuple[Session, ...]:
    """The sessions of the training in `folder`; of one that continues, or was killed, up to the last saved state."""
    *before, last = manifest.sessions
    if last.to_step is not None:
        return manifest.sessions
    saved = folder / LAST / STATE
    step = read_json(saved).get("step", 0) if saved.is_file() else 0
    return (*before, replace(last, to_step=step))
