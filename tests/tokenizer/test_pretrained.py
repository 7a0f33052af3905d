"""The byte-level BPE of pretrained weights: its patterns, the bytes it lacks, and Hugging Face's tokenizers as reference."""

from itertools import product
from pathlib import Path
from typing import Any, Callable

import pytest
import regex

from lib.errors import UsageError
from lib.gguf.reader import open_gguf
from lib.gguf.tokenizer import read_tokenizer
from lib.tokenizer.base import UnknownText
from lib.tokenizer.patterns import LLAMA_CPP_NAMES, PATTERNS, split, steps_of
from lib.tokenizer.pretrained import PretrainedTokenizer, from_merges
from lib.tokenizer.registry import load_tokenizer

TEXTS = [
    "The capital of France is",
    "  12  345a\n\n 7  \t8\u00a0 9 ½ ² ٣ x1y",
    "Don't we'll 'RE  end ",
    "é😀 \U0010ffff e\u0301 \u3000 ",
    "\n\n\n a" + " " * 5000 + "1" + " " * 5000 + "b" + " " * 5000,
    "it's!\n\n a.\n\tb;\r\n\r\n  $c\n \n #?\u0301 漢字。\n漢字\n",
    "!" + "\n" * 4100 + " " * 4100 + "\n\t  x!" + "\n" * 4100 + ".",
    "",
]


def in_two_steps(text: str) -> list[str]:
    """Digits by themselves, then GPT-2's pattern on what is between them: what smollm is defined as."""
    parts = [part for part in regex.split(r"(\p{N})", text) if part]
    return [piece for part in parts for piece in regex.findall(PATTERNS["gpt2"], part)]


def test_the_smollm_pattern_is_two_steps_in_one() -> None:
    texts = ["".join(parts) for parts in product([" ", "\n", "1", "a", "'s", ".", "½"], repeat=5)]
    for text in [*texts, *TEXTS]:
        assert regex.findall(PATTERNS["smollm"], text) == in_two_steps(text)


def small(missing: bytes = b"", pattern: str = "smollm") -> PretrainedTokenizer:
    tokens = [b"<end>", *(bytes([byte]) for byte in range(256) if byte not in missing), b"  ", b"    ", b"he"]
    return PretrainedTokenizer(pattern, tokens, [0], 0)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("pattern", LLAMA_CPP_NAMES)
def test_encoding_is_lossless(text: str, pattern: str) -> None:
    tokenizer = small(pattern=pattern)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("pattern", LLAMA_CPP_NAMES)
def test_a_text_in_pieces_has_the_ids_of_the_whole_text(text: str, pattern: str) -> None:
    tokenizer, text = small(pattern=pattern), f"hehe {text} he{text}"
    for size in (1, 2, 3, 7):
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        assert [int(id) for ids in tokenizer.encode_stream(pieces) for id in ids] == tokenizer.encode(text)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("pattern", LLAMA_CPP_NAMES)
def test_the_words_of_a_text_are_those_of_the_pattern(pattern: str, text: str) -> None:
    tokenizer = small(pattern=pattern)
    words = split(text, steps_of(LLAMA_CPP_NAMES[pattern]))
    assert "".join(words) == text
    assert tokenizer.encode(text) == [id for word in words for id in tokenizer.encode(word)]


def test_what_a_step_leaves_is_a_word() -> None:
    assert split("ab1c22", [r"\d"]) == ["ab", "1", "c", "2", "2"]
    assert split("ab1c22", [r"\d+", "b|2"]) == ["a", "b", "1", "c", "2", "2"]
    assert split("", [r"\d"]) == []
    tokenizer = PretrainedTokenizer([r"\d"], [*(bytes([byte]) for byte in range(256)), b"ab", b"22"], [], None)
    assert tokenizer.encode("ab1c22") == [256, *b"1c22"]


