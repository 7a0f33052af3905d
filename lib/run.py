"""A run folder: one model's whole story, from its configuration to its finished weights.

    config.json  tokenizer.json  manifest.json      written when training begins
    metrics.jsonl  timings.jsonl                    a line a logged step
    samples.jsonl                                   a line a sample of what the model writes by then
    last/                                           the state to resume from; last/state.json is written last
    model.safetensors                               the finished weights: its presence means "done"
    evaluation.json  sample.txt  loss.png  report.html    made from it by the later stages
    diverged.json                                   of a training that met a number that is not finite: where, in which batch

An imported run (`lib.exchange`) holds config.json, tokenizer.json, manifest.json and model.safetensors at once.
Every file is replaced whole. What a kill leaves is either the state before a checkpoint or the one after.
"""

import math
import os
import shutil
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib import (
    artifact,
    checkpoint,
    fields,
    files,
    folders,
    json_reader,
    lines,
    lock,
    provenance,
    samples,
    sessions,
    tokenizer,
)
from lib import config as schema
from lib.artifact import Manifest
from lib.config import ModelConfig
from lib.errors import MakegptError, UsageError
from lib.model import LanguageModel
from lib.state import LAST as LAST
from lib.state import STATE as STATE
from lib.state import State as State
from lib.state import read_state as read_state
from lib.tokenizer import Tokenizer

MODEL = "model.safetensors"
CONFIG = "config.json"
METRICS = "metrics.jsonl"
TIMINGS = "timings.jsonl"
EVALUATION = "evaluation.json"
SAMPLE = "sample.txt"
LOSS_FIGURE = "loss.png"
REPORT = "report.html"
DIVERGED = "diverged.json"

#: The stage of a run that was not trained here, and what the manifest of a finished run must tell.
IMPORT = "import-weights"
_IMPORTED_FACTS: fields.Fields = {"parameters": fields.COUNT, "tokenizer": str}
_TRAINED_FACTS: fields.Fields = {"parameters": fields.COUNT, "best_step": fields.COUNT, "best_val_loss": fields.NUMBER}

#: What a line of metrics.jsonl holds at least; one of the lines has a validation loss.
_METRICS = {"step": fields.COUNT, "tokens?": fields.COUNT, "train_loss": fields.NUMBER | None, "val_loss": fields.NUMBER | None}

#: What is removed where a run begins anew: all that was made with the old parameters.
_MADE = (MODEL, EVALUATION, SAMPLE, LOSS_FIGURE, REPORT, DIVERGED, METRICS, TIMINGS, samples.FILE, CONFIG, tokenizer.FILE)


@dataclass(frozen=True)
class Trained:
    """A run's model, loaded; `sha256` is that of the file its weights are from."""

    model: LanguageModel
    tokenizer: Tokenizer
    config: ModelConfig
    sha256: str


def load(folder: Path, device: torch.device, weights: str = "best") -> Trained:
    """Load the model of the run in `folder`, its files verified; it is in evaluation mode.

    `weights`: "best", those a finished run has published, or "last", those of the last saved state, of an unfinished run too.
    """
    if weights == "best":
        path = folder / MODEL
        outputs = finished_manifest(folder)["outputs"]
        artifact.verify(folder, outputs)
        sha256 = outputs[MODEL]["sha256"]
    else:
        artifact.read_manifest(folder, "run")
        state = read_state(folder)
        if state is None:
            raise MakegptError(f"{folder} has no saved state yet; train it on, or wait for its first validation")
        path = folder / LAST / state.weights
        sha256 = state.files[state.weights]["sha256"]
    config = read_config(folder)
    made = tokenizer.load(folder)
    if made.vocab_size != config.vocab_size:
        raise MakegptError(f"{folder}: the tokenizer has {made.vocab_size} tokens, the model {config.vocab_size}; train again")
    built = checkpoint.build(config, path, device)
    return Trained(built.eval(), made, config, sha256)


def read_config(folder: Path) -> ModelConfig:
    """The model of the run in `folder`."""
    saved = artifact.read_json(folder / CONFIG)
    if fields.damaged(saved, {"model": dict}) is not None:
        raise MakegptError(f"{folder / CONFIG} is damaged: it describes no model; train the run again")
    config: ModelConfig = schema.build_section("model", schema.MEANT["model"] | saved["model"], str(folder / CONFIG))
    return config


def imported(manifest: Manifest) -> bool:
    """Whether a run's weights come from elsewhere: it was never trained here, and has no dataset and no losses."""
    return manifest.get("stage") == IMPORT


def is_gpt2_release(folder: Path, made: Tokenizer) -> bool:
    """Whether the run in `folder` is an imported model with GPT-2's tokenizer, whose texts begin with `<|endoftext|>`."""
    return made.kind == "gpt2" and imported(artifact.read_manifest(folder, "run"))


def finished_manifest(folder: Path) -> Manifest:
    """The manifest of the run in `folder`; MakegptError where its training is not finished."""
    manifest = artifact.read_manifest(folder, "run")
    if not (folder / MODEL).is_file() or MODEL not in manifest["outputs"]:
        raise MakegptError(f"{folder} has no finished {MODEL}; go on with `{manifest.get('command', 'train')}`")
    if fields.damaged(manifest["facts"], _IMPORTED_FACTS if imported(manifest) else _TRAINED_FACTS) is not None:
        raise MakegptError(
            f"{folder / artifact.MANIFEST} is damaged: its facts are not those of a finished run; train it again"
        )
    return manifest


def dataset_folder(folder: Path) -> Path:
    """The dataset that the run in `folder` was trained on; MakegptError where it has moved or is another now."""
    manifest = artifact.read_manifest(folder, "run")
    if imported(manifest):
        raise MakegptError(f"{folder} was imported, so it has no dataset of its own; name one: `evaluate {folder} DATASET`")
    again = f"name it: `evaluate {folder} DATASET`; the command that trained the run, with that DATASET, records its new place"
    return artifact.input_folder(folder, manifest, again)


