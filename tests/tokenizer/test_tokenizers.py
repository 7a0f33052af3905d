"""Tokenizers against published ids and counts, and against the promise that nothing of a text is lost."""

import hashlib
import shutil
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken_ext import openai_public

from lib.config.text import TokenizeConfig
from lib.data.corpus import write_corpus
from lib.data.shards import Tokens
from lib.data.text import open_document
from lib.errors import MakegptError
from lib.tokenizer.base import Tokenizer, UnknownText
from lib.tokenizer.bpe import TIES, BPETokenizer
from lib.tokenizer.char import CharTokenizer
from lib.tokenizer.gpt2 import GPT2_VOCAB_SIZE
from lib.tokenizer.patterns import PATTERNS
from lib.tokenizer.registry import TOKENIZER_FILE, load_tokenizer, make_tokenizer
from lib.tokenizer.symbols import split_symbols
from lib.tokenizer.word import WordTokenizer, split_words

Fetched = Callable[[str], Path]

few = settings(max_examples=100, deadline=None)
any_text = st.text(st.characters(exclude_categories=["Cs"]))
#: What GPT-2's pattern and the word split tell apart: contractions, numbers, marks, runs of blanks of every kind.
PARTS = ["a", "été", "漢", "I", "7", "12", "'s", "'ll", "'", "don't", ".", ",", "--", "-", "!?", "😀", "_", "<|endoftext|>"]
PARTS += [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\x0b", "\x1c", "\x1f", "\x85", "\xa0", "\u2003", "\u2028", "\u3000"]
tricky = st.lists(st.sampled_from(PARTS), max_size=30).map("".join)


@st.composite
def cut_texts(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A text, and the same in pieces, some of them empty."""
    text = draw(st.one_of(tricky, any_text))
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return text, [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@pytest.fixture(scope="module")
def gpt2(fetched: Fetched) -> Tokenizer:
    return make_tokenizer("gpt2", [], fetched("gpt2"))


@pytest.fixture(scope="module")
def theirs(fetched: Fetched, tmp_path_factory: pytest.TempPathFactory) -> tiktoken.Encoding:
    """tiktoken's own GPT-2, read by its own loader from the same two files, which it takes for its cache."""
    cache = tmp_path_factory.mktemp("cache")
    for name in ("vocab.bpe", "encoder.json"):
        address = f"https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/{name}"
        shutil.copy(fetched("gpt2") / "gpt2" / name, cache / hashlib.sha1(address.encode()).hexdigest())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
        return tiktoken.Encoding(**openai_public.gpt2())


def tokenizer_of(kind: str, text: str, gpt2: Tokenizer) -> Tokenizer:
    """A tokenizer of `kind` that knows `text`."""
    if kind == "bpe":
        return BPETokenizer.train([["the question the rest", text]], vocab_size=265)
    return gpt2 if kind == "gpt2" else make_tokenizer(kind, [text or "\n"], Path())


def streamed(tokenizer: Tokenizer, pieces: list[str]) -> list[int]:
    return [int(id) for ids in tokenizer.encode_stream(pieces) for id in ids]


def read(folder: Path, name: str) -> str:
    return (folder / f"{name}.txt").read_bytes().decode("utf-8")


# Ids and counts; the published ones stand in references.yaml.


def test_gpt2_has_50257_ids_and_the_last_ends_a_text(gpt2: Tokenizer) -> None:
    assert gpt2.vocab_size == GPT2_VOCAB_SIZE == 50257
    assert gpt2.endoftext == 50256
    assert gpt2.decode([50256]) == "<|endoftext|>"


def test_special_tokens_are_not_looked_for_in_a_text(gpt2: Tokenizer) -> None:
    ids = gpt2.encode("a<|endoftext|>b")
    assert 50256 not in ids
    assert gpt2.decode(ids) == "a<|endoftext|>b"


def test_hamlet_has_as_many_gpt2_tokens_as_params_yaml_says(gpt2: Tokenizer, fetched: Fetched) -> None:
    assert len(gpt2.encode(read(fetched("hamlet"), "hamlet"))) == 53_603


def test_tiny_shakespeare_has_65_characters(fetched: Fetched) -> None:
    text = read(fetched("tiny_shakespeare"), "tiny_shakespeare")
    assert make_tokenizer("char", [text], Path()).vocab_size == 65
    assert len(text) == 1_115_394


def test_a_words_vocabulary_is_that_of_its_text_and_two_more(fetched: Fetched) -> None:
    text = read(fetched("the_verdict"), "the_verdict")
    assert make_tokenizer("word", [text], Path()).vocab_size == len(set(split_words(text))) + len(["<|endoftext|>", "<unk>"])


def test_every_gpt2_token_is_tiktokens_own(gpt2: Tokenizer, theirs: tiktoken.Encoding) -> None:
    assert gpt2.vocab_size == theirs.n_vocab
    assert all(gpt2.token_bytes(id) == theirs.decode_single_token_bytes(id) for id in range(theirs.n_vocab))


def test_hamlet_gives_tiktokens_own_ids(gpt2: Tokenizer, theirs: tiktoken.Encoding, fetched: Fetched) -> None:
    text = read(fetched("hamlet"), "hamlet")
    assert gpt2.encode(text) == theirs.encode_ordinary(text)


@few
@given(st.one_of(tricky, any_text))
def test_any_text_gives_tiktokens_own_ids(gpt2: Tokenizer, theirs: tiktoken.Encoding, text: str) -> None:
    assert gpt2.encode(text) == theirs.encode_ordinary(text)


# Nothing is lost.


@pytest.mark.parametrize("kind", ["gpt2", "bpe", "bytes", "char"])
@few
@given(text=st.one_of(any_text, tricky))
def test_a_lossless_tokenizer_gives_the_text_back_and_reports_its_bytes(gpt2: Tokenizer, kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind, text, gpt2)
    ids = tokenizer.encode(text)
    assert tokenizer.lossless
    assert tokenizer.decode(ids) == text
    assert all(0 <= id < tokenizer.vocab_size for id in ids)
    assert tokenizer.byte_lengths()[ids].sum() == len(text.encode("utf-8"))


@pytest.mark.parametrize("kind", ["gpt2", "bpe", "bytes", "char", "word", "symbols"])
@settings(few, max_examples=200)
@given(both=cut_texts())
def test_pieces_of_a_text_give_the_ids_of_the_whole(gpt2: Tokenizer, kind: str, both: tuple[str, list[str]]) -> None:
    text, pieces = both
    tokenizer = tokenizer_of(kind, text, gpt2)
    assert streamed(tokenizer, pieces) == tokenizer.encode(text)


@pytest.mark.parametrize("kind", ["char", "word", "symbols"])
@few
@given(both=cut_texts())
def test_a_text_in_pieces_gives_the_vocabulary_of_the_whole(kind: str, both: tuple[str, list[str]]) -> None:
    text, pieces = both
    assert (
        make_tokenizer(kind, [["\n", *pieces]], Path()).identity() == make_tokenizer(kind, [["\n" + text]], Path()).identity()
    )


def test_hamlet_in_pieces_gives_the_ids_of_the_whole(gpt2: Tokenizer, fetched: Fetched) -> None:
    text = read(fetched("hamlet"), "hamlet")
    pieces = [text[at : at + 997] for at in range(0, len(text), 997)]
    assert streamed(gpt2, pieces) == gpt2.encode(text)


def test_a_million_line_breaks_are_encoded_or_refused_in_a_line(gpt2: Tokenizer) -> None:
    text = "x" + "\n" * 1_000_000 + "y"
    try:
        ids = streamed(gpt2, [text])
    except MakegptError:
        return
    assert gpt2.decode(ids) == text


def test_ids_that_end_inside_a_character_give_its_bytes(gpt2: Tokenizer) -> None:
    for tokenizer in (gpt2, make_tokenizer("bytes", [], Path())):
        ids = tokenizer.encode("漢")
        assert len(ids) > 1
        assert tokenizer.decode_bytes(ids[:-1]) == "漢".encode()[: len(tokenizer.decode_bytes(ids[:-1]))]
        assert "\ufffd" in tokenizer.decode(ids[:-1])


def test_a_special_token_has_no_bytes(gpt2: Tokenizer) -> None:
    lengths = gpt2.byte_lengths()
    assert lengths.shape == (50257,)
    assert lengths[50256] == 0
    assert (np.delete(lengths, 50256) > 0).all()
    word = WordTokenizer.train(["a bc,"], Path())
    assert word.byte_lengths().tolist() == [1, 2, 3, 0, 0], "the mark, and the words with the blank before them"


@few
@given(text=st.one_of(any_text, tricky))
def test_the_bytes_of_words_are_those_of_the_decoded_text(text: str) -> None:
    word = WordTokenizer.train(["! " + text], Path())
    first, *others = [id for id in word.encode("! " + text) if id != word.unknown]  # a special token's own name is one
    assert word.byte_lengths()[others].sum() == len(word.decode_bytes([first, *others])) - len(word.token_bytes(first))


@pytest.mark.parametrize("id", [-1, 50257, 10**9])
def test_an_id_that_the_vocabulary_lacks_is_refused_with_the_range(gpt2: Tokenizer, id: int) -> None:
    with pytest.raises(MakegptError, match=f"id {id} is not in this gpt2 vocabulary; ids are 0 to 50256"):
        gpt2.decode([464, id])


# Characters and words.


def test_characters_are_numbered_in_code_point_order() -> None:
    tokenizer = make_tokenizer("char", ["ba", "cb", "\n"], Path())
    assert tokenizer.encode("\nabc") == [0, 1, 2, 3]


def test_an_unknown_character_is_named_with_its_position() -> None:
    tokenizer = make_tokenizer("char", ["abc "], Path())
    with pytest.raises(UnknownText, match=r"'€' \(U\+20AC\) at position 4 is not among the 4"):
        tokenizer.encode("ab a€b€")


def test_an_unknown_characters_position_is_that_in_the_whole_text() -> None:
    tokenizer = make_tokenizer("char", ["abc "], Path())
    with pytest.raises(UnknownText, match=r"'€' \(U\+20AC\) at position 9 "):
        streamed(tokenizer, ["abc ", "abc ", "a€"])


def test_words_and_marks_are_split_as_in_the_textbook() -> None:
    assert split_words("Hello, world. Is this-- a test?") == ["Hello", ",", "world", ".", "Is", "this", "--", "a", "test", "?"]
    assert split_words(" \n\u3000") == []


def test_an_unknown_word_becomes_unk_and_marks_lose_the_space_before_them() -> None:
    tokenizer = make_tokenizer("word", ["Hello, you! I like tea."], Path())
    assert not tokenizer.lossless
    assert tokenizer.decode(tokenizer.encode("Hello, do you like coffee?")) == "Hello, <unk> you like <unk> <unk>"
    assert tokenizer.decode(tokenizer.encode("I like tea, you")) == "I like tea, you"


def test_the_words_at_the_border_of_two_documents_are_separate_words(tmp_path: Path) -> None:
    for name, text in {"one.txt": "alpha omega", "two.txt": "beta gamma"}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    documents = [open_document(tmp_path / name) for name in ("one.txt", "two.txt")]
    settings = TokenizeConfig(tokenizer="word", vocab_size=None, errors="strict", shard_tokens=100)
    write_corpus(tmp_path / "tokens", documents, "word", settings, started="", on_bytes=lambda _: None)
    tokens = Tokens(tmp_path / "tokens")
    ids = tokens.read(0, len(tokens)).tolist()
    assert tokens.load_tokenizer().decode(ids) == "alpha omega <|endoftext|> beta gamma"


def test_a_text_without_a_prompt_opens_with_a_line_break_or_the_first_token(gpt2: Tokenizer) -> None:
    assert gpt2.default_prompt() == [198]
    assert make_tokenizer("char", ["ab\n"], Path()).default_prompt() == [0]
    assert make_tokenizer("char", ["ab"], Path()).default_prompt() == [0]
    assert make_tokenizer("word", ["a b"], Path()).default_prompt() == [0]


# Saved and loaded.


@pytest.mark.parametrize("kind", ["gpt2", "bpe", "bytes", "char", "word", "symbols"])
def test_a_loaded_tokenizer_gives_the_same_ids_and_is_the_same(gpt2: Tokenizer, kind: str, tmp_path: Path) -> None:
    text = "To be, or not to be – that is\u2028the question:\r\n “é” 😀 \x7f"
    tokenizer = tokenizer_of(kind, text, gpt2)
    tokenizer.save(tmp_path / TOKENIZER_FILE)
    for path in (tmp_path, tmp_path / TOKENIZER_FILE):
        loaded = load_tokenizer(path)
        assert loaded.encode(text) == tokenizer.encode(text)
        assert loaded.decode(tokenizer.encode(text)) == tokenizer.decode(tokenizer.encode(text))
        assert loaded.identity() == tokenizer.identity()
        assert (loaded.kind, loaded.vocab_size, loaded.endoftext) == (tokenizer.kind, tokenizer.vocab_size, tokenizer.endoftext)


def test_a_tokenizer_is_saved_as_the_same_bytes_whatever_the_order_of_the_text(tmp_path: Path) -> None:
    for kind, size in (("char", None), ("word", None), ("bpe", 258)):
        make_tokenizer(kind, ["b a c "], Path(), size).save(tmp_path / "one.json")
        make_tokenizer(kind, ["c a b a "], Path(), size).save(tmp_path / "two.json")
        assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_tokenizers_that_differ_have_different_identities(gpt2: Tokenizer) -> None:
    others = [make_tokenizer("bytes", [], Path()), CharTokenizer("ab"), CharTokenizer("ba"), CharTokenizer("abc")]
    others += [BPETokenizer.train(["ab cd"], vocab_size=258, ties=ties, pattern=p) for ties in TIES for p in PATTERNS]
    assert len({tokenizer.identity() for tokenizer in [gpt2, *others, WordTokenizer.train(["a b"], Path())]}) == 6 + len(
        TIES
    ) * len(PATTERNS)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"kind": "gpt5"}',
        '{"kind": "char"}',
        '{"kind": "char", "characters": "aa"}',
        '{"kind": "char", "characters": 3}',
        '{"kind": "word", "words": ["a"]}',
        '{"kind": "symbols", "symbols": ["ab"]}',
        '{"kind": "symbols", "symbols": [" A", " A"]}',
        '{"kind": "gpt2", "tokens": ["?"]}',
        '{"kind": "bpe", "tokens": []}',
        '{"kind": "bpe", "pattern": "(", "tokens": []}',
    ],
)
def test_a_damaged_tokenizer_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / TOKENIZER_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(MakegptError, match=r"tokenizer\.json is (damaged|not a makegpt tokenizer)"):
        load_tokenizer(tmp_path)


