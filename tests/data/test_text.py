"""Text on its way to tokens: what is cleaned, what is kept to the byte, what is refused and where."""

import io
from itertools import pairwise
from pathlib import Path
from typing import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.text import PIECE_BYTES, decode_utf8, open_document, refuse_binary
from lib.errors import MakegptError
from lib.tokenizer.splitting import cut_at_blanks

BOM = b"\xef\xbb\xbf"
HEADER = b"Title: X\r\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\r\n\r\n"
LICENCE = b"\r\n\r\n*** END OF THE PROJECT GUTENBERG EBOOK X ***\r\nlicence\r\n"


def document_text(tmp_path: Path, content: bytes, errors: str = "strict") -> str:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    return "".join(open_document(path).pieces(errors))


def decoded(content: bytes, errors: str = "strict") -> str:
    return "".join(decode_utf8(io.BytesIO(content), "name", errors))


# What is cut.


def test_a_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    assert document_text(tmp_path, BOM + "café\n".encode()) == "café\n"


def test_only_the_first_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    assert document_text(tmp_path, BOM + BOM + b"a" + BOM) == "\ufeffa\ufeff"


@pytest.mark.parametrize("bom", [b"", BOM])
@pytest.mark.parametrize("the", [b"THE", b"THIS"])
@pytest.mark.parametrize("stars", [b"***", b"*** "])
def test_gutenbergs_frame_is_cut_where_both_markers_stand(tmp_path: Path, bom: bytes, the: bytes, stars: bytes) -> None:
    frame = [part.replace(b"THE P", the + b" P").replace(b"*** ", stars, 1) for part in (HEADER, LICENCE)]
    assert document_text(tmp_path, bom + frame[0] + b"CHAPTER I.\r\n\r\nCall me" + frame[1]) == "CHAPTER I.\r\n\r\nCall me"


@pytest.mark.parametrize("content", [HEADER + b"text\n", b"text\n" + LICENCE, LICENCE + b"text\n" + HEADER, b"  text \n\n"])
def test_nothing_is_cut_where_not_both_markers_stand_in_order(tmp_path: Path, content: bytes) -> None:
    assert document_text(tmp_path, content) == content.decode()


def test_a_long_book_is_cut_at_both_ends(tmp_path: Path) -> None:
    body = b"line of a long book\n" * 10_000
    assert document_text(tmp_path, HEADER + body + LICENCE) == body.decode().rstrip("\n")


def test_moby_dick_loses_gutenbergs_frame_and_nothing_else(fetched: Callable[[str], Path]) -> None:
    path = fetched("moby_dick") / "moby_dick.txt"
    whole = path.read_bytes().decode("utf-8")
    text = "".join(open_document(path).pieces())
    assert text in whole
    assert "PROJECT GUTENBERG EBOOK" not in text
    assert text.startswith("MOBY")
    assert text == text.strip()
    before, after = whole.split(text)
    assert before.rstrip().endswith("***")
    assert after.lstrip().startswith("***")


@pytest.mark.parametrize("content", [b"", BOM, HEADER + LICENCE, HEADER + b" \r\n\n" + LICENCE])
def test_a_file_without_text_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(MakegptError, match=r"text\.txt (is empty|holds no text)"):
        document_text(tmp_path, content)


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(MakegptError, match=r"none\.txt does not exist"):
        open_document(tmp_path / "none.txt")
    with pytest.raises(MakegptError, match="is a folder"):
        open_document(tmp_path)


# What is kept.


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r", "\x85", "\u2028", "\u2029", "\x0b", "\x0c", "\n\r", "\x1c"])
def test_newlines_of_every_kind_are_kept(tmp_path: Path, newline: str) -> None:
    text = f"{newline}one{newline}two{newline}{newline}"
    assert document_text(tmp_path, text.encode("utf-8")) == text


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_decoding_gives_the_text_that_was_encoded(text: str) -> None:
    assert decoded(text.encode("utf-8")) == text


@pytest.mark.parametrize("character", ["é", "€", "😀"])
def test_a_character_may_stand_across_the_border_of_two_pieces(character: str) -> None:
    for before in range(1, len(character.encode())):
        text = "x" * (PIECE_BYTES - before) + character + "y"
        pieces = list(decode_utf8(io.BytesIO(text.encode("utf-8")), "name"))
        assert "".join(pieces) == text
        assert len(pieces) > 1


