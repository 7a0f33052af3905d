"""Reading text: where its bytes are, what is cut, how they are decoded, what is refused. All text enters here.

    a file, a pipe, stdin                  `open_document`: cuts a byte-order mark and Project Gutenberg's frames
    a prompt on stdin, one of its lines    `read_whole`, `read_line`: cut a byte-order mark and one line break at the end
    a command-line argument                `check_word`
    a stream that must round-trip          `decode_utf8`: cuts nothing

A document is one file, or all of one pipe. A regular file is streamed and never in memory whole. Every byte of a document's
`spans` is passed on, newlines of every kind included.
"""

import codecs
import mmap
import os
import stat
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Callable, Iterable, Iterator

from lib.data.gutenberg import BOM, Content, Span, find_frames
from lib.errors import MakegptError, UsageError

PIECE_BYTES = 1 << 20  # bytes read at once

_HEAD = 1 << 12  # bytes from which an encoding is detected


@dataclass
class ReadCounter:
    """Counts what is read: `on_bytes` is called with each piece's bytes; `replaced` bytes were not valid UTF-8."""

    on_bytes: Callable[[int], None] = field(default=lambda _: None)
    replaced: int = 0


@dataclass(frozen=True)
class Document:
    """One text, called `name` in messages: the `spans` of a source of `size` bytes, a file or bytes in memory.

    `books`: how many of Gutenberg's frames were cut. `notices`: messages about them for the user.
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
        """What was cut, as a sentence; "" if nothing."""
        return describe_cleaning(self.size - self.length, self.books)

    def pieces(self, errors: str = "strict", counter: ReadCounter | None = None) -> Iterator[str]:
        """The text, piece by piece; see `decode_utf8` for `errors`. With "strict", a binary file is refused."""
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
    """Say that `size` bytes were cut from a text, with the frames of so many `books`; "" if none were."""
    frames = "Project Gutenberg's header and license" + (f" of {books:,} books" if books > 1 else "")
    return f"cut {size:,} bytes of {frames if books else 'byte-order marks'}" if size else ""


def open_document(path: Path, name: str | None = None) -> Document:
    """The document in the file `path`, without a byte-order mark and Project Gutenberg's frames.

    `name` replaces the path in messages. Raises MakegptError if the file is missing or holds no text. A pipe, or a file whose
    size is not known, is read into memory.
    """
    name = name or str(path)
    if not is_regular_text(path):
        with open(path, "rb") as file:
            return document_from_stream(file, name)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _document(path, content, name)


def document_from_stream(file: BinaryIO, name: str) -> Document:
    """The document in the rest of `file`, read into memory."""
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
    """Whether `path` is a regular file of known size, which can be read twice; MakegptError if it is missing or a folder."""
    check_text_file(path)
    status = path.stat()
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


def check_text_file(path: Path) -> None:
    """Refuse a folder, and a path that does not exist."""
    if path.is_dir():
        raise MakegptError(f"{path} is a folder; name the text files in it")
    if not path.exists():
        raise MakegptError(f"{path} does not exist")


def read_pieces(file: BinaryIO, name: str) -> Iterator[bytes]:
    """The rest of `file`, in pieces. A device such as /dev/zero is refused: it may have no end."""
    if _is_device(file):
        raise MakegptError(f"{name} is a device, which may have no end; use a file or a pipe")
    try:
        while data := file.read(PIECE_BYTES):
            yield data
    except OSError as error:
        raise MakegptError(f"{name} cannot be read: {error.strerror or error}") from None


def _is_device(file: BinaryIO) -> bool:
    """Whether `file` is a disk or a character device; terminals and /dev/null end, so they are not counted."""
    try:
        status = os.fstat(file.fileno())
    except OSError:  # bytes in memory
        return False
    if stat.S_ISCHR(status.st_mode):
        return not file.isatty() and status.st_rdev != os.stat(os.devnull).st_rdev
    return stat.S_ISBLK(status.st_mode)


def read_whole(file: BinaryIO, name: str) -> str:
    """The rest of `file` as one text, without a byte-order mark and one line break (LF or CR LF) at its end."""
    return read_line(b"".join(read_pieces(file, name)), name)


def read_line(line: bytes, name: str, *, first: bool = True) -> str:
    """The text of a line without the line break at its end, and without a byte-order mark if it is the `first` of its file."""
    mark = len(BOM) if first and line.startswith(BOM) else 0
    content = line[mark:].removesuffix(b"\n")
    content = content.removesuffix(b"\r") if len(content) < len(line[mark:]) else content
    pieces = decode_utf8(BytesIO(content), name, offset=mark, head=line[:_HEAD], replaceable=False)
    return "".join(refuse_binary(pieces, name, line[:_HEAD]))


def check_word(word: str, name: str) -> str:
    """The command-line argument `word` itself; UsageError, about `name`, if it is not valid UTF-8."""
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
    """Decode UTF-8 from `file` piece by piece: `length` bytes of it, or all, which begin at `offset` in `name`.

    `errors`: "strict" refuses invalid bytes with their offset, "replace" writes U+FFFD for each. `head`: the first bytes of
    `name`, if the file is not at its start. `replaceable`: whether the error may advise `tokenize.errors=replace`.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    counter = counter or ReadCounter()
    position = offset
    remaining = length
    replaced = 0
    before = b""
    while True:
        data = file.read(PIECE_BYTES if remaining is None else min(PIECE_BYTES, remaining))
        head = data[:_HEAD] if head is None else head
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            invalid = position - pending + error.start
            raise _not_utf8(name, invalid, error.object[error.start], head, replaceable) from None
        position += len(data)
        counter.on_bytes(len(data))
        if errors == "replace":
            inserted = text.count("\ufffd") - (before + data).count(_REPLACEMENT)
            replaced += len(data) - len(text.encode("utf-8")) + len(_REPLACEMENT) * inserted
            before = data[-2:]
        if remaining is not None:
            remaining -= len(data)
        if text:
            yield text
        if not data:
            counter.replaced += replaced
            return


