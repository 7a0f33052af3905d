"""SentencePiece's tokenizers: the algorithms, its test models, and the package itself as reference."""

import base64
import json
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.errors import MakegptError, UsageError
from lib.tokenizer.charsmap import Charsmap
from lib.tokenizer.registry import load_tokenizer
from lib.tokenizer.scored_merges import merge_by_score, merge_by_score_naively
from lib.tokenizer.sentencepiece import ADDED, BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, SentencePieceTokenizer
from lib.tokenizer.sentencepiece_model import read_sentencepiece
from lib.tokenizer.unigram import best_segmentation, best_segmentation_naively, unknown_score
from tests.conftest import Here
from tests.tokenizer.cut_models import CUT, SOURCE, field

SAVED: dict[str, Any] = json.loads(CUT.read_text(encoding="utf-8"))
assert SAVED.pop("source") == SOURCE
ODD = "  Ｈｅｌｌｏ　ｗｏｒｌｄ① ﬁ e\u0301 \u200b\ufeff漢字 🐋 don't\t\n  x  ||"
few = settings(max_examples=200, deadline=None)


# The algorithms.

scores = st.dictionaries(st.text("ab", min_size=1, max_size=4), st.integers(-40, -1), min_size=1, max_size=12)


@few
@given(scores=scores, text=st.text("abc", max_size=9))
def test_viterbi_gives_the_best_of_all_segmentations(scores: dict[str, float], text: str) -> None:
    unknown = unknown_score(scores)
    assert unknown == min(scores.values()) - 10
    ways = [
        best_segmentation(text, scores, unknown, max(map(len, scores))),
        best_segmentation_naively(text, scores, unknown),
    ]
    assert {"".join(pieces) for pieces in ways} == {text}
    assert len({sum(scores.get(piece, unknown) for piece in pieces) for pieces in ways}) == 1


def test_the_worked_example_of_the_page() -> None:
    scores = {"a": -3.0, "b": -3.0, "ab": -4.0, "ba": -3.5, "abba": -9.0}
    assert best_segmentation("abba", scores, -19.0, 4) == ["ab", "ba"]
    assert best_segmentation("abca", scores, -19.0, 4) == ["ab", "c", "a"]


@few
@given(scores=scores, text=st.text("abc", max_size=20))
def test_merging_with_a_heap_is_merging_the_best_pair_again_and_again(scores: dict[str, float], text: str) -> None:
    assert merge_by_score(text, scores) == merge_by_score_naively(text, scores)


def rules(replacements: dict[str, str]) -> bytes:
    """The rules that replace characters of ASCII, as a model holds them: each node's children are in a block of 256 units."""
    units = [0] * 512
    units[0] = 256 << 10
    written = b""
    for number, (character, replacement) in enumerate(replacements.items()):
        node, leaf = 256 ^ ord(character), 128 + number
        units[node] = ord(character) | 1 << 8 | (node ^ leaf) << 10
        units[leaf] = 1 << 31 | len(written)
        written += replacement.encode() + b"\0"
    return struct.pack("<I512I", 4 * len(units), *units) + written


def test_rules_replace_characters() -> None:
    charsmap = Charsmap(rules({"A": "a", "\t": " ", "%": " per cent", "~": ""}))
    assert charsmap.normalize("A\tb~5%é漢🐋A") == ["a", " ", "b", "", "5", " per cent", "é", "漢", "🐋", "a"]
    assert charsmap.normalize("") == []


@pytest.mark.parametrize("blob", [b"abcd", b"\x08\0\0\0abcd", rules({"A": "a"})[:-1] + b"x", b"\xff\xff\xff\xff" + bytes(9)])
def test_rules_that_are_none_are_refused(blob: bytes) -> None:
    with pytest.raises(ValueError, match="rules of its normalization are damaged"):
        Charsmap(blob)


@few
@given(units=st.binary(min_size=1024, max_size=1024), text=st.text(max_size=30))
def test_damaged_rules_replace_something_or_nothing(units: bytes, text: str) -> None:
    charsmap = Charsmap(struct.pack("<I", 1024) + units + b"a\0bc\0")
    assert len(charsmap.normalize(text)) <= len(text.encode("utf-8"))


# The tokenizer.


