"""The door for every text that comes in: where its bytes are, what is cleaned, how they are decoded, what is refused.

    file, pipe, stdin, a file of /proc     `open_document`: a byte-order mark and Gutenberg's frames are cut
    a prompt on stdin, a line of one       `read_whole`, `read_line`: a byte-order mark and one line break at the end are cut
    a word of the command line             `check_word`
    a stream whose bytes must come back    `decode`: nothing is cleaned

A document is one file, or what came through one pipe. A plain file is never held whole: pieces of it go through, and
every byte of a document's `spans` arrives; newlines of every kind are kept.
"""

import codecs
import mmap
import stat
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Callable, Iterable, Iterator

from lib.data.gutenberg import BOM, Content, Span, find_frames
from lib.errors import MakegptError, UsageError

PIECE_BYTES = 1 << 20  # bytes read at once

_HEAD = 1 << 12  # bytes by which an encoding is recognized


@dataclass
class ReadCounter:
    """What has been read: `on_bytes` learns of each piece's bytes; `replaced` bytes were no UTF-8."""

    on_bytes: Callable[[int], None] = field(default=lambda _: None)
    replaced: int = 0


@dataclass(frozen=True)
class Document:
    """One text, called `name`: the bytes of the `spans` of a file or of what was received, which has `size` bytes.

    `books`: how many of Gutenberg's frames were cut; `notices`: what its reader should know about them.
    """

    source: Path | bytes
    size: int
    spans: tuple[Span, ...]
    name: str
    books: int = 0
    notices: tuple[str, ...] = ()

    @property
    def length(self) -> int:
        """Bytes of text."""
        return sum(stop - start for start, stop in self.spans)

    @property
    def cut(self) -> str:
        """What was cut, in bytes, or nothing."""
        return describe_cleaning(self.size - self.length, self.books)

    def pieces(self, errors: str = "strict", counter: ReadCounter | None = None) -> Iterator[str]:
        """The text, piece by piece; see `decode` for `errors`. Unless those are replaced, a binary file is refused."""
        pieces = self._decoded(errors, counter)
        return pieces if errors == "replace" else refuse_binary(pieces, self.name, self.head())

    def _decoded(self, errors: str, counter: ReadCounter | None) -> Iterator[str]:
        head = self.head()
        with BytesIO(self.source) if isinstance(self.source, bytes) else open(self.source, "rb") as file:
            for start, stop in self.spans:
                file.seek(start)
                yield from decode_utf8(file, self.name, errors, stop - start, start, head=head, counter=counter)

    def head(self) -> bytes:
        """The first bytes of the file."""
        if isinstance(self.source, bytes):
            return self.source[:_HEAD]
        with open(self.source, "rb") as file:
            return file.read(_HEAD)


def describe_cleaning(size: int, books: int) -> str:
    """What cleaning took from a text, `size` bytes with the frames of so many `books`, in words; "" where it took nothing."""
    frames = "Project Gutenberg's header and license" + (f" of {books:,} books" if books > 1 else "")
    return f"cut {size:,} bytes of {frames if books else 'byte-order marks'}" if size else ""


def open_document(path: Path, name: str | None = None) -> Document:
    """The document in the file `path`, less a byte-order mark and Project Gutenberg's frames.

    `name` stands for the path in messages. Raises MakegptError where the file is missing or holds no text. What can be read
    only once, or does not know its size, is held in memory.
    """
    name = name or str(path)
    if not is_regular_text(path):
        with open(path, "rb") as file:
            return document_from_stream(file, name)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _document(path, content, name)


def document_from_stream(file: BinaryIO, name: str) -> Document:
    """The same of all that is left of `file`, held in memory."""
    content = b"".join(read_pieces(file, name))
    return _document(content, content, name)


def _document(source: Path | bytes, content: Content, name: str) -> Document:
    if len(content) == 0:
        raise MakegptError(f"{name} is empty; a text is expected")
    frames = find_frames(content)
    if not frames.spans:
        raise MakegptError(f"{name} holds no text")
    notices = tuple(f"{name}: {notice}" for notice in frames.notices)
    return Document(source, len(content), frames.spans, name, frames.books, notices)


def is_regular_text(path: Path) -> bool:
    """Whether `path` is a file that can be read again and knows its size; MakegptError where nothing to read is there."""
    check_text_file(path)
    status = path.stat()
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


def check_text_file(path: Path) -> None:
    """Refuse a path where no file is."""
    if path.is_dir():
        raise MakegptError(f"{path} is a folder; name the text files in it")
    if not path.exists():
        raise MakegptError(f"{path} does not exist")