_REPLACEMENT = "\ufffd".encode()


def detect_encoding(head: bytes) -> str | None:
    """The encoding of a text that begins with `head`, by iconv's name, if it looks like UTF-16 or UTF-32; else None."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    for width, names in ((4, ("UTF-32BE", "UTF-32LE")), (2, ("UTF-16BE", "UTF-16LE"))):
        columns = [head[n : len(head) // width * width : width] for n in range(width)]
        zeros = [column.count(0) / max(1, len(column)) for column in columns]  # fractions
        if len(columns[0]) > 1:
            if min(zeros[: width // 2]) > 0.5 and zeros[-1] < 0.1:
                return names[0]
            if min(zeros[width // 2 :]) > 0.5 and zeros[0] < 0.1:
                return names[1]
    return None


def _conversion(encoding: str) -> str:
    return f"it looks like {encoding[:6]}: convert it with `iconv -f {encoding} -t UTF-8`"


def _not_utf8(name: str, offset: int, byte: int, head: bytes, replaceable: bool) -> MakegptError:
    if encoding := detect_encoding(head):
        advice = _conversion(encoding)
    else:
        advice = "convert it to UTF-8" + (", or use --set tokenize.errors=replace" if replaceable else "")
    return MakegptError(f"{name}: byte {offset} (0x{byte:02x}) is not valid UTF-8; {advice}")


def refuse_binary(pieces: Iterable[str], name: str, head: bytes = b"") -> Iterator[str]:
    """Yield the pieces, and refuse the NUL character, which no text has and most binary files do.

    `head`: the first bytes of the text, which tell UTF-16 and UTF-32 from a binary file.
    """
    position = 0
    for piece in pieces:
        if (nul := piece.find("\0")) >= 0:
            encoding = detect_encoding(head)
            if encoding:
                raise MakegptError(f"{name}: character {position + nul} is NUL; {_conversion(encoding)}")
            raise MakegptError(f"{name} looks like a binary file: character {position + nul} is NUL; a text is expected")
        position += len(piece)
        yield piece


def check_unicode(text: str, name: str) -> None:
    """ValueError if `text`, called `name` in it, has half of a surrogate pair, as JSON may escape one: it has no UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"character {error.start} of {name} is half of a surrogate pair, which is no text") from None
