"""Project Gutenberg's frames: all of them go, nothing else does, and what went is counted."""

import random
from pathlib import Path

import pytest

from lib.data.text import Document, open_document

BOM = b"\xef\xbb\xbf"
LAST = b"Archive Foundation, how to help produce our new eBooks, and how to\n"
LAST += b"subscribe to our email newsletter to hear about new eBooks.\n"

HEADERS = [
    b"The Project Gutenberg eBook of Nothing\n\nThis ebook is for the use of anyone anywhere in the United States.\n\n"
    b"Title: Nothing\n\nAuthor: Nobody\n\nRelease date: July 1, 2001 [eBook #2701]\n\nLanguage: English\n\n\n",
    b"Project Gutenberg's Nothing, by Nobody\n\nThis eBook is for the use of anyone anywhere at no cost\n\nTitle: Nothing\n\n",
    b"The Project Gutenberg EBook of Nothing, by Nobody\n\n",
    b"Title: Nothing\nAuthor: Nobody\n\n",
    BOM + b"The Project Gutenberg eBook of Nothing\n\nTitle: Nothing\n\n",
    b"",
]
STARTS = [
    b"*** START OF THE PROJECT GUTENBERG EBOOK NOTHING ***\n",
    b"***START OF THIS PROJECT GUTENBERG EBOOK NOTHING***\n",
    b"*** START OF THE PROJECT GUTENBERG EBOOK A LONG TITLE; OR,\nTHE TITLE THAT RUNS\nOVER THREE LINES ***\n",
    b"*** Start of the Project Gutenberg eBook of Nothing ***\n",
]
ENDS = [start.replace(b"START", b"END").replace(b"Start", b"End") for start in STARTS]
LICENCES = [
    b"\nUpdated editions will replace the previous one--the old editions will\nbe renamed.\n\nSection 1. Terms\n\nNo names.\n\n"
    + LAST,
    b"\n\n***** This file should be named 1.txt *****\nhttp://www.gutenberg.org\nProject Gutenberg\n\nSection 2.\n\n" + LAST,
    b"",
]


def document(tmp_path: Path, content: bytes) -> Document:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    return open_document(path)


def lines(content: bytes) -> list[bytes]:
    return [line for line in content.splitlines() if line.strip()]


@pytest.mark.parametrize("seed", range(60))
def test_of_any_sequence_of_framed_and_bare_texts_every_line_stays_and_every_frame_goes(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    newline = draw.choice([b"\n", b"\r\n"])
    parts, expected, books = [], [], 0
    framed_before = False
    for number in range(draw.randint(1, 6)):
        body = b"".join(
            draw.choice([b"", b"  ", b"Produced by somebody. ", b"*** ", b"The eBook of "])
            + b"line %d of %d.\n\n" % (n, number)
            for n in range(draw.choice([1, 3, 40, 9_000]))
        )
        if draw.random() < 0.6:
            header = draw.choice(HEADERS)
            license = draw.choice(LICENCES)
            parts.append(header + draw.choice(STARTS) + draw.choice([b"", b"\n\n"]) + body + draw.choice(ENDS) + license)
            books += 1
            framed_before = True
        else:
            parts.append((BOM if framed_before else b"") + body)
            framed_before = False
        expected += lines(body)
    content = b"".join(parts).replace(b"\n", newline)
    if draw.random() < 0.3:
        content = content.removesuffix(newline)
    book = document(tmp_path, content)
    text = "".join(book.pieces())
    assert [line.strip() for line in lines(text.encode())] == [line.strip() for line in expected]
    assert book.books == books
    assert book.size - book.length == len(content) - len(text.encode())
    assert (f"cut {len(content) - len(text.encode()):,} bytes of Project Gutenberg's" in book.cut) == (books > 0)


FRAME = (HEADERS[0] + STARTS[0], ENDS[0] + LICENCES[0])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (FRAME[0] + b"body\n", "the marker START at byte 202 has no END"),
        (b"body\n" + FRAME[1], "the marker END at byte 5 has no START"),
        (FRAME[1] + b"body\n" + FRAME[0], "no START before it"),
        (b"*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\nbody\n", "such headers are not cut"),
        (b"body\n*** START OF THE PROJECT GUTENBERG EBOOK ", ""),
        (b"he wrote *** START OF THE PROJECT GUTENBERG EBOOK X ***\nand *** END OF THE PROJECT GUTENBERG EBOOK X ***\n", ""),
    ],
)
def test_nothing_is_lost_where_a_marker_stands_alone_and_it_is_said(content: bytes, said: str, tmp_path: Path) -> None:
    book = document(tmp_path, content)
    assert "".join(book.pieces()).encode() == content
    assert said in " ".join(book.notices)
    assert bool(book.notices) == bool(said)
    assert book.cut == ""


@pytest.mark.parametrize("inside", [STARTS[0], ENDS[0], ENDS[0] + b"and more\n" + STARTS[0], HEADERS[0] + STARTS[2]])
def test_a_marker_that_a_book_quotes_loses_no_line_of_the_book(inside: bytes, tmp_path: Path) -> None:
    book = document(tmp_path, FRAME[0] + b"one\n" + inside + b"two\n" + FRAME[1])
    text = "".join(book.pieces())
    assert text.startswith("one\n")
    assert "two" in text
    assert book.notices


def test_what_is_no_header_and_no_license_stays_and_is_reported(tmp_path: Path) -> None:
    book = document(tmp_path, b"An essay on books.\n" + STARTS[0] + b"body\n" + ENDS[0] + b"Another essay.\n")
    assert "".join(book.pieces()) == "An essay on books.\nbody\nAnother essay.\n"
    assert len(book.notices) == 2
