"""Kneser-Ney smoothing against the paper's formulas, written out with dictionaries."""

import math
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lib.data.shards import InMemoryTokens
from lib.ngrams.counts import NGrams
from lib.ngrams.kneser_ney import FALLBACK_DISCOUNTS, KneserNey, estimate_discounts
from tests.ngrams.texts import ROSE, letters, nats, zipf

TEXTS = {
    "a rose": [sorted(set(ROSE)).index(letter) for letter in ROSE],
    "repeated runs": zipf(900, 40).read(0, 900).tolist(),
    "one type": [0] * 9,
    "two tokens": [1, 0],
    "one token": [2],
}


def naive(
    parts: list[list[int]], context: tuple[int, ...], token: int, order: int, vocab_size: int, highest: bool = True
) -> float:
    """p(token | context) by Chen and Goodman (1999), equations 21 to 26 and the counts of Kneser and Ney (1995)."""
    if order == 0:
        return 1 / vocab_size
    shorter = naive(parts, context[-order + 2 :] if order > 2 else (), token, order - 1, vocab_size, highest=False)

    def grams(n: int) -> Counter[tuple[int, ...]]:
        return Counter(tuple(part[i : i + n]) for part in parts for i in range(len(part) - n + 1))

    table = grams(order) if highest else Counter(gram[1:] for gram in grams(order + 1))
    n1, n2, n3, n4 = (list(table.values()).count(k) for k in (1, 2, 3, 4))
    D = [0.0, *FALLBACK_DISCOUNTS]
    if n1 and n2 and n3:
        Y = n1 / (n1 + 2 * n2)
        estimated = [0.0, 1 - 2 * Y * n2 / n1, 2 - 3 * Y * n3 / n2, 3 - 4 * Y * n4 / n3]
        D = estimated if min(estimated[1:]) > 0 else D
    wanted = context[-order + 1 :] if order > 1 else ()
    followers = {gram[-1]: c for gram, c in table.items() if gram[:-1] == wanted}
    if len(wanted) < order - 1 or not followers:
        return shorter
    total, c = sum(followers.values()), followers.get(token, 0)
    return (c - D[min(c, 3)]) / total + sum(D[min(count, 3)] for count in followers.values()) / total * shorter


@pytest.mark.parametrize("name", TEXTS)
def test_every_order_is_what_the_formulas_say(name: str) -> None:
    ids = TEXTS[name]
    vocab_size = max(ids) + 2
    scored = [*ids, *ids[:6], vocab_size - 1, *ids[-3:]]  # seen and unseen contexts, and a token that never occurs
    smoothed = KneserNey(NGrams(InMemoryTokens(np.array(ids)), [(0, len(ids))], 4, vocab_size))
    tokens = InMemoryTokens(np.array(scored))
    for at in [*range(min(4, len(ids))), *range(max(len(ids) - 2, 0), len(scored))]:
        expected = [-math.log(naive([ids], tuple(scored[:at]), scored[at], order, vocab_size)) for order in range(1, 5)]
        assert nats(smoothed, tokens, at, at + 1) == pytest.approx(expected, rel=0, abs=1e-12), at


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("name", TEXTS)
def test_rows_are_the_distributions_that_the_scores_are_read_from(name: str, order: int) -> None:
    ids = TEXTS[name]
    vocab_size = max(ids) + 2
    positions = np.array([len(ids) - 1, 0, min(1, len(ids) - 1), len(ids) // 2, len(ids) - 1])
    tokens = InMemoryTokens(np.array(ids))
    smoothed = KneserNey(NGrams(tokens, [(0, len(ids))], order, vocab_size))
    rows = smoothed.rows(tokens, positions)
    assert rows.dtype == np.float32
    assert rows.shape == (len(positions), vocab_size)
    assert rows.sum(axis=1, dtype=np.float64) == pytest.approx(np.ones(len(positions)), abs=1e-6)
    for row, at in zip(rows, positions.tolist(), strict=True):
        expected = [naive([ids], tuple(ids[:at]), token, order, vocab_size) for token in range(vocab_size)]
        assert row == pytest.approx(np.array(expected), rel=1e-6)
        assert -math.log(row[ids[at]]) == pytest.approx(nats(smoothed, tokens, at, at + 1)[-1], abs=1e-6)


def test_a_part_is_predicted_from_counts_of_the_others() -> None:
    tokens = zipf(300, 20)
    ids = tokens.read(0, 300).tolist()
    smoothed = KneserNey(NGrams(tokens, [(0, 100), (200, 300)], 3, 20))
    positions = np.array([100, 101, 150, 199])
    for row, at in zip(smoothed.rows(tokens, positions), positions.tolist(), strict=True):
        expected = [naive([ids[:100], ids[200:]], tuple(ids[:at]), token, 3, 20) for token in range(20)]
        assert row == pytest.approx(np.array(expected), rel=1e-6)


def test_a_sum_done_by_hand_comes_out(tmp_path: Path) -> None:
    """docs/evaluation.md, on abracadabra!: V = 6 and, with no count of 3, the discounts 1/2, 1 and 3/2.

    Lower order: 8 distinct bigrams, 3 of them end with a, 1 with each other letter: p(b) = 1/16 + 1/2 · 1/6.
    After a: b twice, c, d and ! once each: p(b | a) = (2 - 1)/5 + (1 + 3 · 1/2)/5 · p(b).
    """
    tokens = letters(tmp_path, "abracadabra!ab")
    p_b = Fraction(1, 16) + Fraction(1, 2) * Fraction(1, 6)
    smoothed = KneserNey(NGrams(tokens, [(0, 12)], 2, 6))
    assert nats(smoothed, tokens, 13, 14)[1] == pytest.approx(-math.log(Fraction(1, 5) + Fraction(1, 2) * p_b))


def test_the_discounts_of_a_text_come_from_its_counts_of_counts() -> None:
    counts = np.repeat([1, 2, 3, 4, 9], [10, 5, 3, 2, 7])  # Y = 10 / 20
    assert estimate_discounts(counts) == pytest.approx((0.5, 2 - 1.5 * 3 / 5, 3 - 2 * 2 / 3))


@pytest.mark.parametrize(
    "counts",
    [[], [1, 1, 2], [7, 8, 9], [1] * 100 + [2] + [3] * 90],
    ids=["empty", "no 3", "only large", "below 0"],
)
def test_without_a_usable_estimate_the_discounts_are_fixed(counts: list[int]) -> None:
    assert estimate_discounts(np.array(counts)) == FALLBACK_DISCOUNTS
