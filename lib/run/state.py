"""The saved state of a training, from which it can be resumed: checkpoint/state.json, and the files that it names."""

from dataclasses import dataclass, field
from pathlib import Path

from lib.artifact.io import read_json
from lib.artifact.json_shape import COUNT, NUMBER, POSITIVE, JsonShape, first_mismatch
from lib.artifact.manifest import FileDigest, verify_files
from lib.errors import MakegptError

CHECKPOINT_FOLDER = "checkpoint"
STATE_FILE = "state.json"


@dataclass(kw_only=True)
class SavedState:
    """checkpoint/state.json: which files are the state after `step`, and which hold the best weights so far."""

    step: int
    best_step: int | None  # None before the first validation
    best_val_loss: float | None
    threads: int
    device: str
    processes: int = 1
    precision: str = "torch.float32"
    loss_scale: tuple[float, int] | None = None  # and the step since which it is that
    files: dict[str, FileDigest] = field(default_factory=dict)  # filled in when it is saved
    metrics_bytes: int = 0
    samples_bytes: int = 0

    @property
    def weights(self) -> str:
        return weights_name(self.step)

    @property
    def best_weights(self) -> str | None:
        return None if self.best_step is None else weights_name(self.best_step)

    @property
    def optimizer(self) -> str:
        return f"optimizer-{self.step:08d}.safetensors"


def read_state(folder: Path) -> SavedState | None:
    """The last saved state of the run in `folder`, its files verified; None if there is none yet."""
    last = folder / CHECKPOINT_FOLDER
    if not (last / STATE_FILE).is_file():
        return None
    saved = read_json(last / STATE_FILE)
    try:
        if (place := first_mismatch(saved, _STATE)) is not None:
            raise ValueError(place)
        files = {name: FileDigest(**digest) for name, digest in saved["files"].items()}
        state = SavedState(**saved | {"files": files})
        if not {state.weights, state.optimizer, state.best_weights or state.weights} <= state.files.keys():
            raise ValueError("files")
    except (TypeError, ValueError):
        raise MakegptError(f"{last / STATE_FILE} is damaged") from None
    verify_files(last, state.files)
    return state


#: What is relied on in checkpoint/state.json; an older one may have less.
_STATE: JsonShape = {
    "step": COUNT,
    "best_step?": COUNT,
    "best_val_loss?": NUMBER,
    "threads": POSITIVE,
    "device": str,
    "processes?": POSITIVE,
    "precision?": str,
    "loss_scale?": [NUMBER],
    "files": {"*": {"bytes": COUNT, "sha256": str}},
    "metrics_bytes?": COUNT,
    "samples_bytes?": COUNT,
}


def weights_name(step: int) -> str:
    """The file in checkpoint/ that holds the weights after `step`."""
    return f"weights-{step:08d}.safetensors"
