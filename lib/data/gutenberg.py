"""Project Gutenberg's frames: the header and the license around each of its books.

    The Project Gutenberg eBook of …      the header, from this line
    *** START OF THE PROJECT … ***        to this marker, is cut
    the book                              never loses a line
    *** END OF THE PROJECT … ***          from this marker
    … the license                         to the license's last line is cut

A file may hold any number of framed books, with other texts before, between and after them. Text outside of the frames is
cut only if it is recognized as a header or a license. Nothing between START and END is cut, so lines that Gutenberg adds
there ("Produced by …", "End of Project Gutenberg's …") stay.
"""

import mmap
import re
from dataclasses import dataclass
from typing import Iterator

Content = bytes | mmap.mmap
Span = tuple[int, int]

BOM = b"\xef\xbb\xbf"

_HEADER = 1 << 13  # bytes of a header at most; those of 2004 to 2024 have 500 to 3,000
_BARE_HEADER = 1 << 10  # of one of which only the first line is recognized
_LICENSE = 1 << 16  # bytes of a license at most; they have 18,000 to 20,000

_MARKER = re.compile(
    rb"\*\*\*\s{0,2}(?i:(START|END)\s{1,4}OF\s{1,4}(?:TH(?:E|IS)\s{1,4})?PROJECT\s{1,4}GUTENBERG\s{1,4}E-?(?:BOOK|TEXT))"
)
_TITLE = re.compile(rb"(?:(?!\*\*\*|\r?\n[ \t]*\r?\n)[\x00-\xff]){0,800}\*\*\*[ \t*]*(?:\r\n|\n|\r|\Z)?")
_LINE = re.compile(rb"[^\r\n]{0,800}(?:\r\n|\n|\r|\Z)?")
_SMALL_PRINT = re.compile(rb"\*END[ *]{0,3}THE SMALL PRINT")
_FIRST = re.compile(
    rb"(?im)(?:^|(?<=\r))(?:\xef\xbb\xbf)?[ \t*]*"
    rb"(?:The )?Project Gutenberg(?:(?:'|\xe2\x80\x99)s |,? E-?(?:book|text)\b)[^\r\n]*"
)
_IN_HEADER = re.compile(
    rb"(?im)^(?:this e-?(?:book|text) is for the use of|(?:title|author|language|release date)\s*:)|\[e-?(?:book|text) ?#"
)
_HEADER_LINE = re.compile(
    rb"(?i)(?:\xef\xbb\xbf)?(?:title|author|editor|translator|illustrator|contributor|release date|posting date|language|"
    rb"credits|produced by|original publication|most recently updated|last updated|character set encoding)\b[^:]{0,20}:"
    rb"|\[e-?(?:book|text) ?#"
)
_LICENSE_PARAGRAPH = re.compile(
    rb"(?i)\s*(?:updated editions will replace|[^\x00]{0,300}?project\s+gutenberg|\W*licen[cs]e\b[^\r\n]{0,20}\s*\Z)"
)
_LICENSE_LAST = re.compile(
    rb"(?i)subscribe\s+to\s+our\s+email\s+newsletter\s+to\s+hear\s+about\s+new\s+ebooks[^\r\n]*(?:\r\n|\n|\r|\Z)"
)
_PARAGRAPH = re.compile(rb"\s*\S[\x00-\xff]*?(?:(?:\r\n|\n|\r(?!\n))[ \t]*(?=[\r\n])|\Z)")


@dataclass(frozen=True)
class Frames:
    """The `spans` of a file that are text, the number of framed `books`, and `notices` for the user."""

    spans: tuple[Span, ...]
    books: int
    notices: tuple[str, ...]


@dataclass(frozen=True)
class _Marker:
    """A START (`begins`) or END line, or several lines: the bytes `start` to `stop`."""

    begins: bool
    start: int
    stop: int


def find_frames(content: Content) -> Frames:
    """The text in `content`: all of it but the frames around books, blank space at the outer ends of a framed book and a
    byte-order mark at the start of each part.
    """
    markers = list(_markers(content))
    notices = []
    cuts: list[Span] = []
    floor = 0
    books, index = 0, 0
    while index < len(markers):
        marker = markers[index]
        ends = _ends_of(markers, index)
        if not marker.begins or not ends:
            kind, missing = ("START", "END after it") if marker.begins else ("END", "START before it")
            notices.append(f"the marker {kind} at byte {marker.start} has no {missing}: nothing is cut for it")
            index += 1
            continue
        limit = markers[ends[-1] + 1].start if ends[-1] + 1 < len(markers) else len(content)
        licenses = [_license_end(content, markers[end].stop, min(limit, _next(markers, end, limit))) for end in ends]
        which = next((n for n, end in enumerate(licenses) if end is not None), len(ends) - 1)
        end = markers[ends[which]]
        header = _header_start(content, floor, marker.start)
        if header is None and not _blank(content, floor, marker.start):
            notices.append(f"the text before the START at byte {marker.start} does not look like a header and is kept")
        if licenses[which] is None:
            notices.append(f"the text after the END at byte {end.start} does not look like the license and is kept")
        if any(marker.start < other.start < end.start for other in markers):
            notices.append(f"there are markers between the START at byte {marker.start} and its END; they are kept")
        cuts.append((marker.start if header is None else header, marker.stop))
        cuts.append((end.start, end.stop if licenses[which] is None else licenses[which] or end.stop))
        floor = cuts[-1][1]
        books += 1
        index = ends[which] + 1
    if old := _SMALL_PRINT.search(content):
        notices.append(f"a header from before 2003 ends at byte {old.start()} (THE SMALL PRINT); such headers are not cut")
    return Frames(tuple(_kept(content, cuts)), books, tuple(notices))


