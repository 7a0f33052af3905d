"""Witten-Bell smoothing against a sum done by hand and the formula; references.yaml has the values on whole texts."""

import math
from fractions import Fraction
from pathlib import Path

import pytest

from lib.ngrams.counts import NGrams
from lib.ngrams.witten_bell import WittenBell
from tests.ngrams.texts import ROSE, letters, nats


def test_a_sum_done_by_hand_comes_out(tmp_path: Path) -> None:
    """Counted on abaab, V = 3, scored on a and then c.

    Unigrams: N = 5, T = 2; p(a) = (3 + 2/3)/7, p(b) = (2 + 2/3)/7, p(c) = (0 + 2/3)/7.
    Bigrams: after b stood a, once; p(a|b) = (1 + p(a))/2. After a stood b, b and a; p(c|a) = (0 + 2 p(c))/5.
    """
    tokens = letters(tmp_path, "abaabac")
    p_a, p_c = Fraction(11, 21), Fraction(2, 21)
    unigram, bigram = nats(WittenBell(NGrams(tokens, [(0, 5)], 2, 3)), tokens, 5, 7)
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
    tokens = letters(tmp_path, ROSE)
    ids = tokens.read(0, len(tokens)).tolist()
    train, vocabulary = 40, len(set(ROSE))
    counted = WittenBell(NGrams(tokens, [(0, train)], 5, vocabulary))
    for at in range(train, len(ids)):
        expected = [-math.log(by_definition(ids, train, at, order, vocabulary)) for order in range(1, 6)]
        assert nats(counted, tokens, at, at + 1) == pytest.approx(expected), at


def test_the_first_tokens_of_a_text_have_as_much_context_as_there_is(tmp_path: Path) -> None:
    tokens = letters(tmp_path, "abcabcab")
    ids = tokens.read(0, 8).tolist()
    counted = WittenBell(NGrams(tokens, [(0, 8)], 4, 3))
    expected = [sum(-math.log(by_definition(ids, 8, at, order, 3)) for at in range(8)) for order in range(1, 5)]
    assert nats(counted, tokens, 0, 8) == pytest.approx(expected)


@pytest.mark.parametrize("train", [1, 2, 3, 4])
def test_orders_longer_than_the_training_part_fall_back_on_shorter_ones(tmp_path: Path, train: int) -> None:
    tokens = letters(tmp_path, "abcbabc")
    ids = tokens.read(0, 7).tolist()
    found = nats(WittenBell(NGrams(tokens, [(0, train)], 5, 3)), tokens, train, 7)
    expected = [sum(-math.log(by_definition(ids, train, at, order, 3)) for at in range(train, 7)) for order in range(1, 6)]
    assert found == pytest.approx(expected)
    assert found[train:] == [found[train - 1]] * (5 - train)
