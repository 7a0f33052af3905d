"""What the thing behind a stream can show."""

import os
from typing import TextIO


def obeys_escapes(file: TextIO) -> bool:
    """Whether `file` is a terminal that writes over a line when it is asked to; one whose TERM is dumb or not set does not."""
    return file.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def colored(file: TextIO) -> bool:
    """Whether lines for `file` are to be colored: on such a terminal, unless NO_COLOR is set (no-color.org)."""
    return obeys_escapes(file) and not os.environ.get("NO_COLOR")


def columns(file: TextIO) -> int:
    """How many characters a line of the terminal `file` holds; 80 where it does not say."""
    try:
        return os.get_terminal_size(file.fileno()).columns or 80
    except OSError:
        return 80
