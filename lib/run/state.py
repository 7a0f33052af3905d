"""The saved state of a training, from which it can be resumed: checkpoint/state.json, and the files that it names."""

from dataclasses import dataclass, field
from pathlib import Path

from lib.artifact.io import read_json
from lib.artifact.manifest import FileDigest, verify_files
from lib.artifact.record import Count, Positive, RecordError, from_json
from lib.errors import MakegptError

CHECKPOINT_FOLDER = "checkpoint"
STATE_FILE = "state.json"
REFERENCE_FILE = "reference.safetensors"


@dataclass(frozen=True, kw_only=True)
class SavedState:
    """checkpoint/state.json: which files are the state after `step`, and which hold the weights to be published."""

    step: Count
    published_step: Count | None  # None before the first validation
    published_val_loss: float | None
    threads: Positive
    device: str
    processes: Positive = 1
    precision: str = "torch.float32"
    loss_scale: tuple[float, Count] | None  # with the step at which it was set; None but in float16
    files: dict[str, FileDigest] = field(default_factory=dict)  # filled in when it is saved
    metrics_bytes: Count = 0  # the sizes of metrics.jsonl and samples.jsonl, to which they are truncated
    samples_bytes: Count = 0

    @property
    def weights(self) -> str:
        return weights_name(self.step)

    @property
    def published_weights(self) -> str | None:
        return None if self.published_step is None else weights_name(self.published_step)

    @property
    def reference(self) -> str | None:
        """The file of what never changes in a training that compares its model with the one that it started from."""
        return REFERENCE_FILE if REFERENCE_FILE in self.files else None

    @property
    def optimizer(self) -> str:
        return f"optimizer-{self.step:08d}.safetensors"


def read_state(folder: Path) -> SavedState | None:
    """The last saved state of the run in `folder`, its files verified; None if there is none yet."""
    last = folder / CHECKPOINT_FOLDER
    if not (last / STATE_FILE).is_file():
        return None
    try:
        state = from_json(SavedState, read_json(last / STATE_FILE))
        for name in (state.weights, state.optimizer, state.published_weights or state.weights):
            if name not in state.files:
                raise RecordError(f"files.{name}", "is missing")
    except RecordError as error:
        raise MakegptError(f"{last / STATE_FILE} is damaged: {error}") from None
    verify_files(last, state.files)
    return state


def weights_name(step: int) -> str:
    """The file in checkpoint/ that holds the weights after `step`."""
    return f"weights-{step:08d}.safetensors"
