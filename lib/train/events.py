"""What a training reports as it runs: `lib` prints nothing, so the loop yields these."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Notice:
    """Something worth saying that is not a step."""

    text: str


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """What one step did, a line of metrics.jsonl. Losses in nats/token; `step` and `tokens` count what is done so far."""

    step: int
    tokens: int
    train_loss: float | None
    val_loss: float | None
    lr: float | None
    grad_norm: float | None


@dataclass(frozen=True)
class Logged:
    """The metrics of a step were written, with a line of timings.jsonl; `seconds_left` is an estimate."""

    metrics: StepMetrics
    timing: dict[str, Any]
    seconds_left: float


@dataclass(frozen=True)
class Stopped:
    """The training was asked to stop; the checkpoint of `step` is on disk."""

    step: int


Event = Notice | StepMetrics | Logged | Stopped
