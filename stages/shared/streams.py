"""Standard streams and log messages: stdout is data, stderr is for people, and no character fails to print."""

import io
import logging
import os
import sys
import warnings
from contextlib import contextmanager, suppress
from typing import Any, Callable, Iterator

import click

from lib.errors import IgnoredFileWarning

_QUIET_KEY = f"{__name__}.quiet"  # in a context's meta


def say(message: str) -> None:
    """Print a log message to stderr, unless --quiet was given."""
    if not is_quiet():
        click.echo(printable(message), err=True)


def set_quiet() -> None:
    """Print no log messages from here on, as with --quiet."""
    click.get_current_context().meta[_QUIET_KEY] = True


def is_quiet() -> bool:
    """Whether --quiet was given, or `set_quiet` was called."""
    return bool(click.get_current_context().meta.get(_QUIET_KEY))


def printable(line: str) -> str:
    """The same line, with an escape for each byte of a name that is not UTF-8."""
    return line.encode("utf-8", "backslashreplace").decode("utf-8")


@contextmanager
def forward_project_warnings(say: Callable[[str], None]) -> Iterator[None]:
    """Print IgnoredFileWarning warnings as log messages, each once; all other warnings stay Python's."""
    with warnings.catch_warnings():
        show_others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, IgnoredFileWarning):
                say(str(message))
            else:
                show_others(message, category, *rest, **more)

        warnings.simplefilter("once", IgnoredFileWarning)
        warnings.showwarning = show
        yield


def open_closed_streams() -> None:
    """Give a command that was started with a closed standard stream an empty one."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - open until the process ends


def replace_unencodable_characters() -> None:
    """Make stdout UTF-8 whatever the environment says, and let stdout and stderr escape what they cannot encode.

    That is a part of a file name that is not Unicode, or what a terminal of another encoding cannot show.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            utf8 = stream is sys.stdout and not stream.isatty()
            stream.reconfigure(encoding="utf-8" if utf8 else stream.encoding, errors="backslashreplace")


def forward_log(name: str) -> None:
    """Print the log of the package `name` as log messages, from any thread; with --debug an error has its traceback."""
    quiet, debug = is_quiet(), "--debug" in sys.argv

    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not quiet or record.levelno >= logging.ERROR:
                with suppress(OSError):  # stderr is closed
                    click.echo(printable(self.format(record)), err=True)

    class Formatter(logging.Formatter):
        def formatException(self, error: Any) -> str:  # noqa: N802 - its name in logging
            return super().formatException(error) if debug else ""

    handler = Forward()
    handler.setFormatter(Formatter())
    log = logging.getLogger(name)
    log.setLevel(logging.INFO)
    log.addHandler(handler)


def silence_other_packages() -> None:
    """Hide warnings and log lines of other packages (torch, matplotlib), which mean nothing to a user of the commands."""
    warnings.showwarning = lambda *_, **__: None
    logging.lastResort = logging.NullHandler()
