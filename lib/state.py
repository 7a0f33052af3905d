"""The saved state of a training, from which it can be resumed: last/state.json, and the files that it names."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib import artifact, fields
from lib.errors import MakegptError

LAST = "last"
STATE = "state.json"


@dataclass(kw_only=True)
class State:
    """last/state.json: which files are the state after `step`, and which hold the best weights so far."""

    step: int
    best_step: int | None  # None before the first validation
    best_val_loss: float | None
    threads: int
    device: str
    processes: int = 1
    precision: str = "torch.float32"
    loss_scale: tuple[float, int] | None = None  # and the step since which it is that
    files: dict[str, dict[str, Any]] = field(default_factory=dict)  # filled in when it is saved
    metrics_bytes: int = 0
    samples_bytes: int = 0

    @property
    def weights(self) -> str:
        return weights_name(self.step)

    @property
    def best_weights(self) -> str | None:
        return None if self.best_step is None else weights_name(self.best_step)

    @property
    def moments(self) -> str:
        return f"moments-{self.step:08d}.safetensors"


def read_state(folder: Path) -> State | None:
    """The last saved state of the run in `folder`, its files verified; None where there is none yet."""
    last = folder / LAST
    if not (last / STATE).is_file():
        return None
    saved = artifact.read_json(last / STATE)
    try:
        if (place := fields.damaged(saved, _STATE)) is not None:
            raise ValueError(place)
        state = State(**saved)
        if not {state.weights, state.moments, state.best_weights or state.weights} <= state.files.keys():
            raise ValueError("files")
    except (TypeError, ValueError):
        raise MakegptError(f"{last / STATE} is damaged") from None
    artifact.verify(last, state.files)
    return state


#: What is relied on in last/state.json; an older one may have less.
_STATE: fields.Fields = {
    "step": fields.COUNT,
    "best_step?": fields.COUNT,
    "best_val_loss?": fields.NUMBER,
    "threads": fields.POSITIVE,
    "device": str,
    "processes?": fields.POSITIVE,
    "precision?": str,
    "loss_scale?": [fields.NUMBER],
    "files": {"*": {"bytes": fields.COUNT, "sha256": str}},
    "metrics_bytes?": fields.COUNT,
    "samples_bytes?": fields.COUNT,
}


def weights_name(step: int) -> str:
    """The file in last/ that holds the weights after `step`."""
    return f"weights-{step:08d}.safetensors"