def test_added_tokens_are_found_before_the_pattern_and_the_longest_first() -> None:
    tokens = [*(bytes([byte]) for byte in range(256)), b"he", b"<end>", b"<t>", b"<t> he"]
    tokenizer = PretrainedTokenizer("gpt-2", tokens, [257], 257, added=[258, 259])
    assert tokenizer.encode("he<t> he<end><t>") == [256, 259, *b"<end>", 258]
    assert tokenizer.byte_lengths()[257:].tolist() == [0, 3, 6]
    pieces = ["he<t", "> h", "e<end>", "<t>"]
    assert [int(id) for ids in tokenizer.encode_stream(pieces) for id in ids] == tokenizer.encode("".join(pieces))
    assert PretrainedTokenizer.from_saved(tokenizer.saved()).encode("he<t>") == [256, 258]


def test_a_text_is_composed_first_if_the_vocabulary_says_so() -> None:
    tokens, text = [bytes([byte]) for byte in range(256)], "e\u0301 e \u0301e\u0301"
    tokenizer = PretrainedTokenizer("qwen2", tokens, [], None, nfc=True)
    assert tokenizer.decode(tokenizer.encode(text)) == "é e \u0301é"
    assert [int(id) for ids in tokenizer.encode_stream(text) for id in ids] == tokenizer.encode(text)
    assert PretrainedTokenizer.from_saved(tokenizer.saved()).nfc


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pattern": ["("]}, r"the pattern '\(' is no regular expression"),
        ({"tokens": [b"a", b"a"]}, "distinct"),
        ({"tokens": [b"a", b""]}, "not empty"),
        ({"special": [2]}, "must be tokens"),
        ({"endoftext": 0}, "must be tokens"),
        ({"special": [1], "added": [1]}, "distinct"),
        ({"added": [1, 2], "tokens": [b"a", b"b", b"b"]}, "added tokens must be distinct"),
    ],
)
def test_a_vocabulary_that_is_none_is_refused(change: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {"pattern": "gpt-2", "tokens": [b"a", b"b"], "special": [], "endoftext": None}
    with pytest.raises(ValueError, match=message):
        PretrainedTokenizer(**(values | change))


def test_names_of_special_tokens_are_ordinary_text() -> None:
    assert 0 not in small().encode("<end>")
    assert small().byte_lengths()[0] == 0


def test_a_character_with_a_byte_that_has_no_token_is_refused() -> None:
    with pytest.raises(UnknownText, match=r"no token for the byte 0x04 of '\\x04' \(U\+0004\)"):
        small(b"\x04").encode("a\x04b")
    with pytest.raises(UnknownText, match=r"0xf1 of .* \(U\+40000\)"):
        small(b"\xf1").encode("a\U00040000")
    with pytest.raises(UnknownText, match="0x04"):
        list(small(b"\x04").encode_stream(["he a", "\x04b"]))


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    small(b"\x04").save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path)
    assert loaded.identity() == small(b"\x04").identity()
    assert loaded.endoftext == 0


def test_it_cannot_be_trained() -> None:
    with pytest.raises(UsageError, match="import-weights"):
        PretrainedTokenizer.train([["text"]], Path())


def test_a_merge_that_never_happens_is_refused() -> None:
    with pytest.raises(ValueError, match="never the last one"):  # bc has a lower id than ab, so abc is a and bc
        from_merges("gpt-2", ["a", "b", "c", "bc", "ab", "abc"], ["b c", "a b", "ab c"], {}, None)


def test_smollm2_encodes_as_hugging_face_does(fetched: Callable[[str], Path]) -> None:
    tokenizers: Any = pytest.importorskip("tokenizers", reason="tokenizers is not installed: make setup EXTRAS=dev,parity")
    folder = fetched("smollm2")
    with open_gguf(folder / "smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf") as file:
        ours = read_tokenizer(file)
        written, merges = file.values["tokenizer.ggml.tokens"], file.values["tokenizer.ggml.merges"]
    vocabulary = {token: id for id, token in enumerate(written)}
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in merges]))
    pre = tokenizers.pre_tokenizers
    theirs.pre_tokenizer = pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)])
    hamlet = (fetched("hamlet") / "hamlet.txt").read_text(encoding="utf-8")
    for text in [*TEXTS, hamlet]:
        text = text.replace("\U0010ffff", "")  # a byte that SmolLM2 lacks
        assert ours.encode(text) == theirs.encode(text).ids
        assert ours.decode(ours.encode(text)) == text
    for character in "\x04\x06\x13\x14\x16\x1d\U00040000":
        with pytest.raises(UnknownText):
            ours.encode(character)
