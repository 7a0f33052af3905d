"""What a terminal supports: escape sequences, colors, width."""

import os
from typing import TextIO


def obeys_escapes(file: TextIO) -> bool:
    """Whether `file` is a terminal that obeys escape sequences; one whose TERM is dumb or not set does not."""
    return file.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def colored(file: TextIO) -> bool:
    """Whether to color lines for `file`: on a terminal that obeys escapes, unless NO_COLOR is set (no-color.org)."""
    return obeys_escapes(file) and not os.environ.get("NO_COLOR")


def columns(file: TextIO) -> int:
    """The width of the terminal `file` in characters; 80 if it is unknown."""
    try:
        return os.get_terminal_size(file.fileno()).columns or 80
    except OSError:
        return 80