def test_a_length_ends_the_text_there() -> None:
    file = io.BytesIO(b"one two three")
    assert "".join(decode_utf8(file, "name", length=7)) == "one two"


# What is refused, and where.

INVALID = [
    (b"\x80abc", 0, 0x80),
    (b"abc\xff", 3, 0xFF),
    ("é".encode() + b"\xc3(", 2, 0xC3),
    (b"abc\xe2\x82", 3, 0xE2),
    (b"\xed\xa0\x80", 0, 0xED),
    (b"ab\xc0\xaf", 2, 0xC0),
    (b"a\xf4\x90\x80\x80", 1, 0xF4),
]


@pytest.mark.parametrize(("content", "offset", "byte"), INVALID)
def test_invalid_bytes_are_refused_with_their_exact_offset(content: bytes, offset: int, byte: int) -> None:
    with pytest.raises(MakegptError, match=rf"name: byte {offset} \(0x{byte:02x}\) is not valid UTF-8"):
        decoded(content)


@pytest.mark.parametrize(
    "before", [PIECE_BYTES - 3, PIECE_BYTES - 2, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES - 1]
)
@pytest.mark.parametrize("bad", [b"\xff", b"\xe2\x82(", b"\xf0\x9f\x98", b"\xe2\x82"])
def test_the_offset_is_exact_across_the_border_of_two_pieces(before: int, bad: bytes) -> None:
    for after in (b"", b"xyz" if bad != b"\xf0\x9f\x98" else b""):
        with pytest.raises(MakegptError, match=rf"byte {before} \(0x{bad[0]:02x}\)"):
            decoded(b"a" * before + bad + after)


def test_the_offset_counts_from_the_beginning_of_the_file(tmp_path: Path) -> None:
    content = BOM + HEADER + b"abc\xffdef" + LICENCE
    with pytest.raises(MakegptError, match=rf"text\.txt: byte {content.index(0xFF)} "):
        document_text(tmp_path, content)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_is_recognised(encoding: str) -> None:
    content = "\ufeffTo be".encode(encoding)
    with pytest.raises(MakegptError, match="looks like UTF-16: convert it with `iconv"):
        decoded(content)


def test_an_invalid_byte_inside_is_not_taken_for_utf16() -> None:
    with pytest.raises(MakegptError, match=r"or use --set tokenize\.errors=replace"):
        decoded(b"a\xff\xfe")


def test_invalid_bytes_are_replaced_where_asked() -> None:
    assert decoded(b"caf\xe9 \xff\xfe ok", "replace") == "caf\ufffd \ufffd\ufffd ok"
    assert decoded(b"a" * (PIECE_BYTES - 1) + b"\xe2\x82", "replace") == "a" * (PIECE_BYTES - 1) + "\ufffd"


def test_nul_is_refused_with_its_place() -> None:
    with pytest.raises(MakegptError, match="name looks like a binary file: character 5 is NUL"):
        list(refuse_binary(["äö", "ab", "c\0d"], "name"))
    assert list(refuse_binary(["äö", "", "ab"], "name")) == ["äö", "", "ab"]


# Where a text may be cut.

BLANKS = " \n\r\t\x0b\x0c\x1c\x1f\x85\xa0\u2003\u2028\u3000"
texts = st.text(st.sampled_from("ab'1é,. \n\r\t\x1c\x85\u3000" + BLANKS))


@settings(max_examples=200, deadline=None)
@given(st.lists(texts))
def test_cutting_at_blanks_keeps_every_character(pieces: list[str]) -> None:
    assert "".join(cut_at_blanks(pieces)) == "".join(pieces)


@settings(max_examples=200, deadline=None)
@given(st.lists(texts))
def test_every_cut_is_between_a_visible_character_and_a_blank(pieces: list[str]) -> None:
    cut = [piece for piece in cut_at_blanks(pieces) if piece]
    for before, after in pairwise(cut):
        assert not before[-1].isspace()
        assert after[0] in " \n\r\t"


def test_cutting_at_blanks_streams() -> None:
    """A piece is given away when the next has come at most: an endless text needs no endless memory."""
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "some words and mo"

    cut = cut_at_blanks(endless())
    lengths = []
    for number in range(1, 1000):
        lengths.append(len(next(cut)))
        assert taken <= number + 1
    assert max(lengths) <= 2 * len("some words and mo")


def test_a_text_without_blanks_comes_whole() -> None:
    assert list(cut_at_blanks(["aaa", "bbb", "ccc"])) == ["aaabbbccc"]
