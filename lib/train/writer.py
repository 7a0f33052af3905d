"""What a training writes into its run folder, and the writer of the processes that write nothing."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib.artifact.files import atomic_write, ignore_unsupported
from lib.artifact.io import write_json
from lib.artifact.jsonl import append_line, flushed_size
from lib.artifact.manifest import Manifest, describe_files, write_manifest
from lib.artifact.provenance import timestamp
from lib.artifact.record import to_json
from lib.artifact.tensors import load_tensors, read_tensor_metadata, save_tensors
from lib.model.lora import merged_weights
from lib.run.folder import ADAPTER_FILE, CONFIG_FILE, DIVERGED_FILE, MODEL_FILE
from lib.run.metrics import METRICS_FILE, TIMINGS_FILE, StepMetrics, Timing
from lib.run.samples import SAMPLES_FILE
from lib.run.sessions import end_session
from lib.run.state import CHECKPOINT_FOLDER, REFERENCE_FILE, STATE_FILE, SavedState
from lib.run.weights import fill_weights, trained_weights
from lib.tokenizer.registry import TOKENIZER_FILE
from lib.train.samples import Sampler
from lib.train.trainer import Trainer


class RunWriter:
    """Writes one session of a training into the run folder `folder`; `metadata` goes into every checkpoint's header.
    `saved` is the checkpoint that the session resumes from, if any; without a `sampler` there are no samples.

    A kill leaves either the checkpoint before or the one after: files are written whole, state.json last.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, metadata: dict[str, Any], sampler: Sampler | None, saved: SavedState | None
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._metadata = metadata
        self._sampler = sampler
        self._saved = saved

    def log(self, metrics: StepMetrics) -> None:
        """A line of metrics.jsonl."""
        append_line(self._folder / METRICS_FILE, metrics)

    def time(self, timing: Timing) -> None:
        """A line of timings.jsonl."""
        append_line(self._folder / TIMINGS_FILE, timing)

    def sample(self, trainer: Trainer, metrics: StepMetrics) -> None:
        """A line of samples.jsonl, if a sample is due after this step."""
        if self._sampler and self._sampler.is_due(metrics):
            append_line(self._folder / SAMPLES_FILE, self._sampler.sample(trainer.model, metrics))

    def checkpoint(self, trainer: Trainer) -> None:
        """Save weights and optimizer state next to the older ones, make them the checkpoint, then remove the older."""
        folder, saved = self._folder / CHECKPOINT_FOLDER, trainer.saved_state()
        save_tensors(folder / saved.weights, trained_weights(trainer.model), self._metadata | {"step": saved.step})
        save_tensors(folder / saved.optimizer, trainer.optimizer_state(), {"step": saved.step})
        names = {saved.weights, saved.optimizer, saved.published_weights or saved.weights}
        if reference := trainer.objective.reference():
            names.add(REFERENCE_FILE)
            if not (folder / REFERENCE_FILE).exists():
                save_tensors(folder / REFERENCE_FILE, reference, self._metadata)
        saved = replace(
            saved,
            files=describe_files(folder, sorted(names)),
            metrics_bytes=flushed_size(self._folder / METRICS_FILE),
            samples_bytes=flushed_size(self._folder / SAMPLES_FILE),
        )
        write_json(folder / STATE_FILE, to_json(saved))
        for entry in folder.iterdir():
            if entry.name != STATE_FILE and entry.name not in saved.files:
                entry.unlink()
        self._saved = saved

    def stop(self, step: int) -> None:
        """Close the session in the manifest: the training was asked to stop after `step`."""
        self._record(sessions=end_session(self._manifest.sessions, step, timestamp()))

    def diverged(self, details: dict[str, Any]) -> None:
        """Keep what is known of a loss or gradient that is not finite."""
        write_json(self._folder / DIVERGED_FILE, details)

    def publish(self, trainer: Trainer) -> None:
        """Finish the run: the manifest with all outputs, then, last of all, the weights as model.safetensors."""
        saved = self._saved
        assert saved is not None, "the last step is always validated and saved"
        assert saved.published_weights is not None
        weights = self._folder / CHECKPOINT_FOLDER / saved.published_weights
        adapters = [ADAPTER_FILE] if trainer.config.finetune == "lora" else []
        for name in adapters:
            _link(weights, self._folder / name)
        if trainer.config.finetune != "all":
            weights = self._merge(trainer, weights)
        samples = [SAMPLES_FILE] if (self._folder / SAMPLES_FILE).is_file() else []
        outputs = describe_files(self._folder, [CONFIG_FILE, TOKENIZER_FILE, METRICS_FILE, *samples, *adapters])
        outputs[MODEL_FILE] = describe_files(weights.parent, [weights.name])[weights.name]
        ended = timestamp()
        self._record(
            outputs=outputs,
            ended=ended,
            sessions=end_session(self._manifest.sessions, saved.step, ended),
            metadata=self._manifest.metadata
            | {"published_step": saved.published_step, "published_val_loss": saved.published_val_loss},
        )
        if weights.name == saved.published_weights:
            _link(weights, self._folder / MODEL_FILE)
        else:  # merged, for this file alone
            weights.replace(self._folder / MODEL_FILE)

    def _merge(self, trainer: Trainer, trained: Path) -> Path:
        """A file with all weights of the model: those in `trained`, merged with the frozen ones."""
        fill_weights(trainer.model, load_tensors(trained)[0], trained)
        path = trained.parent / MODEL_FILE
        save_tensors(path, merged_weights(trainer.model), read_tensor_metadata(trained))
        return path

    def _record(self, **changes: Any) -> None:
        write_manifest(self._folder, replace(self._manifest, **changes))


def _link(source: Path, target: Path) -> None:
    """Have the file `target` be that of `source`, the same bytes, stored once."""
    with atomic_write(target) as temporary:
        temporary.unlink()
        with ignore_unsupported():
            os.link(source, temporary)
        if not temporary.exists():  # a file system without links
            shutil.copyfile(source, temporary)


class NullWriter(RunWriter):
    """The writer of a process that is not the main one: it writes nothing and makes no samples."""

    def __init__(self) -> None:
        pass

    def log(self, metrics: StepMetrics) -> None:
        pass

    def time(self, timing: Timing) -> None:
        pass

    def sample(self, trainer: Trainer, metrics: StepMetrics) -> None:
        pass

    def checkpoint(self, trainer: Trainer) -> None:
        pass

    def stop(self, step: int) -> None:
        pass

    def diverged(self, details: dict[str, Any]) -> None:
        pass

    def publish(self, trainer: Trainer) -> None:
        pass
