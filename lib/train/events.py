"""What a training reports as it runs: `lib` prints nothing, so the loop yields these."""

from dataclasses import dataclass

from lib.run.metrics import StepMetrics, Timing


@dataclass(frozen=True)
class Notice:
    """Something worth saying that is not a step."""

    text: str


@dataclass(frozen=True)
class Logged:
    """The metrics and the timing of a step were written; `seconds_left` is an estimate."""

    metrics: StepMetrics
    timing: Timing
    seconds_left: float


@dataclass(frozen=True)
class Stopped:
    """The training was asked to stop; the checkpoint of `step` is on disk."""

    step: int


Event = Notice | StepMetrics | Logged | Stopped
