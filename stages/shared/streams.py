"""What a command says, and how it may be written: standard streams that refuse no character, warnings that are ours alone."""

import io
import logging
import os
import sys
import warnings
from contextlib import contextmanager
from typing import Any, Callable, Iterator

from lib.errors import PassedOver


def printable(line: str) -> str:
    """The same line, with an escape for each byte of a name that is no UTF-8."""
    return line.encode("utf-8", "backslashreplace").decode("utf-8")


@contextmanager
def saying_what_is_passed_over(say: Callable[[str], None]) -> Iterator[None]:
    """Tell in a line, once, of a file here that has the name of one of ours; all other warnings stay Python's."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, PassedOver):
                say(str(message))
            else:
                others(message, category, *rest, **more)

        warnings.simplefilter("once", PassedOver)
        warnings.showwarning = show
        yield


def open_what_is_closed() -> None:
    """Give a stage that was started with a standard stream closed an empty one."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - it stays open as long as the process


def write_any_character() -> None:
    """Have stdout, which is data, be UTF-8 whatever the environment says, and neither it nor stderr refuse a character.

    What is no Unicode (a part of a file's name, say), and what a terminal of another encoding cannot show, is an escape.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            utf8 = stream is sys.stdout and not stream.isatty()
            stream.reconfigure(encoding="utf-8" if utf8 else stream.encoding, errors="backslashreplace")


def silence_other_packages() -> None:
    """Show no warnings and log lines of other packages (torch, matplotlib): they name source files, and no stage gives any."""
    warnings.showwarning = lambda *_, **__: None
    logging.lastResort = logging.NullHandler()