def tokenizer_of(*pieces: str, **options: Any) -> SentencePieceTokenizer:
    """A tokenizer with <unk>, </s> and `pieces`, each with a lower score than the one before."""
    names = ["<unk>", "</s>", *pieces]
    types = [UNKNOWN, CONTROL, *(BYTE if piece.startswith("<0x") else NORMAL for piece in pieces)]
    values = {"algorithm": "unigram", "unknown": 0, "endoftext": 1, "types": types} | options
    algorithm, types = values.pop("algorithm"), values.pop("types")
    return SentencePieceTokenizer(algorithm, names, [0.0, 0.0, *(-1.0 - n for n in range(len(pieces)))], types, **values)


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def test_a_run_of_unknown_characters_is_one_token_and_with_bytes_each_byte_is_one() -> None:
    assert tokenizer_of("▁", "a").encode("xya x") == [2, 0, 3, 2, 0]
    assert tokenizer_of("▁", "a", *BYTES).encode("é a") == [2, 4 + 0xC3, 4 + 0xA9, 2, 3]


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
def test_spaces_and_bytes_are_kept_in_any_pieces_of_the_text(algorithm: str) -> None:
    tokenizer = tokenizer_of("▁a", "▁", "a", "▁▁", "ab", *BYTES, algorithm=algorithm)
    for text in ("ab  a\n a", " a", "  ", "", ODD):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert [int(id) for part in tokenizer.encode_stream(text) for id in part] == ids
        assert b"".join(tokenizer.bytes_after(*pair) for pair in pairwise([None, *ids])).decode() == text
    assert tokenizer.lossless


def test_extra_whitespace_is_removed_if_the_model_says_so() -> None:
    tokenizer = tokenizer_of("▁a", "b", remove_extra_whitespaces=True, charsmap=rules({"\t": " "}))
    assert tokenizer.normalize("\ta \t b ") == "▁a▁b"
    assert tokenizer.encode(" \t ") == []
    assert not tokenizer.lossless


def test_added_tokens_are_found_first() -> None:
    tokenizer = tokenizer_of("▁", "a", "a!", types=[UNKNOWN, CONTROL, NORMAL, NORMAL, ADDED])
    assert tokenizer.encode("aa!a") == [2, 3, 4, 2, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"types": [UNKNOWN, CONTROL, NORMAL]}, "each with a score and a type"),
        ({"algorithm": "word"}, "pieces must be distinct"),
        ({"endoftext": 9}, "special tokens must be tokens"),
        ({"unknown": None}, "neither an unknown one"),
        ({"types": [UNKNOWN, CONTROL, NORMAL, BYTE]}, "neither an unknown one nor one for each byte"),
        ({"types": [UNKNOWN, CONTROL, UNUSED, UNUSED]}, "no pieces"),
    ],
)
def test_a_vocabulary_that_contradicts_itself_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tokenizer_of("a", "b", **options)
    with pytest.raises(ValueError, match="distinct"):
        tokenizer_of("a", "a")


def test_it_is_saved_and_loaded_and_cannot_be_trained(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("▁a", "b", charsmap=rules({"A": "a"}), remove_extra_whitespaces=True)
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path)
    assert loaded.identity() == tokenizer.identity()
    assert loaded.encode("Ab") == [2, 3]
    with pytest.raises(UsageError, match=r"FILE\.model"):
        SentencePieceTokenizer.train([["text"]], Path())


# Models in SentencePiece's format.


@pytest.fixture
def model_file(tmp_path: Path) -> Callable[[str], Path]:
    def write(name: str) -> Path:
        (tmp_path / f"{name}.model").write_bytes(base64.b64decode(SAVED[name]["model"]))
        return tmp_path / f"{name}.model"

    return write


