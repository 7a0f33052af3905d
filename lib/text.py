"""Text on its way to tokens: byte ranges of files, decoded piece by piece, cleaned where asked.

A document is one file. Nothing here holds more than a piece of it in memory, and every byte between a
document's `start` and `stop` arrives: newlines of every kind are kept.
"""

import codecs
import mmap
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Iterable, Iterator

from lib.errors import MakegptError

PIECE = 1 << 20  # bytes read at once

_BOM = codecs.BOM_UTF8
_START = re.compile(rb"\*\*\* ?START OF TH(?:E|IS) PROJECT GUTENBERG EBOOK[^\n]*\*\*\*[^\n]*\n")
_END = re.compile(rb"\*\*\* ?END OF TH(?:E|IS) PROJECT GUTENBERG EBOOK")
_GUTENBERG_EDGE = 1 << 16  # Gutenberg's header and licence are under 30 KB each; its markers stand in these many bytes


@dataclass(frozen=True)
class Document:
    """The bytes `start` to `stop` of the file `path`: one text, called `name`."""

    path: Path
    start: int
    stop: int
    name: str

    def pieces(self, errors: str = "strict") -> Iterator[str]:
        """The text, piece by piece; see `decode` for `errors`."""
        with open(self.path, "rb") as file:
            file.seek(self.start)
            yield from decode(file, self.name, errors, self.stop - self.start, self.start)


def open_document(path: Path, name: str | None = None) -> Document:
    """The document in the file `path`, less a byte-order mark and Project Gutenberg's frame.

    Gutenberg's header and licence are cut, and blank space at the ends, only where both markers stand.
    `name` stands for the path in messages. Raises MakegptError where the file is missing or holds no text.
    """
    name = name or str(path)
    check_file(path)
    size = path.stat().st_size
    if size == 0:
        raise MakegptError(f"{name} is empty; a text is expected")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start, stop = (len(_BOM) if content[: len(_BOM)] == _BOM else 0), size
        edge = max(start, size - _GUTENBERG_EDGE)
        opening = _START.search(content, start, min(size, start + _GUTENBERG_EDGE))
        closing = _END.search(content, max(edge, opening.end() if opening else 0))
        if opening and closing:
            start, stop = opening.end(), closing.start()
            while start < stop and content[start : start + 1].isspace():
                start += 1
            while stop > start and content[stop - 1 : stop].isspace():
                stop -= 1
    if start == stop:
        raise MakegptError(f"{name} holds no text")
    return Document(path, start, stop, name)


def check_file(path: Path) -> None:
    """Refuse a path where no file is."""
    if path.is_dir():
        raise MakegptError(f"{path} is a folder; name the text files in it")
    if not path.exists():
        raise MakegptError(f"{path} does not exist")


def decode(file: BinaryIO, name: str, errors: str = "strict", length: int | None = None, offset: int = 0) -> Iterator[str]:
    """Decode UTF-8 from `file` piece by piece: `length` bytes of it, or all; `offset` is where in `name` they begin.

    `errors`: "strict" refuses invalid bytes with their offset, "replace" puts U+FFFD for each.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    position = offset
    remaining = length
    while True:
        data = file.read(PIECE if remaining is None else min(PIECE, remaining))
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise _not_utf8(name, position - pending + error.start, error.object[error.start], data[:4]) from None
        position += len(data)
        if remaining is not None:
            remaining -= len(data)
        if text:
            yield text
        if not data:
            return


def _not_utf8(name: str, offset: int, byte: int, beginning: bytes) -> MakegptError:
    if offset == 0 and beginning[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        advice = "it looks like UTF-16: convert it with `iconv -f UTF-16 -t UTF-8`"
    else:
        advice = "convert the file to UTF-8, or give --set tokenize.errors=replace"
    return MakegptError(f"{name}: byte {offset} (0x{byte:02x}) is not valid UTF-8; {advice}")


def refuse_binary(pieces: Iterable[str], name: str) -> Iterator[str]:
    """Pass text on, and refuse the NUL character, which stands in no text but in most binary files."""
    position = 0
    for piece in pieces:
        if (at := piece.find("\0")) >= 0:
            raise MakegptError(f"{name} looks like a binary file: character {position + at} is NUL; a text is expected")
        position += len(piece)
        yield piece


def cut_at_blanks(pieces: Iterable[str]) -> Iterator[str]:
    """The same text in other pieces: each but the last ends before a blank that follows a visible character.

    There no word ends up in two pieces, and GPT-2's pattern, whose matches never run from a visible
    character into a blank, matches each piece as it matches the whole. A text without blanks comes whole.
    """
    held: list[str] = []
    for piece in pieces:
        cut = next((i for i in range(len(piece) - 1, 0, -1) if piece[i] in " \n\r\t" and not piece[i - 1].isspace()), 0)
        if cut:
            yield "".join(held) + piece[:cut]
            held = [piece[cut:]]
        else:
            held.append(piece)
    yield "".join(held)
