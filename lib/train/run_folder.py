"""The run folder of a training that is to begin or to resume: locked, looked at, cleared or cut back to its checkpoint."""

import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from lib.artifact.folders import check_replaceable
from lib.artifact.io import write_json
from lib.artifact.jsonl import truncate_lines
from lib.artifact.lock import hold_lock
from lib.artifact.manifest import MANIFEST, Manifest, read_manifest, write_manifest
from lib.errors import MakegptError, UsageError
from lib.run.folder import (
    ADAPTER_FILE,
    CONFIG_FILE,
    DIVERGED_FILE,
    EVALUATION_FILE,
    LOSS_FIGURE_FILE,
    MODEL_FILE,
    REPORT_FILE,
    SAMPLE_FILE,
    is_imported,
)
from lib.run.metrics import METRICS_FILE, TIMINGS_FILE
from lib.run.samples import SAMPLES_FILE
from lib.run.state import CHECKPOINT_FOLDER, STATE_FILE, SavedState, read_state
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.registry import TOKENIZER_FILE

#: What is removed when a run starts over: all that the older training and the stages after it wrote.
_WRITTEN = (
    MODEL_FILE,
    ADAPTER_FILE,
    EVALUATION_FILE,
    SAMPLE_FILE,
    LOSS_FIGURE_FILE,
    REPORT_FILE,
    DIVERGED_FILE,
    METRICS_FILE,
    TIMINGS_FILE,
    SAMPLES_FILE,
    CONFIG_FILE,
    TOKENIZER_FILE,
)


class RunFolder:
    """A run folder open for training; hold it in `with RunFolder(path).locked():`."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        check_replaceable(self.path, "run")
        if (manifest := self.manifest()) and is_imported(manifest):
            raise UsageError(f"{path} holds imported weights; use another -o, and start from them with --init-from {path}")

    def locked(self) -> AbstractContextManager[str | None]:
        """Keep other trainings out, or yield why that is not possible; MakegptError if another one is running."""
        return hold_lock(self.path)

    def manifest(self) -> Manifest | None:
        """The manifest of the training that was begun here, if one was."""
        return read_manifest(self.path, "run") if (self.path / MANIFEST).exists() else None

    def is_finished(self) -> bool:
        """Whether the finished weights are there."""
        return (self.path / MODEL_FILE).is_file()

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return (self.path / CHECKPOINT_FOLDER / STATE_FILE).is_file()

    def start_over(self, manifest: Manifest, parameters: dict[str, Any], tokenizer: Tokenizer) -> None:
        """Clear the folder of an older training, and write what is known at the start."""
        (self.path / CHECKPOINT_FOLDER / STATE_FILE).unlink(missing_ok=True)
        for name in _WRITTEN:
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / CHECKPOINT_FOLDER, ignore_errors=True)
        self.record(manifest)  # first: from here on the folder is known as a run
        write_json(self.path / CONFIG_FILE, parameters)
        tokenizer.save(self.path / TOKENIZER_FILE)
        (self.path / CHECKPOINT_FOLDER).mkdir()

    def resume(self, manifest: Manifest) -> None:
        """Record a session that continues the training."""
        self.record(manifest)
        (self.path / DIVERGED_FILE).unlink(missing_ok=True)

    def record(self, manifest: Manifest) -> None:
        """Replace the manifest."""
        write_manifest(self.path, manifest)

    def load_state(self) -> SavedState | None:
        """The state to resume from, its files verified, metrics and samples cut back to it; None if there is none yet."""
        try:
            if state := read_state(self.path):
                truncate_lines(self.path / METRICS_FILE, state.metrics_bytes)
                truncate_lines(self.path / SAMPLES_FILE, state.samples_bytes)
        except MakegptError as error:
            raise MakegptError(f"{self.path} cannot be resumed: {error}; start over with --resume never") from None
        return state
