"""Errors that a user can cause and fix.

Each message is one line: what is wrong, the value, what is right, what to run. A stage prints it and exits with
`exit_code`. Any other exception that reaches a stage is a bug in this project.
"""

import re
from difflib import get_close_matches
from typing import Iterable

_MAX_LENGTH = 1000  # characters of a message; text quoted from a file can have any length
_END_LENGTH = 200  # of these, from the end of the message, where the advice is

#: Characters that move a terminal's cursor, change its colors or its writing direction, or cannot be encoded as UTF-8.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def one_line(text: str) -> str:
    """`text` as one line for a terminal: bounded length, a blank for each line break, control characters escaped."""
    line = printable(" ".join(text.split("\n")).replace("\r", "").strip())
    return line if len(line) <= _MAX_LENGTH else f"{line[: _MAX_LENGTH - _END_LENGTH - 3]} … {line[-_END_LENGTH:]}"


def printable(text: str) -> str:
    """`text` with control characters escaped, so that a terminal does not obey them."""
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


class MakegptError(Exception):
    """Something is wrong with a file, a folder or a value in it."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class UsageError(MakegptError):
    """The command itself is wrong: an unknown name, a bad value, an impossible combination."""

    exit_code = 2


class IgnoredFileWarning(UserWarning):
    """A file in the current folder has the name of a project file but belongs to another program; it is ignored."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint about an unknown `name`: the nearest known name, or else all of them."""
    known = sorted(known)
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
