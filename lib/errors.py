"""Errors a user can cause, and can mend.

Each message is one line: what went wrong, with which value, what would be right, what to run next.
A stage prints it and leaves with `exit_code`; anything else that escapes is a defect of ours.
"""

from difflib import get_close_matches
from typing import Iterable


class MakegptError(Exception):
    """Something in the world is not as it should be: a file, a folder, a value met on the way."""

    exit_code = 1


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
