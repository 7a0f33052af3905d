"""What a training begins with: weights drawn at random, those of a finished run, or its own from before.

The latter where it is the same training: `config_mismatch` says why it is not.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lib.artifact.manifest import Manifest, identity_of, verify_files
from lib.artifact.tensors import load_tensors
from lib.config.schema import IGNORED_FOR_IDENTITY, ModelConfig, TrainConfig
from lib.data.dataset import Dataset
from lib.errors import MakegptError, UsageError
from lib.model.language_model import LanguageModel
from lib.model.registry import build_model
from lib.run.folder import MODEL_FILE, finished_manifest, read_model_config
from lib.run.state import CHECKPOINT_FOLDER, STATE_FILE, SavedState
from lib.run.weights import fill_weights
from lib.train.run_folder import RunFolder

#: Parameters of a model that its weights do not depend on.
_FREE = ("drop_rate", "attention_impl", "layer_impl", "context_length")


@dataclass(frozen=True)
class InitFrom:
    """A finished run whose weights another training begins with."""

    folder: Path
    manifest: Manifest

    @property
    def sha256(self) -> str:
        """SHA-256 of the weights' file."""
        return str(self.manifest["outputs"][MODEL_FILE]["sha256"])

    @property
    def identity(self) -> str:
        """The identity of the whole run."""
        return identity_of(self.manifest)


def resolve_init_from(folder: Path, dataset: Dataset, config: ModelConfig) -> InitFrom:
    """The finished run in `folder`, to begin a training of `config` on `dataset` with.

    Raises MakegptError where the dataset was made with another tokenizer, UsageError where the design is another.
    """
    found = InitFrom(folder, finished_manifest(folder))
    if found.manifest["metadata"].get("tokenizer") != dataset.tokenizer_identity:
        raise MakegptError(
            f"{dataset.folder} was made with another tokenizer than the model of {folder}; "
            f"tokenize its text with `tokenize FILE -o TOKENS --tokenizer {folder}` and build the dataset again"
        )
    theirs, ours = asdict(read_model_config(folder)), asdict(config)
    differing = [name for name in ours if ours[name] != theirs[name] and name not in _FREE]
    if differing:
        words = [f"model.{name} is {_written(theirs[name])} in {folder}, {_written(ours[name])} here" for name in differing]
        changes = " ".join(f"--set model.{name}={_written(theirs[name])}" for name in differing)
        raise UsageError(f"a training begins with the weights of its own design alone: {', '.join(words)}; give {changes}")
    if config.positions == "learned" and config.context_length > theirs["context_length"]:
        raise UsageError(
            f"model.context_length is {config.context_length}, but {folder} has learned {theirs['context_length']} positions; "
            f"that many or fewer can be gone on with: --set model.context_length={theirs['context_length']}"
        )
    return found


def _written(value: object) -> str:
    """A parameter's value as --set takes it."""
    return "null" if value is None else str(value).lower()


def initial_model(
    folder: RunFolder, state: SavedState | None, origin: InitFrom | None, config: ModelConfig, train_config: TrainConfig
) -> LanguageModel:
    """The model with the weights of `state`, else of `origin`, else fresh ones, drawn on the CPU, so that every device starts
    alike. Of a longer table of learned positions the first rows are taken.
    """
    built = build_model(config)
    if state:
        path = folder.folder / CHECKPOINT_FOLDER / state.weights
        fill_weights(built, load_tensors(path)[0], path)
    elif origin:
        verify_files(origin.folder, {MODEL_FILE: origin.manifest["outputs"][MODEL_FILE]})
        path = origin.folder / MODEL_FILE
        tensors = load_tensors(path)[0]
        if "pos_emb.weight" in tensors:
            tensors["pos_emb.weight"] = tensors["pos_emb.weight"][: config.context_length]
        fill_weights(built, tensors, path)
    else:
        built.initialize(torch.Generator().manual_seed(train_config.seed))
    return built


def config_mismatch(manifest: Manifest, parameters: dict[str, Any], metadata: dict[str, Any]) -> str | None:
    """The first parameter or input in which a run's manifest differs from what is asked now, in words; None where none does."""
    for section, values in parameters.items():
        before = manifest["parameters"].get(section, {})
        for key, value in values.items():
            if before.get(key) != value and f"{section}.{key}" not in IGNORED_FOR_IDENTITY:
                return f"{section}.{key} was {before.get(key)}, now {value}"
    for key, difference in _DIFFERENCES.items():
        if manifest["metadata"].get(key) != metadata.get(key):
            return difference
    return None


def replaces_another_text(folder: RunFolder, manifest: Manifest, metadata: dict[str, Any], texts: list[str]) -> bool:
    """Whether a training that is there would be lost to one on other documents than its own; `texts`: the new ones' SHA-256.

    An older run does not name its documents; another dataset is taken for another text then.
    """
    before = manifest["metadata"].get("texts")
    other = before != texts if before else manifest["metadata"].get("dataset") != metadata["dataset"]
    return other and (folder.finished() or (folder.folder / CHECKPOINT_FOLDER / STATE_FILE).is_file())


def as_published(folder: Path, manifest: Manifest) -> bool:
    """Whether the finished weights in `folder` are those that its manifest lists; False where another file stands there.

    Raises MakegptError where one of the run's other files is damaged.
    """
    listed = manifest["outputs"]
    verify_files(folder, {name: file for name, file in listed.items() if name != MODEL_FILE})
    try:
        verify_files(folder, {MODEL_FILE: listed[MODEL_FILE]})
    except (KeyError, MakegptError):
        return False
    return True


_DIFFERENCES = {
    "dataset": "the dataset is another",
    "tokenizer": "the tokenizer is another",
    "init_from": "the weights it began with are others",
}
