"""How fast a training is: seconds, tokens/s, MFU, memory, time left."""

import time
from contextlib import contextmanager
from typing import Iterator

from lib.device.hardware import matmul_rate, peak_memory
from lib.run.metrics import Timing
from lib.train.trainer import Trainer

_PROBE_INTERVAL = 30.0


class ThroughputMeter:
    """Time spent since the last line of timings.jsonl: in all, and in the training steps alone."""

    def __init__(self, trainer: Trainer) -> None:
        config = trainer.config
        self._tokens_per_step = trainer.objective.tokens_per_step
        self._device, self._precision, self._processes = trainer.device, trainer.precision, trainer.group.size
        self._flops_per_token = trainer.objective.operations_per_token
        self._peak_flops = 0.0
        self._probe_peak()
        self._steps_left_from = (trainer.state.step, config.max_steps)
        self._session_start = time.perf_counter()
        self._restart(self._session_start)

    def _probe_peak(self) -> None:
        """Measure the FLOP/s that plain matrix products reach in all processes; the best probe counts."""
        rate = matmul_rate(self._device, dtype=self._precision) * self._processes
        self._peak_flops, self._last_probe = max(self._peak_flops, rate), time.perf_counter()

    def _restart(self, now: float) -> None:
        self._start, self._steps, self._step_seconds = now, 0, 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Count the block as one step."""
        began = time.perf_counter()
        yield
        self._steps += 1
        self._step_seconds += time.perf_counter() - began

    def timing(self, step: int) -> Timing:
        """The timing after `step`, since the last one or since the session began; the next one counts from here."""
        now = time.perf_counter()
        if now - self._last_probe > _PROBE_INTERVAL:
            self._probe_peak()
        seconds, rate = now - self._start, self._steps * self._tokens_per_step / self._step_seconds
        self._restart(now)
        return Timing(
            step=step,
            seconds=round(seconds, 4),
            tokens_per_second=round(rate, 1),
            mfu=round(rate * self._flops_per_token / self._peak_flops, 4),
            memory=peak_memory(self._device),
        )

    def seconds_left(self, step: int) -> float:
        """Estimated seconds until the last step, validations included, at the pace of this session."""
        first, last = self._steps_left_from
        return (time.perf_counter() - self._session_start) / (step - first) * (last - step)
