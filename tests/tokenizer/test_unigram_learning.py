"""Learning a Unigram vocabulary: expectation maximization, removal, the tokenizer, and SentencePiece's trainer."""

import json
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.vocabularies import bytes_per_token, train_sentencepiece
from lib.errors import MakegptError, UsageError
from lib.tokenizer.registry import load_tokenizer
from lib.tokenizer.unigram import best_segmentation_naively
from lib.tokenizer.unigram_learning import Lattice, expected_counts_naively, learn_pieces, removal_losses
from lib.tokenizer.unigram_tokenizer import UnigramTokenizer, count_words
from tests.conftest import Here

TEXT = "To be, or not to be: that is the question.\n\nWhether 'tis nobler in the mind to suffer the slings of 1599\n" * 3

longer = st.dictionaries(st.text("ab", min_size=2, max_size=4), st.integers(1, 9), max_size=8)
counted = st.dictionaries(st.text("ab", min_size=1, max_size=7), st.integers(1, 9), min_size=1, max_size=6)


@settings(max_examples=100, deadline=None)
@given(longer=longer, words=counted)
def test_the_sums_and_the_best_way_are_those_over_all_ways(longer: dict[str, int], words: dict[str, int]) -> None:
    weights = {"a": 3, "b": 2} | longer
    probabilities = {piece: weight / sum(weights.values()) for piece, weight in weights.items()}
    lattice, p = Lattice(words, list(weights)), np.array(list(probabilities.values()))
    expected = expected_counts_naively(words, probabilities)
    np.testing.assert_allclose(lattice.expected_counts(p), list(expected.values()), rtol=1e-12, atol=1e-12)
    scores = {piece: float(np.log(chance)) for piece, chance in probabilities.items()}
    best = [np.exp(sum(scores[piece] for piece in best_segmentation_naively(word, scores, -99.0))) for word in words]
    np.testing.assert_allclose(lattice.best(p), best, rtol=1e-12)


def test_a_long_word_has_the_counts_of_its_parts() -> None:
    pieces, p = ["a", "aa"], np.array([1e-9, 1e-12])
    counts = Lattice({"a" * 40: 1}, pieces).expected_counts(p)
    assert counts @ [1, 2] == pytest.approx(40)


def test_the_piece_that_is_removed_is_the_one_that_its_others_replace_best() -> None:
    pieces, p = ["a", "b", "ab", "ba"], np.array([0.4, 0.3, 0.2, 0.1])
    counts = Lattice({"aba": 6, "ab": 4}, pieces).expected_counts(p)
    losses = removal_losses(pieces, p, counts)
    assert losses[2] == pytest.approx(counts[2] * np.log(0.2 / 0.12))
    assert losses[3] == pytest.approx(counts[3] * np.log(0.1 / 0.12))
    assert losses[3] < losses[2]


def test_the_vocabulary_has_every_character_and_the_size_that_was_asked_for() -> None:
    words = {"▁low": 5, "▁lower": 2, "▁newer": 6, "▁wider": 3}
    scores = learn_pieces(words, 12)
    assert len(scores) == 12
    assert set("▁lowernwid") <= scores.keys()
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert learn_pieces(dict(reversed(words.items())), 12) == scores, "the order of the words does not matter"


def test_words_are_letters_digits_or_marks_with_their_space() -> None:
    assert set(count_words([["it's 12b\n\n y"]])) == {"▁it", "'", "s", "▁12", "b", "\n\n", "▁y"}


def test_rare_characters_become_bytes_and_the_text_comes_back() -> None:
    text = TEXT * 40 + "🐋"
    tokenizer = UnigramTokenizer.train([[text]], vocab_size=350)
    assert (tokenizer.vocab_size, tokenizer.endoftext) == (350, 349)
    assert "🐋" not in tokenizer.pieces
    assert "▁the" in tokenizer.pieces
    for odd in (text, "", " ", "  two  spaces \n\t 漢字 🐋"):
        assert tokenizer.decode(tokenizer.encode(odd)) == odd
    assert len(tokenizer.encode(TEXT)) < len(TEXT) / 3


@pytest.mark.parametrize("size", [None, 100, 270])
def test_a_size_without_room_for_the_characters_is_refused(size: int | None) -> None:
    with pytest.raises(UsageError, match=rf"vocab_size={size} must be at least \d+ for unigram on this text"):
        UnigramTokenizer.train([[TEXT]], vocab_size=size)


def test_a_text_that_is_too_short_is_refused() -> None:
    with pytest.raises(MakegptError, match=r"too short for a vocabulary of 4096: it has (\d+) pieces; use \d+ or fewer"):
        UnigramTokenizer.train([[TEXT]], vocab_size=4096)
    with pytest.raises(UsageError, match="at least 258"):
        UnigramTokenizer.train([[""]], vocab_size=257)


def test_tokenize_trains_one_and_takes_it(here: Here, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT * 5 + "zzz zzz zzz" * 4, encoding="utf-8")
    result = here("tokenize", tmp_path / "a.txt", "--train", "unigram", "--vocab-size", 320, "-o", tmp_path / "vocabulary")
    assert "320 tokens (unigram), learned from the first" in result.err
    tokenizer = load_tokenizer(tmp_path / "vocabulary")
    assert isinstance(tokenizer, UnigramTokenizer)
    assert "z" not in tokenizer.pieces, "the end of the text is held out"
    manifest = json.loads((tmp_path / "vocabulary" / "manifest.json").read_text())
    assert manifest["parameters"] == {
        "tokenizer": "unigram", "errors": "strict", "vocab_size": 320, "val_fraction": 0.1, "test_fraction": 0.0,
    }  # fmt: skip
    here("tokenize", tmp_path / "a.txt", "--tokenizer", tmp_path / "vocabulary", "-o", tmp_path / "tokens")
    here("tokenize", tmp_path / "a.txt", "--tokenizer", "unigram", "--vocab-size", 320, "-o", tmp_path / "again")
    assert (tmp_path / "tokens" / "shard-00000.npy").read_bytes() == (tmp_path / "again" / "shard-00000.npy").read_bytes()


def test_held_out_text_takes_about_as_many_tokens_as_with_sentencepiece(fetched: Callable[[str], Path]) -> None:
    pytest.importorskip("sentencepiece", reason="sentencepiece is not installed: make setup EXTRAS=dev,parity")
    text = (fetched("hamlet") / "hamlet.txt").read_text(encoding="utf-8")
    learned, held_out = text[20_000:60_000], text[60_000:70_000]
    ours, theirs = UnigramTokenizer.train([[learned]], vocab_size=600), train_sentencepiece(learned, 600)
    assert theirs is not None
    assert bytes_per_token(ours, held_out) > 0.97 * bytes_per_token(theirs, held_out)
