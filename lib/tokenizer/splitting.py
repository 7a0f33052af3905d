"""Cutting a text into pieces that can be tokenized one by one."""

import re
from typing import Iterable, Iterator


def cut_at_blanks(pieces: Iterable[str], border: re.Pattern[str] | None = None, blanks: str = " \n\r\t") -> Iterator[str]:
    """The same text in other pieces: each but the last ends before one of `blanks` that follows a visible character.

    No word is cut there. A piece without such a blank ends after the last match of `border`; if there is none, it is joined to
    the next.
    """
    pending: list[str] = []
    for piece in pieces:
        cut = next((i for i in range(len(piece) - 1, 0, -1) if piece[i] in blanks and not piece[i - 1].isspace()), 0)
        if not cut and border is not None:
            for match in border.finditer(piece):
                cut = match.end()
        if cut:
            yield "".join(pending) + piece[:cut]
            pending = [piece[cut:]]
        else:
            pending.append(piece)
    yield "".join(pending)
