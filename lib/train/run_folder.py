"""A run folder while a model is trained: begun, appended to, checkpointed, finished."""

import os
import shutil
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from lib.artifact.files import atomic_write, ignore_unsupported
from lib.artifact.folders import check_replaceable
from lib.artifact.io import write_json
from lib.artifact.jsonl import append_line, flushed_size, truncate_lines
from lib.artifact.lock import hold_lock
from lib.artifact.manifest import MANIFEST, Manifest, describe_files, read_manifest
from lib.artifact.provenance import timestamp
from lib.artifact.tensors import save_tensors
from lib.errors import MakegptError, UsageError
from lib.run.folder import (
    CONFIG_FILE,
    DIVERGED_FILE,
    EVALUATION_FILE,
    LOSS_FIGURE_FILE,
    METRICS_FILE,
    MODEL_FILE,
    REPORT_FILE,
    SAMPLE_FILE,
    TIMINGS_FILE,
    is_imported,
)
from lib.run.samples import SAMPLES_FILE
from lib.run.sessions import end_session
from lib.run.state import CHECKPOINT_FOLDER as LAST
from lib.run.state import STATE_FILE as STATE
from lib.run.state import SavedState as State
from lib.run.state import read_state
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.registry import TOKENIZER_FILE

#: What is removed where a run begins anew: all that was made with the old parameters.
_MADE = (
    MODEL_FILE,
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

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        check_replaceable(self.folder, "run")
        if (begun := self.begun()) and is_imported(begun):
            raise UsageError(f"{folder} holds imported weights; choose another -o, and begin with them by --init-from {folder}")

    def locked(self) -> AbstractContextManager[str | None]:
        """Keep other trainings out, or yield why that cannot be done; MakegptError where one is at work already."""
        return hold_lock(self.folder)

    def begun(self) -> Manifest | None:
        """The manifest of the training that was begun here, if one was."""
        return read_manifest(self.folder, "run") if (self.folder / MANIFEST).exists() else None

    def finished(self) -> bool:
        """Whether the finished weights are there."""
        return (self.folder / MODEL_FILE).is_file()

    def begin(self, manifest: Manifest, config: dict[str, Any], made: Tokenizer) -> None:
        """Clear the folder of what an older training made, and write what is known at the start."""
        (self.folder / LAST / STATE).unlink(missing_ok=True)
        for name in _MADE:
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / LAST, ignore_errors=True)
        write_json(self.folder / MANIFEST, manifest)  # first: from here on the folder is known as a run
        write_json(self.folder / CONFIG_FILE, config)
        made.save(self.folder / TOKENIZER_FILE)
        (self.folder / LAST).mkdir()

    def record(self, manifest: Manifest) -> None:
        """Replace the manifest."""
        write_json(self.folder / MANIFEST, manifest)

    def append(self, name: str, line: Any) -> None:
        """Append a JSON line to metrics.jsonl, timings.jsonl or samples.jsonl."""
        append_line(self.folder / name, line)

    def save_state(
        self, state: State, weights: dict[str, Tensor], optimizer_state: dict[str, Tensor], metadata: dict[str, Any]
    ) -> None:
        """Write weights and moments of `state.step` beside the older ones, then make them the state, then remove the older."""
        last = self.folder / LAST
        save_tensors(last / state.weights, weights, metadata)
        save_tensors(last / state.optimizer, optimizer_state, {"step": state.step})
        names = {state.weights, state.optimizer, state.best_weights or state.weights}
        state.files = describe_files(last, sorted(names))
        state.metrics_bytes = flushed_size(self.folder / METRICS_FILE)
        state.samples_bytes = flushed_size(self.folder / SAMPLES_FILE)
        write_json(last / STATE, asdict(state))
        for entry in last.iterdir():
            if entry.name != STATE and entry.name not in state.files:
                entry.unlink()

    def load_state(self) -> State | None:
        """The state to resume from, its files verified, metrics and samples cut to it; None where there is none yet."""
        try:
            if state := read_state(self.folder):
                truncate_lines(self.folder / METRICS_FILE, state.metrics_bytes)
                truncate_lines(self.folder / SAMPLES_FILE, state.samples_bytes)
        except MakegptError as error:
            raise MakegptError(f"{self.folder} cannot be resumed: {error}; begin anew with --resume never") from None
        return state

    def publish(self, state: State, manifest: Manifest) -> None:
        """Finish the run: the manifest with all outputs, then, last of all, the best weights as model.safetensors."""
        assert state.best_weights is not None
        best = self.folder / LAST / state.best_weights
        sampled = [SAMPLES_FILE] if (self.folder / SAMPLES_FILE).is_file() else []
        outputs = describe_files(self.folder, [CONFIG_FILE, TOKENIZER_FILE, METRICS_FILE, *sampled])
        outputs[MODEL_FILE] = describe_files(best.parent, [best.name])[best.name]
        ended = timestamp()
        closed = end_session(manifest["sessions"], state.step, ended)
        finished = manifest | {"outputs": outputs, "ended": ended, "sessions": closed}
        finished["metadata"] = manifest["metadata"] | {"best_step": state.best_step, "best_val_loss": state.best_val_loss}
        self.record(finished)
        with atomic_write(self.folder / MODEL_FILE) as beside:
            beside.unlink()
            with ignore_unsupported():
                os.link(best, beside)  # the same bytes, stored once
            if not beside.exists():  # a file system without links
                shutil.copyfile(best, beside)
