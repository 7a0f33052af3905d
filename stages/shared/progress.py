"""Progress of a long task on stderr: a bar that is redrawn on a terminal, else a line every 10 seconds."""

import sys
import time
from contextlib import contextmanager
from typing import Iterator

import click

from stages.shared.streams import is_quiet, say
from stages.shared.terminal import columns, obeys_escapes

_LINE_INTERVAL = 10.0  # seconds, if stderr is not a terminal
_REDRAW_INTERVAL = 0.1
_BAR_WIDTH = 16  # characters
_CLEAR_LINE = "\r\033[K"


class Progress:
    """Progress as plain lines."""

    def __init__(self, total: int, unit: str) -> None:
        self.total, self.unit = total, unit
        self.done = 0
        self._start = self._last_shown = time.monotonic()

    def advance(self, count: int) -> None:
        """Count `count` more units as done."""
        self.done += count
        seconds_left = (time.monotonic() - self._start) * (self.total - self.done) / max(1, self.done)
        percent = 100 * self.done / max(1, self.total)
        self.show(f"{self.done:,}/{self.total:,} {self.unit} ({percent:.0f}%) | eta {format_duration(seconds_left)}")

    def show(self, status: str) -> None:
        """Show `status` as the current state, unless the last one was shown a moment ago."""
        if time.monotonic() - self._last_shown >= _LINE_INTERVAL:
            self.note(status)

    def note(self, message: str) -> None:
        """Print `message` on its own line, which stays."""
        self._last_shown = time.monotonic()
        say(message)


class _ProgressBar(Progress):
    """Progress as one line with a bar, redrawn in place."""

    def show(self, status: str) -> None:
        if time.monotonic() - self._last_shown >= _REDRAW_INTERVAL or self.done >= self.total:
            self._last_shown = time.monotonic()
            filled = _BAR_WIDTH * self.done // max(1, self.total)
            full, empty = ("█", "░") if sys.stderr.encoding.lower().startswith("utf") else ("#", "-")
            bar = full * filled + empty * (_BAR_WIDTH - filled)
            click.echo(_CLEAR_LINE + f"{bar} {status}"[: columns(sys.stderr) - 1], err=True, nl=False)

    def note(self, message: str) -> None:
        click.echo(_CLEAR_LINE, err=True, nl=False)
        say(message)


@contextmanager
def progress(total: int, unit: str) -> Iterator[Progress]:
    """Show the progress of a task of `total` units while the block runs."""
    on_terminal = obeys_escapes(sys.stderr) and not is_quiet()
    try:
        yield (_ProgressBar if on_terminal else Progress)(total, unit)
    finally:
        if on_terminal:
            click.echo(_CLEAR_LINE, err=True, nl=False)


def format_duration(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
