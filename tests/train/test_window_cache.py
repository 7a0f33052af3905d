"""The cache among the teachers: what a window says of its own next tokens."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lib.data.dataset import Dataset
from lib.errors import UsageError
from lib.train.batches import Batches
from lib.train.window_cache import PAIR, TOKEN, TRIPLE, add_window_cache
from tests.train.test_learning import config


def naive_cache(row: list[float], ids: list[int]) -> list[float]:
    """The mixture of one position, after `ids`, counted one by one."""
    token = TOKEN * len(ids) / (len(ids) + 60)
    after_pair = [ids[j + 1] for j in range(len(ids) - 1) if ids[j] == ids[-1]]
    after_triple = [ids[j + 1] for j in range(1, len(ids) - 1) if ids[j - 1 : j + 1] == ids[-2:]]
    pair = PAIR * len(after_pair) / (len(after_pair) + 1)
    triple = TRIPLE * len(after_triple) / (len(after_triple) + 1)
    mixed = [(1 - token - pair - triple) * p for p in row]
    for share, followers in ((token, ids), (pair, after_pair), (triple, after_triple)):
        for id in followers:
            mixed[id] += share / len(followers)
    return mixed


def test_the_cache_counts_tokens_pairs_and_triples() -> None:
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(4, (3, 40), generator=draw)
    rows = torch.rand(3 * 40, 4, generator=draw).softmax(dim=-1)
    mixed = rows.clone()
    add_window_cache(mixed, ids)
    for window in range(3):
        for t in range(40):
            expected = naive_cache(rows[40 * window + t].tolist(), ids[window, : t + 1].tolist())
            assert mixed[40 * window + t].tolist() == pytest.approx(expected, abs=1e-5)
    assert torch.allclose(mixed.sum(dim=-1), torch.ones(120), atol=1e-5)


def test_the_targets_of_read_and_invented_windows_have_it(small: Path) -> None:
    dataset = Dataset(small / "dataset")
    settings = ("train.counts_share=0.5", "train.invented_share=0.5")
    plain, cached = (Batches(dataset, config(*settings, *more).train) for more in ((), ("train.counts_cache=true",)))
    expected, batch = plain.batch(3), cached.batch(3)
    assert expected.soft
    assert batch.soft
    assert torch.equal(batch.ids, expected.ids)
    rows = expected.soft.rows.clone()
    add_window_cache(rows, batch.ids[:, :-1])
    assert torch.allclose(batch.soft.rows, rows, atol=1e-7)
    assert not torch.allclose(batch.soft.rows, expected.soft.rows, atol=1e-3)


def test_the_columns_of_unseen_tokens_are_those_of_the_counts(small: Path) -> None:
    dataset = Dataset(small / "dataset")
    seen = dataset.train_ids()
    columns = np.full(256, len(seen))
    columns[seen] = np.arange(len(seen))
    train = config("train.counts_share=1", "train.counts_cache=true").train
    whole, summed = (Batches(dataset, train, which).batch(0).soft for which in (None, columns))
    assert whole
    assert summed
    assert torch.allclose(summed.rows[:, :-1], whole.rows[:, seen], atol=1e-6)


def test_it_needs_counts() -> None:
    with pytest.raises(UsageError, match=r"counts_cache=true needs counts; set train\.counts_share"):
        config("train.counts_cache=true")


def test_a_part_of_a_batch_has_its_part_of_the_rows(small: Path) -> None:
    dataset = Dataset(small / "dataset")
    train = config("train.counts_share=0.5", "train.invented_share=0.5", "train.counts_cache=true").train
    batches = Batches(dataset, train)
    whole, part = batches.batch(1), batches.batch(1, range(1, 3))
    assert whole.soft
    assert part.soft
    T = dataset.context_length
    assert torch.equal(part.soft.rows, whole.soft.rows[T : 3 * T])