def _markers(content: Content) -> Iterator[_Marker]:
    """All markers at the start of a line, in order."""
    for match in _MARKER.finditer(content):
        begins = match[1].upper() == b"START"
        start = _line_start(content, match.start())
        title = _TITLE.match(content, match.end()) or (None if begins else _LINE.match(content, match.end()))
        if start is not None and title:
            yield _Marker(begins, start, title.end())


def _line_start(content: Content, position: int) -> int | None:
    """The start of the line that has only blanks and a byte-order mark before `position`; None if it has more."""
    start = position
    while start and position - start < 80 and content[start - 1 : start] in (b" ", b"\t"):
        start -= 1
    if content[max(0, start - len(BOM)) : start] == BOM:
        start -= len(BOM)
    return start if start == 0 or content[start - 1 : start] in (b"\n", b"\r") else None


def _ends_of(markers: list[_Marker], index: int) -> list[int]:
    """The indices of the ENDs that may belong to the START at `index`: the first one after it and those right after that."""
    first = next((n for n in range(index + 1, len(markers)) if not markers[n].begins), None)
    if first is None:
        return []
    last = next((n for n in range(first, len(markers)) if markers[n].begins), len(markers))
    return list(range(first, last))


def _next(markers: list[_Marker], index: int, limit: int) -> int:
    return markers[index + 1].start if index + 1 < len(markers) else limit


def _header_start(content: Content, floor: int, marker: int) -> int | None:
    """The start of the header before the START at byte `marker`, at `floor` or later; None if there is no header."""
    begin = max(floor, marker - _HEADER)
    window = content[begin:marker]
    for first in reversed(list(_FIRST.finditer(window))):
        rest = window[first.end() :]
        if (begin + first.start() == floor or first.start()) and (_IN_HEADER.search(rest) or len(rest) <= _BARE_HEADER):
            return begin + first.start()
        break
    start, position = None, len(window)
    for line in reversed(window.splitlines(keepends=True)):
        position -= len(line)
        if _HEADER_LINE.match(line.strip()):
            start = begin + position
        elif line.strip():
            break
    return start


def _license_end(content: Content, start: int, limit: int) -> int | None:
    """The end of the license that begins at `start`, which is `start` if only blanks follow; None if another text follows."""
    window = content[start : min(limit, start + _LICENSE)]
    header = next((match.start() for match in _FIRST.finditer(window)), len(window))
    first = _PARAGRAPH.match(window)
    if first is None:
        return start + len(window)
    last = _LICENSE_LAST.search(window)
    if last and _LICENSE_PARAGRAPH.match(first[0]):
        return start + last.end()
    end = None
    position = 0
    while (paragraph := _PARAGRAPH.match(window, position)) and _LICENSE_PARAGRAPH.match(paragraph[0]):
        if paragraph.start() + len(paragraph[0]) - len(paragraph[0].lstrip()) >= header:
            break
        end = position = paragraph.end()
    if end is None:
        return start if window[:header].isspace() or header == 0 else None
    return start + end


def _kept(content: Content, cuts: list[Span]) -> Iterator[Span]:
    """The parts of `content` between the `cuts` that are not blank."""
    borders = [0, *(border for cut in cuts for border in cut), len(content)]
    parts = list(zip(borders[::2], borders[1::2], strict=True))  # outside, inside, outside … of the frames
    for number, (start, stop) in enumerate(parts):
        if content[start : start + len(BOM)] == BOM:
            start += len(BOM)
        if cuts and _blank(content, start, stop):
            continue
        framed = number % 2 == 1
        if framed and all(_blank(content, *part) for part in parts[:number]):
            start = _first_line(content, start, stop)
        if framed and all(_blank(content, *part) for part in parts[number + 1 :]):
            while content[stop - 1 : stop].isspace():
                stop -= 1
        if start < stop:
            yield start, stop


_NOT_BLANK = re.compile(rb"\S")


def _blank(content: Content, start: int, stop: int) -> bool:
    if content[start : start + len(BOM)] == BOM:
        start += len(BOM)
    return _NOT_BLANK.search(content, start, stop) is None


def _first_line(content: Content, start: int, stop: int) -> int:
    """The start of the first line between `start` and `stop` that is not blank."""
    visible = _NOT_BLANK.search(content, start, stop)
    assert visible is not None
    line = max(content.rfind(b"\n", start, visible.start()), content.rfind(b"\r", start, visible.start()))
    return max(start, line + 1)
