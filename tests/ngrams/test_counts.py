"""What is counted: keys, continuations, ranges; with the merging of runs against sorting everything again."""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lib.data.shards import InMemoryTokens
from lib.ngrams import counts as counts_module
from lib.ngrams.counts import NGrams, ids_before
from lib.ngrams.runs import Run, add_run, merge_all
from tests.ngrams.texts import letters, zipf


def spelled(ngrams: NGrams) -> list[dict[tuple[int, ...], tuple[int, int | None]]]:
    """By order: each n-gram with its count and its continuation count."""
    tables = []
    known: list[tuple[int, ...]] = [()]
    for table in ngrams.orders:
        grams = [(*known[key // ngrams.vocab_size], int(key % ngrams.vocab_size)) for key in table.keys.tolist()]
        continuations = table.continuations.tolist() if table.continuations is not None else [None] * len(grams)
        tables.append(dict(zip(grams, zip(table.counts.tolist(), continuations, strict=True), strict=True)))
        known = grams
    return tables


def by_search(parts: list[list[int]], order: int) -> list[dict[tuple[int, ...], tuple[int, int | None]]]:
    """The same by dictionaries."""
    grams = [Counter(tuple(part[i : i + n]) for part in parts for i in range(len(part) - n + 1)) for n in range(1, order + 1)]
    before = [Counter(longer[1:] for longer in grams[n]) for n in range(1, order)]
    return [
        {gram: (count, before[n][gram] if n < order - 1 else None) for gram, count in grams[n].items()} for n in range(order)
    ]


@pytest.mark.parametrize("block", [1, 3, 1 << 20])
@pytest.mark.parametrize("ranges", [[(0, 200)], [(3, 50), (60, 61), (61, 61), (100, 199)]])
def test_counts_and_continuations_are_those_of_a_search(
    monkeypatch: pytest.MonkeyPatch, ranges: list[tuple[int, int]], block: int
) -> None:
    monkeypatch.setattr(counts_module, "_BLOCK", block)
    tokens = zipf(200, 9)
    parts = [tokens.read(start, stop).tolist() for start, stop in ranges]
    assert spelled(NGrams(tokens, ranges, 4, 9)) == by_search(parts, 4)


def test_no_ngram_crosses_from_one_range_into_the_next() -> None:
    tokens = InMemoryTokens(np.array([0, 1, 2, 0, 1]))
    bigrams = spelled(NGrams(tokens, [(0, 2), (2, 5)], 2, 3))[1]
    assert bigrams == {(0, 1): (2, None), (2, 0): (1, None)}


def test_what_comes_after_the_training_part_is_not_counted(tmp_path: Path) -> None:
    keys = []
    for name, ending in {"one": "cccccccc", "two": "abababab"}.items():
        (tmp_path / name).mkdir()
        tokens = letters(tmp_path / name, "abcab" + ending)
        keys.append([order.keys.tolist() for order in NGrams(tokens, [(0, 5)], 3, 3).orders])
    assert keys[0] == keys[1]


def test_runs_are_merged_as_they_double_to_what_sorting_all_gives() -> None:
    generator = np.random.default_rng(1)
    blocks = [generator.zipf(1.3, size).clip(0, 500) for size in generator.integers(1, 200, 64)]
    runs: list[Run] = []
    for block in blocks:
        add_run(runs, block)
        assert all(len(below[0]) >= 2 * len(above[0]) for below, above in itertools.pairwise(runs))
    keys, counts = merge_all(runs)
    expected = np.unique(np.concatenate(blocks), return_counts=True)
    assert (keys.tolist(), counts.tolist()) == (expected[0].tolist(), expected[1].tolist())


def test_the_ids_before_any_positions_are_those_of_the_text() -> None:
    tokens = InMemoryTokens(np.arange(5000))
    positions = np.array([4000, 2, 0, 3, 2999, 1, 3000, 2])
    expected = [[place if place >= 0 else -1 for place in range(p - 3, p)] for p in positions.tolist()]
    assert ids_before(tokens, positions, 3).tolist() == expected
