"""The metrics of a run as an event file of TensorBoard, replayed from metrics.jsonl and timings.jsonl.

A logger that writes while the training runs has a step twice where a training was killed and resumed. metrics.jsonl has each
step once, so a file that is written from it has, too, and can be written again at any time, also while the training runs.
(A TensorBoard that is open keeps the file that it has read, so start it again then.)
"""

from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Iterator, NamedTuple

from lib.artifact.files import atomic_write
from lib.artifact.manifest import read_manifest
from lib.errors import UsageError
from lib.run.metrics import StepMetrics, Timing, read_metrics, read_timings

#: The name begins as TensorBoard expects.
EVENTS_FILE = "events.out.tfevents.0.makegpt"


class Point(NamedTuple):
    """One number of one step: `seconds` since the training began, `step`, what it is, as `val/loss`, and the number."""

    seconds: float
    step: int
    tag: str
    value: float


def metric_points(folder: Path) -> Iterator[Point]:
    """All numbers that the training in `folder` has logged, by step; MakegptError if metrics.jsonl is damaged.

    Losses are in nats/token. Names of what the training and the validation logged besides become `train/NAME` and `val/NAME`.
    """
    metrics, timings = read_metrics(folder), read_timings(folder)
    spent = dict(zip((timing.step for timing in timings), accumulate(timing.seconds for timing in timings), strict=True))
    of_step = {timing.step: timing for timing in timings}
    seconds = 0.0
    for line in metrics:
        seconds = spent.get(line.step, seconds)
        for tag, value in (_metrics(line) | _speed(of_step.get(line.step))).items():
            if value is not None:
                yield Point(seconds, line.step, tag, value)


def _metrics(line: StepMetrics) -> dict[str, float | None]:
    named = {
        f"val/{name.removeprefix('val_')}" if name.startswith("val_") else f"train/{name}": value
        for name, value in line.values.items()
    }
    logged = {"train/loss": line.train_loss, "val/loss": line.val_loss, "train/lr": line.lr, "train/grad_norm": line.grad_norm}
    return {**logged, **named}


def _speed(timing: Timing | None) -> dict[str, float | None]:
    if timing is None:
        return {}
    return {"speed/tokens_per_second": timing.tokens_per_second, "speed/mfu": timing.mfu, "speed/memory": timing.memory}


def write_events(folder: Path, out: Path) -> int:
    """Write the event file of the run in `folder` into the folder `out`, replacing it atomically; return the number of points.

    The same run gives the same bytes. UsageError if the package tensorboardX is missing.
    """
    try:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.record_writer import RecordWriter
    except ImportError:
        raise UsageError("--to tensorboard needs tensorboardX; run `make setup EXTRAS=dev,tensorboard`") from None

    points = list(metric_points(folder))
    started = datetime.fromisoformat(read_manifest(folder, "run").started).timestamp()
    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(out / EVENTS_FILE) as part:
        writer = RecordWriter(str(part))
        writer.write(Event(wall_time=started, file_version="brain.Event:2").SerializeToString())
        for seconds, step, tag, value in points:
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            writer.write(Event(wall_time=started + seconds, step=step, summary=summary).SerializeToString())
        writer.close()
    return len(points)
