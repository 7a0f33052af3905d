"""The metrics and timings of a training: what it writes at each logged step, read back."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from lib.artifact.jsonl import read_lines
from lib.artifact.record import Count
from lib.errors import MakegptError
from lib.run.folder import finished_manifest, is_imported

METRICS_FILE = "metrics.jsonl"
TIMINGS_FILE = "timings.jsonl"


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """What one step did, a line of metrics.jsonl. Losses in nats/token; `step` and `tokens` count what is done so far."""

    step: Count
    tokens: Count
    train_loss: float | None  # of this step's batch; None at step 0
    val_loss: float | None  # None at a step without validation
    lr: float | None
    grad_norm: float | None
    values: dict[str, float] = field(default_factory=dict)  # other means over the batch, and, as val_…, over what is held out


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How fast the steps were since the line before this one, a line of timings.jsonl."""

    step: Count
    seconds: float  # validations and checkpoints included
    tokens_per_second: float  # in the training steps alone
    mfu: float  # FLOP/s of the steps as a fraction of what plain matrix products reach here
    memory: Count  # the most bytes used so far


def read_metrics(folder: Path) -> list[StepMetrics]:
    """The metrics of the training in `folder`, at least one with a validation loss; MakegptError if they are damaged."""
    path = folder / METRICS_FILE
    try:
        metrics = read_lines(path, StepMetrics)
        if all(line.val_loss is None for line in metrics):
            raise ValueError("no line has a val_loss")
        return metrics
    except FileNotFoundError:
        advice = (
            "it was imported, and has no losses to show" if is_imported(finished_manifest(folder)) else "train the run first"
        )
        raise MakegptError(f"{path} is missing; {advice}") from None
    except ValueError as error:
        raise MakegptError(f"{path} is damaged: {error}; train the run again") from None


def read_timings(folder: Path) -> list[Timing]:
    """The timings of the training in `folder`; none if the file is missing or damaged, since nothing else rests on them."""
    try:
        return read_lines(folder / TIMINGS_FILE, Timing)
    except (FileNotFoundError, ValueError):
        return []


def training_seconds(folder: Path) -> float | None:
    """Time spent on the training, steps done twice because of a kill included; None if timings.jsonl does not say."""
    timings = read_timings(folder)
    seconds = sum(timing.seconds for timing in timings)
    return seconds if timings and math.isfinite(seconds) else None
