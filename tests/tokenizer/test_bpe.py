"""Byte-pair encodings that are learned here, against the trainers of others."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.artifact.io import read_json
from lib.artifact.manifest import read_manifest
from lib.config.params import load_params, resolve_config
from lib.data.corpus import write_corpus
from lib.data.dataset import split_sizes
from lib.data.shards import Tokens
from lib.data.text import open_document
from lib.data.vocabulary import first_bytes
from lib.errors import MakegptError, UsageError
from lib.huggingface.tokenizer import from_hf_tokenizer, to_hf_tokenizer
from lib.tokenizer.bpe import TIES, BPETokenizer
from lib.tokenizer.byte_alphabet import byte_string
from lib.tokenizer.merges import count_words, learn_merges, learn_merges_naively
from lib.tokenizer.patterns import PATTERNS
from lib.tokenizer.registry import load_tokenizer
from tests.conftest import Here

Fetched = Callable[[str], Path]
few = settings(max_examples=200, deadline=None)
SIZES = [1024, 4096]
ODD = "It's 1851: the whale!  “Whale”\n\n\t\u3000漢字 🐋 <|endoftext|> 't 2\u0301 \x00\x1c"


@pytest.fixture(scope="module")
def text(fetched: Fetched) -> str:
    """The training split of Tiny Shakespeare, about."""
    content = (fetched("tiny_shakespeare") / "tiny_shakespeare.txt").read_text(encoding="utf-8")
    return content[: len(content) * 9 // 10]


def trained(text: str, vocab_size: int, **options: str) -> BPETokenizer:
    return BPETokenizer.train([[text]], vocab_size=vocab_size, **options)


# Merges.


def test_the_published_example_gives_its_three_merges_and_ids() -> None:
    tokenizer = trained("aaabdaaabac", 260)
    assert tokenizer.tokens[256:] == [b"aa", b"ab", b"aaab"]  # Wikipedia, "Byte-pair encoding": Z=aa, Y=ab, X=ZY; XdXac
    # karpathy/minbpe, tests/test_tokenizer.py: its second merge is another of the two most frequent pairs, its ids are the same
    assert tokenizer.encode("aaabdaaabac") == [258, 100, 258, 97, 99]


def test_of_equally_frequent_pairs_the_lowest_left_then_the_lowest_right_is_merged_first() -> None:
    assert learn_merges({"zy": 2, "ab": 2, "ac": 2}, 3) == ["ab", "ac", "zy"]
    assert learn_merges({"zy": 3, "ab": 2}, 2) == ["zy", "ab"]


words = st.dictionaries(st.text("abc", min_size=1, max_size=12), st.integers(1, 4), min_size=1, max_size=12)


@few
@given(words=words, size=st.integers(0, 30))
def test_the_fast_way_learns_what_the_naive_one_learns(words: dict[str, int], size: int) -> None:
    assert learn_merges(words, size) == learn_merges_naively(words, size)


def test_the_fast_way_learns_what_the_naive_one_learns_from_a_play(text: str) -> None:
    counted = count_words([[text[:100_000]]], "gpt2")
    assert learn_merges(counted, 60) == learn_merges_naively(counted, 60)


@few
@given(words=words, size=st.integers(1, 30), word=st.text("abc", max_size=14))
def test_encoding_by_ranks_is_applying_every_merge_in_turn(words: dict[str, int], size: int, word: str) -> None:
    merges = learn_merges(words, size)
    tokens = [bytes([byte]) for byte in range(256)]
    applied = word
    for rank, pair in enumerate(merges):
        tokens.append(tokens[ord(pair[0])] + tokens[ord(pair[1])])
        applied = applied.replace(pair, chr(256 + rank))
    assert BPETokenizer(tokens).encode(word) == list(map(ord, applied))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_words_are_counted_alike_in_any_pieces(pattern: str, text: str) -> None:
    part = text[:20_000] + ODD * 3
    whole = count_words([[part]], pattern)
    draw = random.Random(1)
    for _ in range(5):
        places = sorted(draw.sample(range(len(part)), 50))
        pieces = [part[a:b] for a, b in zip([0, *places], [*places, len(part)], strict=True)]
        assert count_words([pieces], pattern) == whole
    assert sum(len(word) * times for word, times in whole.items()) == len(part)


def test_digits_makes_each_digit_a_word() -> None:
    assert count_words([["in 1851, 12"]], "digits") == Counter(["in", " ", "1", "8", "5", "1", ",", " ", "1", "2"])
    assert count_words([["in 1851, 12"]], "gpt2") == Counter(["in", " 1851", ",", " 12"])


# The trainers of others.


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("size", SIZES)
def test_every_merge_is_rustbpes_own(text: str, size: int, pattern: str) -> None:
    rustbpe = pytest.importorskip("rustbpe", reason="rustbpe is not installed; make setup EXTRAS=dev,parity")
    theirs = rustbpe.Tokenizer()
    theirs.train_from_iterator([text], size, pattern=PATTERNS[pattern])
    tokens = [bytes(token) for token, _ in sorted(theirs.get_mergeable_ranks(), key=lambda entry: entry[1])]
    ours = trained(text, size + 1, pattern=pattern)
    assert len(tokens) == size
    assert ours.tokens == tokens
    assert ours.encode(ODD + text[:5000]) == theirs.encode(ODD + text[:5000])


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("size", SIZES)
def test_every_merge_and_id_is_that_of_hugging_faces_tokenizers(text: str, size: int, pattern: str) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed; make setup EXTRAS=dev,parity")
    steps, initial = tokenizers.pre_tokenizers, tokenizers.pre_tokenizers.ByteLevel.alphabet()
    split = steps.Split(tokenizers.Regex(PATTERNS[pattern]), "isolated")
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = steps.Sequence([split, steps.ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=initial)
    theirs.train_from_iterator([text], trainer)
    ours = trained(text, size + 1, pattern=pattern, ties="hf")
    vocabulary = theirs.get_vocab()
    assert [byte_string(token) for token in ours.tokens] == sorted(vocabulary, key=vocabulary.__getitem__)
    saved = to_hf_tokenizer(ours)
    assert saved is not None
    merges = json.loads(theirs.to_str())["model"]["merges"]
    assert saved["tokenizer.json"]["model"]["merges"] == merges
    for sample in (ODD, text[:100_000]):
        assert ours.encode(sample) == theirs.encode(sample).ids


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_tokenizers_reads_an_export_and_gives_the_same_ids(text: str, pattern: str, ties: str) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed; make setup EXTRAS=dev,parity")
    ours = trained(text, 600, pattern=pattern, ties=ties)
    saved = to_hf_tokenizer(ours)
    assert saved is not None
    content = saved["tokenizer.json"]
    theirs = tokenizers.Tokenizer.from_str(json.dumps(content))
    for sample in (ODD.replace("<|endoftext|>", ""), text[:20_000]):
        assert ours.encode(sample) == theirs.encode(sample).ids
        assert theirs.decode(theirs.encode(sample).ids) == sample
    assert theirs.token_to_id("<|endoftext|>") == ours.endoftext == 599
    again = from_hf_tokenizer(content)
    assert again.encode(ODD) == ours.encode(ODD)
    assert (again.kind == "gpt2") == (pattern == "gpt2" and ties == "hf")


# What is refused.


@pytest.mark.parametrize("size", [None, 0, 256])
def test_a_vocabulary_smaller_than_the_bytes_is_refused(size: int | None) -> None:
    with pytest.raises(UsageError, match=f"vocab_size={size} must be at least 257"):
        BPETokenizer.train([["text"]], vocab_size=size)


def test_a_text_too_short_for_the_vocabulary_is_refused_with_the_largest_that_it_gives() -> None:
    with pytest.raises(MakegptError, match="with 258 tokens each of its words is one; use 258 or fewer, or a longer text"):
        trained("ab", 259)
    assert trained("ab", 258).encode("ab") == [256]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--tokenizer", "bpe"], "tokenize.tokenizer=bpe needs tokenize.vocab_size"),
        (["--tokenizer", "bpe", "--vocab-size", "256"], "tokenize.vocab_size=256 must be between 257 and"),
        (["--vocab-size", "300"], "tokenize.vocab_size=300 is not supported by tokenize.tokenizer=gpt2"),
        (["--tokenizer", "char", "--vocab-size", "300"], "not supported by tokenize.tokenizer=char"),
        (["--train", "gpt2"], "--train gpt2 is unknown; known: bpe, char, symbols, unigram, word"),
        (["--train", "bpe"], "tokenize.tokenizer=bpe needs tokenize.vocab_size"),
        (["--train", "bpe", "--vocab-size", "300", "--pattern", "("], "--pattern ( is unknown; known: "),
        (["--train", "bpe", "--vocab-size", "300", "--ties", "low"], "--ties low is unknown; known: "),
        (["--train", "char", "--ties", "hf"], "--pattern and --ties are not supported by --train char"),
        (["--ties", "hf"], "--pattern and --ties need --train bpe"),
        (["--train", "bpe", "--vocab-size", "300", "--tokenizer", "bpe"], "--train writes a vocabulary to a folder"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_a_line(options: list[str], says: str, tmp_path: Path, here: Here) -> None:
    (tmp_path / "my.txt").write_text("To be, or not to be: that is the question.\n", encoding="utf-8")
    error = here("tokenize", tmp_path / "my.txt", "-o", tmp_path / "out", *options, code=2).err
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_empty_and_a_short_text_are_refused_in_a_line(tmp_path: Path, here: Here) -> None:
    for content, says in (("", "is empty"), ("To be", "is too short for a vocabulary of 999")):
        (tmp_path / "my.txt").write_text(content, encoding="utf-8")
        options = ["--train", "bpe", "--vocab-size", "999", "-o", tmp_path / "out"]
        error = here("tokenize", tmp_path / "my.txt", *options, code=1).err
        assert says in error
        assert error.count("\n") == 1
        assert not (tmp_path / "out").exists()


# The command, and what the vocabulary is learned from.


def test_a_vocabulary_is_learned_before_what_is_held_out(text: str, tmp_path: Path) -> None:
    first, second = text[:30_000], "QZ" * 5_000  # the last quarter has pairs that are nowhere else
    (tmp_path / "one.txt").write_text(first[:10_001], encoding="utf-8")
    (tmp_path / "two.txt").write_text(first[10_001:] + second, encoding="utf-8")
    documents = [open_document(tmp_path / name) for name in ("one.txt", "two.txt")]
    changes = ["tokenize.tokenizer=bpe", "tokenize.vocab_size=400", "build-dataset.val_fraction=0.15"]
    config = resolve_config(load_params(), None, [*changes, "build-dataset.test_fraction=0.1"])
    write_corpus(
        tmp_path / "tokens", documents, "bpe", config.tokenize, config.build_dataset, started="", on_bytes=lambda _: None
    )
    tokens = Tokens(tmp_path / "tokens")
    tokenizer = tokens.load_tokenizer()
    assert isinstance(tokenizer, BPETokenizer)
    assert tokenizer.identity() == BPETokenizer.train([[first[:10_001]], [first[10_001:]]], vocab_size=400).identity()
    assert not any(b"QZ" in token for token in tokenizer.tokens)
    ids = tokens.read(0, len(tokens)).tolist()
    assert tokenizer.decode(ids) == first[:10_001] + "<|endoftext|>" + first[10_001:] + second
    recorded = read_manifest(tmp_path / "tokens", "tokens").parameters
    assert (recorded["vocab_size"], recorded["val_fraction"], recorded["test_fraction"]) == (400, 0.15, 0.1)


@pytest.mark.parametrize("tail", ["the king the king ", "QZ7 "])
def test_no_byte_that_was_learned_from_is_held_out(text: str, tail: str, tmp_path: Path) -> None:
    (tmp_path / "my.txt").write_text(text[:20_000] + tail * (8_000 // len(tail)), encoding="utf-8")
    config = resolve_config(load_params(), None, ["tokenize.tokenizer=bpe", "tokenize.vocab_size=400"])
    documents = [open_document(tmp_path / "my.txt")]
    manifest = write_corpus(
        tmp_path / "tokens", documents, "bpe", config.tokenize, config.build_dataset, started="", on_bytes=lambda _: None
    )
    tokens = Tokens(tmp_path / "tokens")
    train, _, _ = split_sizes(len(tokens), 0.1, 0.0)
    learned = manifest.metadata["learned_bytes"]
    assert len(tokens.load_tokenizer().decode_bytes(tokens.read(0, train).tolist())) >= learned > 20_000


def test_the_learned_part_ends_before_a_character_that_would_be_cut(tmp_path: Path) -> None:
    (tmp_path / "my.txt").write_text("漢字" * 2, encoding="utf-8")  # 3 bytes each
    documents = [open_document(tmp_path / "my.txt")] * 2
    for size, texts in ((6, ["漢字"]), (8, ["漢字"]), (9, ["漢字漢"]), (12, ["漢字漢字"]), (16, ["漢字漢字", "漢"])):
        assert ["".join(pieces) for pieces in first_bytes(documents, "strict", size)] == texts


def learned_bytes(folder: Path) -> int:
    return int(read_manifest(folder, "tokenizer").metadata["learned_bytes"])


def test_a_trained_vocabulary_is_an_artifact_that_tokenize_takes(text: str, tmp_path: Path, here: Here) -> None:
    (tmp_path / "my.txt").write_text(text[:50_000], encoding="utf-8")
    folder = tmp_path / "tokenizer"
    err = here("tokenize", tmp_path / "my.txt", "--train", "bpe", "--vocab-size", "500", "-o", folder).err
    assert "500 tokens (bpe), learned from the first 44,945 of 50,000 bytes" in err, "those of the first 90% of tokens"
    assert "is: tokenizer" in here("inspect", folder, "--verify").out
    assert read_json(folder / "tokenizer.json")["kind"] == "bpe"
    here("tokenize", tmp_path / "my.txt", "--tokenizer", folder, "-o", tmp_path / "one")
    here("tokenize", tmp_path / "my.txt", "--tokenizer", "bpe", "--vocab-size", "500", "-o", tmp_path / "two")
    for name in ("tokenizer.json", "shard-00000.npy"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    options = ["--pattern", "digits", "--ties", "hf"]
    here("tokenize", tmp_path / "my.txt", "--train", "bpe", "--vocab-size", "500", *options, "-o", folder)
    assert (
        load_tokenizer(folder).identity() == trained(text[: learned_bytes(folder)], 500, pattern="digits", ties="hf").identity()
    )
