"""A text cut into pieces that can be tokenized one by one."""

import re
from typing import Iterable, Iterator


def cut_at_blanks(pieces: Iterable[str], border: re.Pattern[str] | None = None) -> Iterator[str]:
    """The same text in other pieces: each but the last ends before a blank that follows a visible character.

    There no word ends up in two pieces, and GPT-2's pattern, whose matches never run from a visible
    character into a blank, matches each piece as it matches the whole. A piece without such a blank ends behind the
    last match of `border`; where that is not found either, the piece is held until one comes.
    """
    held: list[str] = []
    for piece in pieces:
        cut = next((i for i in range(len(piece) - 1, 0, -1) if piece[i] in " \n\r\t" and not piece[i - 1].isspace()), 0)
        if not cut and border is not None:
            for found in border.finditer(piece):
                cut = found.end()
        if cut:
            yield "".join(held) + piece[:cut]
            held = [piece[cut:]]
        else:
            held.append(piece)
    yield "".join(held)
