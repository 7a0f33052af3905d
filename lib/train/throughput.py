"""How a training gets on: seconds, tokens/s, how much of the machine's arithmetic that is, memory, time left."""

import time
from contextlib import contextmanager
from typing import Any, Iterator

from lib.device.hardware import matmul_rate, peak_memory
from lib.model.registry import count_operations
from lib.train.trainer import Trainer

_SECONDS_BETWEEN_LOOKS = 30.0


class ThroughputMeter:
    """Time spent since the last line of timings.jsonl: in all, and in the training steps alone."""

    def __init__(self, trainer: Trainer) -> None:
        config, built = trainer.config, trainer.model
        self._tokens_a_step = config.batch_size * trainer.dataset.context_length
        self._device, self._precision, self._processes = trainer.device, trainer.precision, trainer.world.size
        self._operations_a_token = count_operations(built)
        self._ceiling = 0.0
        self._find_ceiling()
        self._steps_left_from = (trainer.step, config.max_steps)
        self._began_all = time.perf_counter()
        self._restart(self._began_all)

    def _find_ceiling(self) -> None:
        """What all processes' products come to, in operations a second: the best of several looks, some may be disturbed."""
        rate = matmul_rate(self._device, dtype=self._precision) * self._processes
        self._ceiling, self._looked = max(self._ceiling, rate), time.perf_counter()

    def _restart(self, now: float) -> None:
        self._began, self._steps, self._stepping = now, 0, 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Count the block as one step."""
        began = time.perf_counter()
        yield
        self._steps += 1
        self._stepping += time.perf_counter() - began

    def line(self, step: int) -> dict[str, Any]:
        """A line of timings.jsonl after `step`, and begin the next one.

        `seconds` since the line before, or since the session began, validations and saving included; tokens/s
        in the steps alone, and as a share of what bare matrix products would do; the most bytes of memory held so far.
        """
        now = time.perf_counter()
        if now - self._looked > _SECONDS_BETWEEN_LOOKS:
            self._find_ceiling()
        seconds, rate = now - self._began, self._steps * self._tokens_a_step / self._stepping
        self._restart(now)
        return {
            "step": step,
            "seconds": round(seconds, 4),
            "tokens_per_second": round(rate, 1),
            "mfu": round(rate * self._operations_a_token / self._ceiling, 4),
            "memory": peak_memory(self._device),
        }

    def seconds_left(self, step: int) -> float:
        """Until the last step, validations included, at the pace of this session."""
        first, last = self._steps_left_from
        return (time.perf_counter() - self._began_all) / (step - first) * (last - step)
