"""How far a work has come, told on stderr."""

import sys
import time
from contextlib import contextmanager
from typing import Iterator

import click

from stages.shared.streams import is_quiet, say
from stages.shared.terminal import columns, obeys_escapes

_SECONDS_BETWEEN_LINES = 10.0  # where stderr is no terminal
_BAR = 16  # characters


class Progress:
    """What `progress` yields: how far the work has come, said on stderr now and then."""

    def __init__(self, total: int, unit: str) -> None:
        self.total, self.unit = total, unit
        self.done = 0
        self._began = self._said = time.monotonic()

    def advance(self, count: int) -> None:
        """Note `count` more units."""
        self.done += count
        left = (time.monotonic() - self._began) * (self.total - self.done) / max(1, self.done)
        share = 100 * self.done / max(1, self.total)
        self.show(f"{self.done:,}/{self.total:,} {self.unit} ({share:.0f} %), {duration(left)} left")

    def show(self, line: str) -> None:
        """Say `line`, which tells how things are now, if the last one is some time ago."""
        if time.monotonic() - self._said >= _SECONDS_BETWEEN_LINES:
            self.note(line)

    def note(self, text: str) -> None:
        """Say `text` on a line of its own."""
        self._said = time.monotonic()
        say(text)


class _TerminalProgress(Progress):
    """The same as one line that is written over, behind a bar."""

    def show(self, line: str) -> None:
        if time.monotonic() - self._said >= 0.1 or self.done >= self.total:
            self._said = time.monotonic()
            filled = _BAR * self.done // max(1, self.total)
            full, empty = ("█", "░") if sys.stderr.encoding.lower().startswith("utf") else ("#", "-")
            bar = full * filled + empty * (_BAR - filled)
            click.echo(f"\r\033[K{f'{bar} {line}'[: columns(sys.stderr) - 1]}", err=True, nl=False)

    def note(self, text: str) -> None:
        click.echo("\r\033[K", err=True, nl=False)
        say(text)


@contextmanager
def progress(total: int, unit: str) -> Iterator[Progress]:
    """Show how far a work of `total` units has come: one living line on a terminal, else a line every 10 seconds."""
    on_terminal = obeys_escapes(sys.stderr) and not is_quiet()
    shown = (_TerminalProgress if on_terminal else Progress)(total, unit)
    try:
        yield shown
    finally:
        if on_terminal:
            click.echo("\r\033[K", err=True, nl=False)


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
