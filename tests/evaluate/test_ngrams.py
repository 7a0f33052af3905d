"""Counted n-grams against a sum done by hand, and the laws of probability; references.yaml has the values of others."""

import itertools
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lib.config.schema import TokenizeConfig
from lib.data.corpus import write_corpus
from lib.data.shards import Tokens
from lib.data.text import open_document
from lib.evaluate import ngrams
from lib.evaluate.ngrams import NGRAM_NAMES, NGrams


def tokens_of(folder: Path, path: Path, kind: str, shard_tokens: int = 1 << 24) -> Tokens:
    settings = TokenizeConfig(tokenizer=kind, errors="strict", shard_tokens=shard_tokens)
    write_corpus(folder / "tokens", [open_document(path)], kind, settings, started="", on_bytes=lambda _: None)
    return Tokens(folder / "tokens")


def nats(counted: NGrams, tokens: Tokens, start: int, stop: int) -> list[float]:
    """The summed loss of the ids `start` to `stop`, one sum for each order."""
    parts = list(counted.nats(tokens, start, stop))
    return [float(sum(part[NGRAM_NAMES[n]].sum() for part in parts)) for n in range(1, len(counted.orders) + 1)]


def letters(folder: Path, text: str, shard_tokens: int = 7) -> Tokens:
    """The tokens of `text`, a character each, in shards of seven."""
    (folder / "text.txt").write_text(text, encoding="utf-8")
    return tokens_of(folder, folder / "text.txt", "char", shard_tokens)


def test_a_sum_done_by_hand_comes_out(tmp_path: Path) -> None:
    """Counted on abaab, V = 3, scored on a and then c.

    Unigrams: N = 5, T = 2; p(a) = (3 + 2/3)/7, p(b) = (2 + 2/3)/7, p(c) = (0 + 2/3)/7.
    Bigrams: after b stood a, once; p(a|b) = (1 + p(a))/2. After a stood b, b and a; p(c|a) = (0 + 2 p(c))/5.
    """
    tokens = letters(tmp_path, "abaabac")
    p_a, p_c = Fraction(11, 21), Fraction(2, 21)
    unigram, bigram = nats(NGrams(tokens, 0, 5, 2, 3), tokens, 5, 7)
    assert unigram == pytest.approx(-math.log(p_a * p_c))
    assert bigram == pytest.approx(-math.log((1 + p_a) / 2 * (2 * p_c / 5)))


def by_definition(ids: list[int], train: int, at: int, order: int, vocabulary: int) -> Fraction:
    """The probability of the id at place `at`, read off the formula, with counting by search."""
    p = Fraction(1, vocabulary)
    for n in range(1, order + 1):
        if at < n - 1:
            break
        context = ids[at - n + 1 : at]
        followers = [ids[i + n - 1] for i in range(train - n + 1) if ids[i : i + n - 1] == context]
        if followers:
            distinct = len(set(followers))
            p = (followers.count(ids[at]) + distinct * p) / (len(followers) + distinct)
    return p


def test_every_order_is_what_the_definition_says(tmp_path: Path) -> None:
    text = "a rose is a rose is a rose, and is as is a nose; so is x"
    tokens = letters(tmp_path, text)
    ids = tokens.read(0, len(tokens)).tolist()
    train, vocabulary = 40, len(set(text))
    counted = NGrams(tokens, 0, train, 5, vocabulary)
    for at in range(train, len(ids)):
        expected = [-math.log(by_definition(ids, train, at, order, vocabulary)) for order in range(1, 6)]
        assert nats(counted, tokens, at, at + 1) == pytest.approx(expected), at


def test_the_first_tokens_of_a_text_have_as_much_context_as_there_is(tmp_path: Path) -> None:
    tokens = letters(tmp_path, "abcabcab")
    ids = tokens.read(0, 8).tolist()
    counted = NGrams(tokens, 0, 8, 4, 3)
    expected = [sum(-math.log(by_definition(ids, 8, at, order, 3)) for at in range(8)) for order in range(1, 5)]
    assert nats(counted, tokens, 0, 8) == pytest.approx(expected)


@pytest.mark.parametrize("block", [1, 2, 3, 10, 41])
def test_the_size_of_the_blocks_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    tokens = letters(tmp_path, "a rose is a rose is a rose, and is as is a nose; so is x")
    whole = nats(NGrams(tokens, 3, 40, 5, 14), tokens, 40, len(tokens))
    monkeypatch.setattr(ngrams, "_BLOCK", block)
    cut = NGrams(tokens, 3, 40, 5, 14)
    assert nats(cut, tokens, 40, len(tokens)) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("context", ["a", "ab", "ro", "is a", "zz", "xyzw"])
def test_the_probabilities_after_a_context_sum_to_one(tmp_path: Path, context: str) -> None:
    train = "a rose is a rose is a rose, and is as is a nose"
    vocabulary = sorted({*train, *"xyzw", *context})
    endings = "".join(context + letter for letter in vocabulary)
    tokens = letters(tmp_path, train + endings + "xyzw")
    counted = NGrams(tokens, 0, len(train), len(context) + 1, len(vocabulary))
    places = [len(train) + len(context) + n * (len(context) + 1) for n in range(len(vocabulary))]
    p = np.exp([[-loss for loss in nats(counted, tokens, at, at + 1)] for at in places])
    assert p.min() > 0
    assert p.sum(axis=0) == pytest.approx(np.ones(len(context) + 1))


def test_the_sums_of_two_parts_are_the_sum_of_the_whole(tmp_path: Path) -> None:
    tokens = letters(tmp_path, "a rose is a rose is a rose, and is as is a nose; so is x")
    counted = NGrams(tokens, 0, 40, 3, 14)
    parts = np.array(nats(counted, tokens, 40, 47)) + np.array(nats(counted, tokens, 47, len(tokens)))
    assert nats(counted, tokens, 40, len(tokens)) == pytest.approx(parts)


@pytest.mark.parametrize("train", [1, 2, 3, 4])
def test_orders_longer_than_the_training_part_fall_back_on_shorter_ones(tmp_path: Path, train: int) -> None:
    tokens = letters(tmp_path, "abcbabc")
    ids = tokens.read(0, 7).tolist()
    found = nats(NGrams(tokens, 0, train, 5, 3), tokens, train, 7)
    expected = [sum(-math.log(by_definition(ids, train, at, order, 3)) for at in range(train, 7)) for order in range(1, 6)]
    assert found == pytest.approx(expected)
    assert found[train:] == [found[train - 1]] * (5 - train)


def test_runs_are_merged_as_they_double_to_what_sorting_all_gives() -> None:
    generator = np.random.default_rng(1)
    blocks = [generator.zipf(1.3, size).clip(0, 500) for size in generator.integers(1, 200, 64)]
    runs: list[ngrams._Run] = []
    for block in blocks:
        ngrams._add(runs, np.unique(block, return_counts=True))
        assert all(len(below[0]) >= 2 * len(above[0]) for below, above in itertools.pairwise(runs))
    keys, times = ngrams._all(runs)
    expected = np.unique(np.concatenate(blocks), return_counts=True)
    assert (keys.tolist(), times.tolist()) == (expected[0].tolist(), expected[1].tolist())


def test_what_comes_after_the_training_part_is_not_counted(tmp_path: Path) -> None:
    counts = []
    for name, ending in {"one": "cccccccc", "two": "abababab"}.items():
        (tmp_path / name).mkdir()
        tokens = letters(tmp_path / name, "abcab" + ending)
        counts.append([order.keys.tolist() for order in NGrams(tokens, 0, 5, 3, 3).orders])
    assert counts[0] == counts[1]
