"""The training loop: step, validate, log, sample, checkpoint, stop. `lib/train/naive.py` is the loop without all that."""

from dataclasses import replace
from typing import Callable, Iterator

from lib.run.metrics import StepMetrics
from lib.train.events import Event, Logged, Stopped
from lib.train.objective import Validation
from lib.train.throughput import ThroughputMeter
from lib.train.trainer import Trainer
from lib.train.writer import RunWriter


def train_loop(trainer: Trainer, writer: RunWriter, stop_asked: Callable[[], bool]) -> Iterator[Event]:
    """Train from the trainer's state to the last step, then publish its weights; or stop when asked to.

    Every process of a group runs this loop; only the main one has a writer that writes.
    """
    config, state = trainer.config, trainer.state
    meter = ThroughputMeter(trainer)
    if state.step == 0:  # the loss of the initial weights
        start = StepMetrics(step=0, tokens=0, train_loss=None, val_loss=None, lr=None, grad_norm=None)
        metrics = _with_validation(start, trainer.validate())
        writer.log(metrics)
        writer.sample(trainer, metrics)
        yield metrics
    while state.step < config.max_steps:
        with meter.step():
            metrics = trainer.train_step()
        is_last = state.step == config.max_steps

        validated = is_last or _is_due(state.step, config.eval_interval)
        if validated:
            metrics = _with_validation(metrics, trainer.validate())
            state.keep(metrics, config.publish)

        logged = validated or _is_due(state.step, config.log_interval)
        if logged:
            writer.log(metrics)
        writer.sample(trainer, metrics)
        yield metrics

        stopping = not is_last and trainer.group.any(stop_asked(), trainer.device)
        if validated or stopping or _is_due(state.step, config.checkpoint_interval):
            writer.checkpoint(trainer)
        if trainer.group.is_main and (logged or stopping):
            timing = meter.timing(state.step)
            writer.time(timing)
            if logged:
                yield Logged(metrics, timing, meter.seconds_left(state.step))
        if stopping:
            writer.stop(state.step)
            trainer.group.barrier()  # a process that left earlier would have torchrun end the one that still writes
            yield Stopped(state.step)
            return
    writer.publish()


def _with_validation(metrics: StepMetrics, validation: Validation) -> StepMetrics:
    values = {f"val_{name}": value for name, value in validation.values.items()}
    return replace(metrics, val_loss=validation.loss, values=metrics.values | values)


def _is_due(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0