def read_pieces(file: BinaryIO, name: str) -> Iterator[bytes]:
    """All that is left of `file`, in pieces."""
    try:
        while data := file.read(PIECE_BYTES):
            yield data
    except OSError as error:
        raise MakegptError(f"{name} cannot be read: {error.strerror or error}") from None


def read_whole(file: BinaryIO, name: str) -> str:
    """All that is left of `file` as one text, less a byte-order mark and one line break (LF or CR LF) at its end."""
    return read_line(b"".join(read_pieces(file, name)), name)


def read_line(line: bytes, name: str, *, first: bool = True) -> str:
    """The text of a line, less the line break at its end, and a byte-order mark where it is the `first` of its file."""
    mark = len(BOM) if first and line.startswith(BOM) else 0
    content = line[mark:].removesuffix(b"\n")
    content = content.removesuffix(b"\r") if len(content) < len(line[mark:]) else content
    pieces = decode_utf8(BytesIO(content), name, offset=mark, head=line[:_HEAD], replaceable=False)
    return "".join(refuse_binary(pieces, name, line[:_HEAD]))


def check_word(word: str, name: str) -> str:
    """A text that was given as a word, itself; UsageError, about `name`, where it holds what is no UTF-8."""
    try:
        word.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"{name}: character {error.start} is not valid UTF-8; check the terminal's encoding") from None
    return word


def decode_utf8(
    file: BinaryIO,
    name: str,
    errors: str = "strict",
    length: int | None = None,
    offset: int = 0,
    *,
    head: bytes | None = None,
    counter: ReadCounter | None = None,
    replaceable: bool = True,
) -> Iterator[str]:
    """Decode UTF-8 from `file` piece by piece: `length` bytes of it, or all; `offset` is where in `name` they begin.

    `errors`: "strict" refuses invalid bytes with their offset, "replace" puts U+FFFD for each. `head`: the first bytes of
    `name`, where the file does not begin with them. `replaceable`: whether advice may be to replace.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    counter = counter or ReadCounter()
    position = offset
    remaining = length
    balance = 0  # bytes that came in, less those of the text they gave
    before = b""
    while True:
        data = file.read(PIECE_BYTES if remaining is None else min(PIECE_BYTES, remaining))
        head = data[:_HEAD] if head is None else head
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            place = position - pending + error.start
            raise _not_utf8(name, place, error.object[error.start], head, replaceable) from None
        position += len(data)
        counter.on_bytes(len(data))
        if errors == "replace":
            made = text.count("\ufffd") - (before + data).count(_REPLACEMENT)
            balance += len(data) - len(text.encode("utf-8")) + len(_REPLACEMENT) * made
            before = data[-2:]
        if remaining is not None:
            remaining -= len(data)
        if text:
            yield text
        if not data:
            counter.replaced += balance
            return


_REPLACEMENT = "\ufffd".encode()


def detect_encoding(head: bytes) -> str | None:
    """The encoding that the first bytes of a text speak for, as iconv calls it, where it is UTF-16 or UTF-32; else None."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    for width, names in ((4, ("UTF-32BE", "UTF-32LE")), (2, ("UTF-16BE", "UTF-16LE"))):
        places = [head[n : len(head) // width * width : width] for n in range(width)]
        shares = [place.count(0) / max(1, len(place)) for place in places]
        if len(places[0]) > 1:
            if min(shares[: width // 2]) > 0.5 and shares[-1] < 0.1:
                return names[0]
            if min(shares[width // 2 :]) > 0.5 and shares[0] < 0.1:
                return names[1]
    return None


def _conversion(encoding: str) -> str:
    return f"it looks like {encoding[:6]}: convert it with `iconv -f {encoding} -t UTF-8`"


def _not_utf8(name: str, offset: int, byte: int, head: bytes, replaceable: bool) -> MakegptError:
    if encoding := detect_encoding(head):
        advice = _conversion(encoding)
    else:
        advice = "convert it to UTF-8" + (", or give --set tokenize.errors=replace" if replaceable else "")
    return MakegptError(f"{name}: byte {offset} (0x{byte:02x}) is not valid UTF-8; {advice}")


def refuse_binary(pieces: Iterable[str], name: str, head: bytes = b"") -> Iterator[str]:
    """Pass text on, and refuse the NUL character, which stands in no text but in most binary files.

    `head`: the first bytes of the text, by which UTF-16 and UTF-32 are told from a binary file.
    """
    position = 0
    for piece in pieces:
        if (at := piece.find("\0")) >= 0:
            encoding = detect_encoding(head)
            if encoding:
                raise MakegptError(f"{name}: character {position + at} is NUL; {_conversion(encoding)}")
            raise MakegptError(f"{name} looks like a binary file: character {position + at} is NUL; a text is expected")
        position += len(piece)
        yield piece
