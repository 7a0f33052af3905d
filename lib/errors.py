"""Errors a user can cause, and can mend.

Each message is one line: what went wrong, with which value, what would be right, what to run next.
A stage prints it and leaves with `exit_code`; anything else that escapes is a defect of ours.
"""

import re
from difflib import get_close_matches
from typing import Iterable

_LONGEST = 1000  # characters of a message; what a file holds may be of any length
_END = 200  # of these, the last ones, where the advice is

#: What would move a terminal's cursor, change its colors or the direction of writing, or cannot be written as UTF-8.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def one_line(text: str) -> str:
    """`text` as one line for a terminal: of bounded length, a blank for each line break, escapes for control characters."""
    line = printable(" ".join(text.split("\n")).replace("\r", "").strip())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - _END - 3]} … {line[-_END:]}"


def printable(text: str) -> str:
    """`text` with escapes for control characters, which a terminal would obey."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


class MakegptError(Exception):
    """Something in the world is not as it should be: a file, a folder, a value met on the way."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class UsageError(MakegptError):
    """The command itself was wrong: an unknown name, a bad value, an impossible combination."""

    exit_code = 2


class PassedOver(UserWarning):
    """A file in the current folder has the name of one of ours, but is somebody else's; the project's own is used."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Say what a mistyped `name` may have meant: the nearest known name, or else all of them."""
    known = sorted(known)
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
