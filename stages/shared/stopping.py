"""When a training is to stop: asked by a signal, or when a time has run out."""

import os
import re
import signal
from contextlib import contextmanager
from typing import Iterator

import click

from stages.shared.streams import say


def seconds(ctx: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """The time `value`, such as 90s, 10m or 2h, in seconds; a bare number is seconds."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", value.strip())
    if match is None:
        raise click.BadParameter(f"{value!r} is no time; 90s, 10m or 2h would do")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


class StopSignal:
    """SIGINT or SIGTERM: noted the first time, to be obeyed after the step; the second time it acts at once."""

    number = 0

    def asked(self) -> bool:
        return self.number > 0

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Note the signals while the block runs."""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.number = number
        if "WORLD_SIZE" in os.environ:  # torchrun may tell twice, and ends itself what does not end
            say("stopping after this step")
        else:
            signal.signal(number, signal.SIG_DFL)
            say("stopping after this step; once more to stop at once")