def sessions_of(folder: Path, manifest: Manifest) -> list[dict[str, Any]]:
    """The sessions of the training in `folder`; of one that goes on, or was killed, up to the last saved state."""
    found = sessions.of(manifest)
    if found[-1]["to_step"] is not None:
        return found
    if MODEL in manifest["outputs"]:
        return sessions.ended_at(found, manifest["parameters"].get("train", {}).get("max_steps", 0), manifest.get("ended"))
    saved = folder / LAST / STATE
    step = artifact.read_json(saved).get("step", 0) if saved.is_file() else 0
    return [*found[:-1], found[-1] | {"to_step": step}]


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    path = folder / METRICS
    try:
        found = json_reader.load_lines(path)
        if fields.damaged(found, [_METRICS]) is not None or all(line["val_loss"] is None for line in found):
            raise ValueError
        return found
    except FileNotFoundError:
        advice = "it was imported, and has no losses to show" if imported(finished_manifest(folder)) else "train the run first"
        raise MakegptError(f"{path} is missing; {advice}") from None
    except ValueError:
        raise MakegptError(f"{path} is damaged: it holds lines that are no metrics; train the run again") from None


def seconds(folder: Path) -> float | None:
    """Time spent on the training, steps done twice because of a kill included; None where timings.jsonl cannot tell."""
    try:
        timings = json_reader.load_lines(folder / TIMINGS)
        spent = sum(float(line["seconds"]) for line in timings)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return spent if timings and math.isfinite(spent) else None


class RunFolder:
    """A run folder open for training; hold it in `with RunFolder(path).locked():`."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        folders.check_replaceable(self.folder, "run")
        if (begun := self.begun()) and imported(begun):
            raise UsageError(f"{folder} holds imported weights; choose another -o, and begin with them by --init-from {folder}")

    def locked(self) -> AbstractContextManager[str | None]:
        """Keep other trainings out, or yield why that cannot be done; MakegptError where one is at work already."""
        return lock.hold(self.folder)

    def begun(self) -> Manifest | None:
        """The manifest of the training that was begun here, if one was."""
        return artifact.read_manifest(self.folder, "run") if (self.folder / artifact.MANIFEST).exists() else None

    def finished(self) -> bool:
        """Whether the finished weights are there."""
        return (self.folder / MODEL).is_file()

    def begin(self, manifest: Manifest, config: dict[str, Any], made: Tokenizer) -> None:
        """Clear the folder of what an older training made, and write what is known at the start."""
        (self.folder / LAST / STATE).unlink(missing_ok=True)
        for name in _MADE:
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / LAST, ignore_errors=True)
        artifact.write_json(self.folder / artifact.MANIFEST, manifest)  # first: from here on the folder is known as a run
        artifact.write_json(self.folder / CONFIG, config)
        made.save(self.folder / tokenizer.FILE)
        (self.folder / LAST).mkdir()

    def record(self, manifest: Manifest) -> None:
        """Replace the manifest."""
        artifact.write_json(self.folder / artifact.MANIFEST, manifest)

    def append(self, name: str, line: Any) -> None:
        """Append a JSON line to metrics.jsonl, timings.jsonl or samples.jsonl."""
        lines.append(self.folder / name, line)

    def save_state(self, state: State, weights: dict[str, Tensor], moments: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Write weights and moments of `state.step` beside the older ones, then make them the state, then remove the older."""
        last = self.folder / LAST
        checkpoint.save(last / state.weights, weights, facts)
        checkpoint.save(last / state.moments, moments, {"step": state.step})
        names = {state.weights, state.moments, state.best_weights or state.weights}
        state.files = artifact.files_of(last, sorted(names))
        state.metrics_bytes = lines.flushed_size(self.folder / METRICS)
        state.samples_bytes = lines.flushed_size(self.folder / samples.FILE)
        artifact.write_json(last / STATE, asdict(state))
        for entry in last.iterdir():
            if entry.name != STATE and entry.name not in state.files:
                entry.unlink()

    def load_state(self) -> State | None:
        """The state to resume from, its files verified, metrics and samples cut to it; None where there is none yet."""
        try:
            if state := read_state(self.folder):
                lines.cut(self.folder / METRICS, state.metrics_bytes)
                lines.cut(self.folder / samples.FILE, state.samples_bytes)
        except MakegptError as error:
            raise MakegptError(f"{self.folder} cannot be resumed: {error}; begin anew with --resume never") from None
        return state

    def publish(self, state: State, manifest: Manifest) -> None:
        """Finish the run: the manifest with all outputs, then, last of all, the best weights as model.safetensors."""
        assert state.best_weights is not None
        best = self.folder / LAST / state.best_weights
        sampled = [samples.FILE] if (self.folder / samples.FILE).is_file() else []
        outputs = artifact.files_of(self.folder, [CONFIG, tokenizer.FILE, METRICS, *sampled])
        outputs[MODEL] = artifact.files_of(best.parent, [best.name])[best.name]
        ended = provenance.now()
        closed = sessions.ended_at(manifest["sessions"], state.step, ended)
        finished = manifest | {"outputs": outputs, "ended": ended, "sessions": closed}
        finished["facts"] = manifest["facts"] | {"best_step": state.best_step, "best_val_loss": state.best_val_loss}
        self.record(finished)
        with artifact.replacing(self.folder / MODEL) as beside:
            beside.unlink()
            with files.courtesy():
                os.link(best, beside)  # the same bytes, stored once
            if not beside.exists():  # a file system without links
                shutil.copyfile(best, beside)