def test_a_missing_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(MakegptError, match=r"tokenizer\.json is missing"):
        load_tokenizer(tmp_path)


def test_gpt2_without_its_files_says_how_to_fetch_them(tmp_path: Path) -> None:
    with pytest.raises(MakegptError, match=r"vocab\.bpe is missing; .*`fetch gpt2`"):
        make_tokenizer("gpt2", [], tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("vocab.bpe", b"#version: 0.2\nt h\n"), ("encoder.json", b'{"!": 0}'), ("encoder.json", b'{"!":'), ("vocab.bpe", b"\xff")],
)
def test_gpt2s_files_that_do_not_fit_are_refused(tmp_path: Path, fetched: Fetched, name: str, content: bytes) -> None:
    shutil.copytree(fetched("gpt2") / "gpt2", tmp_path / "gpt2")
    (tmp_path / "gpt2" / name).write_bytes(content)
    with pytest.raises(MakegptError, match=name):
        make_tokenizer("gpt2", [], tmp_path)


def test_a_space_and_what_comes_after_it_is_one_symbol() -> None:
    tokenizer = make_tokenizer("symbols", [["cat", " K AE T"]], Path())
    assert tokenizer.symbols == ["a", "c", "t", " AE", " K", " T"]  # type: ignore[attr-defined]
    assert tokenizer.encode("act AE K") == [0, 1, 2, 3, 4]
    assert tokenizer.decode([1, 0, 2, 4, 3, 5]) == "cat K AE T"
    with pytest.raises(UnknownText, match="' B' is not among the 6 symbols of this tokenizer, as 'a' and ' T' are"):
        tokenizer.encode("act B")
    assert split_symbols("a  b\tc \n d") == ["a", " ", " b", "\t", "c", " ", "\n", " d"]
