"""What a training writes into its run folder, and the writer of the processes that write nothing."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lib.artifact.files import atomic_write, ignore_unsupported
from lib.artifact.io import write_json
from lib.artifact.jsonl import append_line, flushed_size
from lib.artifact.manifest import Manifest, describe_files, write_manifest
from lib.artifact.provenance import timestamp
from lib.artifact.record import to_json
from lib.artifact.tensors import save_tensors
from lib.run.folder import CONFIG_FILE, DIVERGED_FILE, MODEL_FILE
from lib.run.metrics import METRICS_FILE, TIMINGS_FILE, StepMetrics, Timing
from lib.run.samples import SAMPLES_FILE
from lib.run.sessions import end_session
from lib.run.state import CHECKPOINT_FOLDER, STATE_FILE, SavedState
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
        weights: dict[str, Tensor] = dict(trainer.model.named_parameters())
        save_tensors(folder / saved.weights, weights, self._metadata | {"step": saved.step})
        save_tensors(folder / saved.optimizer, trainer.optimizer_state(), {"step": saved.step})
        saved = replace(
            saved,
            files=describe_files(folder, sorted({saved.weights, saved.optimizer, saved.published_weights or saved.weights})),
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

    def publish(self) -> None:
        """Finish the run: the manifest with all outputs, then, last of all, the weights as model.safetensors."""
        saved = self._saved
        assert saved is not None, "the last step is always validated and saved"
        assert saved.published_weights is not None
        weights = self._folder / CHECKPOINT_FOLDER / saved.published_weights
        samples = [SAMPLES_FILE] if (self._folder / SAMPLES_FILE).is_file() else []
        outputs = describe_files(self._folder, [CONFIG_FILE, TOKENIZER_FILE, METRICS_FILE, *samples])
        outputs[MODEL_FILE] = describe_files(weights.parent, [weights.name])[weights.name]
        ended = timestamp()
        self._record(
            outputs=outputs,
            ended=ended,
            sessions=end_session(self._manifest.sessions, saved.step, ended),
            metadata=self._manifest.metadata
            | {"published_step": saved.published_step, "published_val_loss": saved.published_val_loss},
        )
        with atomic_write(self._folder / MODEL_FILE) as temporary:
            temporary.unlink()
            with ignore_unsupported():
                os.link(weights, temporary)  # the same bytes, stored once
            if not temporary.exists():  # a file system without links
                shutil.copyfile(weights, temporary)

    def _record(self, **changes: Any) -> None:
        write_manifest(self._folder, replace(self._manifest, **changes))


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

    def publish(self) -> None:
        pass
