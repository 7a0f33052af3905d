"""What holds for every smoothing: the laws of probability, and that blocks change nothing."""

from pathlib import Path
from typing import Callable

import numpy as np
import pytest

from lib.data.shards import InMemoryTokens
from lib.ngrams import counts as counts_module
from lib.ngrams.add_one import AddOneBigram
from lib.ngrams.counts import NGrams
from lib.ngrams.kneser_ney import KneserNey
from lib.ngrams.smoothing import Smoothing
from lib.ngrams.witten_bell import WittenBell
from tests.ngrams.texts import ROSE, letters, nats, zipf

every_smoothing = pytest.mark.parametrize("smoothing", [KneserNey, WittenBell, AddOneBigram])
Smoother = Callable[[NGrams], Smoothing]


@every_smoothing
@pytest.mark.parametrize("block", [1, 2, 3, 10, 41])
def test_the_size_of_the_blocks_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smoothing: Smoother, block: int
) -> None:
    tokens = letters(tmp_path, ROSE)
    expected = nats(smoothing(NGrams(tokens, [(3, 40)], 5, 14)), tokens, 40, len(tokens))
    monkeypatch.setattr(counts_module, "_BLOCK", block)
    assert nats(smoothing(NGrams(tokens, [(3, 40)], 5, 14)), tokens, 40, len(tokens)) == pytest.approx(expected, rel=1e-12)


@every_smoothing
@pytest.mark.parametrize("context", ["a", "ab", "ro", "is a", "zz", "xyzw"])
def test_the_probabilities_after_a_context_sum_to_one(tmp_path: Path, smoothing: Smoother, context: str) -> None:
    train = ROSE[:47]
    vocabulary = sorted({*train, *"xyzw", *context})
    tokens = letters(tmp_path, train + "".join(context + letter for letter in vocabulary) + "xyzw")
    smoothed = smoothing(NGrams(tokens, [(0, len(train))], max(2, len(context) + 1), len(vocabulary)))
    places = [len(train) + len(context) + n * (len(context) + 1) for n in range(len(vocabulary))]
    p = np.exp([[-loss for loss in nats(smoothed, tokens, at, at + 1)] for at in places])
    assert p.min() > 0
    assert p.sum(axis=0) == pytest.approx(np.ones(p.shape[1]), rel=0, abs=1e-12)


@every_smoothing
def test_the_sums_of_two_parts_are_the_sum_of_the_whole(smoothing: Smoother) -> None:
    tokens = zipf(300, 14)
    smoothed = smoothing(NGrams(tokens, [(0, 240)], 3, 14))
    parts = np.array(nats(smoothed, tokens, 240, 270)) + np.array(nats(smoothed, tokens, 270, 300))
    assert nats(smoothed, tokens, 240, 300) == pytest.approx(parts)


@every_smoothing
def test_without_a_training_text_every_token_is_equally_likely(smoothing: Smoother) -> None:
    tokens = InMemoryTokens(np.array([3, 1, 2]))
    smoothed = smoothing(NGrams(tokens, [(0, 0)], 3, 7))
    assert nats(smoothed, tokens, 0, 3) == pytest.approx([3 * np.log(7)] * len(nats(smoothed, tokens, 0, 3)))