@pytest.mark.parametrize("name", SAVED)
def test_the_ids_are_those_of_the_test_models(name: str, model_file: Callable[[str], Path]) -> None:
    tokenizer = read_sentencepiece(model_file(name))
    assert (tokenizer.vocab_size, tokenizer.algorithm) == (1000, name.split("_")[2])
    assert (tokenizer.pieces[:3], tokenizer.special_ids(), tokenizer.endoftext) == (["<unk>", "<s>", "</s>"], [0, 1, 2], 2)
    assert len(SAVED[name]["goldens"]) > 40
    for text, ids in SAVED[name]["goldens"]:
        assert tokenizer.encode(text) == ids, text


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byte_fallback": True},
        {"normalization_rule_name": "identity", "add_dummy_prefix": False},
        {"remove_extra_whitespaces": False, "split_by_whitespace": False},
    ],
)
def test_a_model_that_sentencepiece_trains_gives_its_ids(model_type: str, options: dict[str, Any], tmp_path: Path) -> None:
    sentencepiece: Any = pytest.importorskip(
        "sentencepiece", reason="sentencepiece is not installed: make setup EXTRAS=dev,parity"
    )
    lines = [text for saved in SAVED.values() for text, _ in saved["goldens"]]
    (tmp_path / "lines.txt").write_text("\n".join([*lines, ODD.replace("\n", " ")]), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "lines.txt"), model_prefix=str(tmp_path / "trained"), model_type=model_type,
        vocab_size=400, hard_vocab_limit=False, minloglevel=2, num_threads=1, character_coverage=0.98, **options,
    )  # fmt: skip
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "trained.model"))
    ours = read_sentencepiece(tmp_path / "trained.model")
    assert ours.vocab_size == theirs.get_piece_size()
    for text in [*lines, *(line[::-1] for line in lines[:20]), ODD, ODD[::-1], "", "   ", "\n" * 3, "x" * 300, " ".join(lines)]:
        assert ours.encode(text) == theirs.encode(text), text
        if "<unk>" not in (tokens := theirs.encode(text, out_type=str)) and ours.unknown not in theirs.encode(text):
            assert ours.decode(ours.encode(text)) == theirs.decode(tokens)


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(MakegptError) as caught:
        read_sentencepiece(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_cut_within_a_field_is_refused(tmp_path: Path) -> None:
    content = base64.b64decode(SAVED["botchan_en_unigram_1000"]["model"])
    borders, at = {0}, 0
    while content[at] == 10:  # field 1, a piece of less than 128 bytes
        at += 2 + content[at + 1]
        borders.add(at)
    for end in {*range(1, 60), *range(60, at, 997)} - borders:
        assert "cut.model is damaged, or no SentencePiece model" in refusal(tmp_path / "cut.model", content[:end])
    assert "it ends within a field" in refusal(tmp_path / "lie.model", b"\x0a\xff\xff\xff\xff\x7f" + content)
    assert "it ends within a number" in refusal(tmp_path / "long.model", b"\xff" * 20)


def model(*pieces: tuple[str, int], trainer: bytes = b"", normalizer: bytes = b"") -> bytes:
    messages = [
        field(1, field(1, piece.encode()) + b"\x15" + struct.pack("<f", -1.0) + field(3, kind)) for piece, kind in pieces
    ]
    return b"".join(messages) + field(2, trainer) + field(3, normalizer)


LETTERS = [("<unk>", UNKNOWN), ("a", NORMAL)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (model(*LETTERS, trainer=field(3, 3)), "model_type=3 is not supported; it must be 1 (unigram) or 2 (bpe)"),
        (model(*LETTERS, trainer=field(24, 1)), "treat_whitespace_as_suffix is not supported"),
        (model(*LETTERS, normalizer=field(5, 0)), "escape_whitespaces=false is not supported"),
        (model(*LETTERS, ("<sep>", ADDED)), "user-defined pieces is not supported"),
        (model(*LETTERS, ("b", UNUSED), trainer=field(3, 2)), "unused pieces of a bpe is not supported"),
        (model(*LETTERS, ("a", NORMAL)), "pieces must be distinct"),
        (model(("<unk>", UNKNOWN)), "it has no pieces"),
        (model(*LETTERS, normalizer=field(2, b"abcdefgh")), "the rules of its normalization are damaged"),
        (model(*LETTERS).replace(b"\x15" + struct.pack("<f", -1.0), b"\x15\0\0\xc0\x7f"), "scores finite"),
        (b"", "it has no pieces"),
        (b"%PDF-1.4 no model", "no SentencePiece model"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(content: bytes, message: str, tmp_path: Path) -> None:
    assert message in refusal(tmp_path / "other.model", content)


def test_tokenize_takes_a_model_and_saves_it_in_its_own_form(
    model_file: Callable[[str], Path], tmp_path: Path, here: Here
) -> None:
    path = model_file("botchan_en_unigram_1000")
    (tmp_path / "my.txt").write_text("Because of an hereditary recklessness.\n" * 20, encoding="utf-8")
    here("tokenize", tmp_path / "my.txt", "--tokenizer", path, "-o", tmp_path / "tokens")
    saved = load_tokenizer(tmp_path / "tokens")
    assert saved.identity() == load_tokenizer(path).identity()
    ids = here("tokenize", tmp_path / "my.txt", "--tokenizer", path, "--ids").out
    assert list(map(int, ids.split())) == saved.encode("Because of an hereditary recklessness.\n" * 20)
    path.write_bytes(path.read_bytes()[:99])
    error = here("tokenize", tmp_path / "my.txt", "--tokenizer", path, "--ids", code=1).err
    assert "is damaged, or no SentencePiece model" in error
    assert error.count("\n") == 1
