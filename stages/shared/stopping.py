"""When a training stops: on a signal, or after a duration."""

import os
import re
import signal
from contextlib import contextmanager
from typing import Iterator

import click

from stages.shared.streams import say


def parse_duration(ctx: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """The duration `value`, such as 90s, 10m or 2h, in seconds; a bare number is seconds."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", value.strip())
    if match is None:
        raise click.BadParameter(f"invalid duration {value!r}; use 90s, 10m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


class StopSignal:
    """SIGINT or SIGTERM: the first one stops the training after the current step, the second one at once."""

    number = 0

    def asked(self) -> bool:
        """Whether a signal was received."""
        return self.number > 0

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handle the signals while the block runs."""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.number = number
        if "WORLD_SIZE" in os.environ:  # torchrun may signal twice, and kills what does not stop
            say("stopping after this step")
        else:
            signal.signal(number, signal.SIG_DFL)
            say("stopping after this step; repeat to stop at once")
