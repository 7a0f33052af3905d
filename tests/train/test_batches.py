"""Batches: windows of the dataset, windows that are invented, and what their targets are mixed with."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lib.config.params import load_params, resolve_config
from lib.config.schema import TrainConfig
from lib.data.dataset import Dataset
from lib.data.shards import InMemoryTokens
from lib.errors import UsageError
from lib.ngrams.counts import NGrams
from lib.ngrams.kneser_ney import KneserNey
from lib.train import invented_text, teacher
from lib.train.batches import Batches
from lib.train.invented_text import InventedText
from tests.conftest import PROJECT

TEXT = np.frombuffer(b"the cat saw the dog and the dog saw the cat that saw the mouse", np.uint8)


def config(*changes: str) -> TrainConfig:
    return resolve_config(load_params(PROJECT / "params.yaml"), "debug", ["train.batch_size=4", *changes]).train


def pairs(ids: np.ndarray) -> set[tuple[int, int]]:
    return set(zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True))


# Invented text.


def test_without_jumps_a_window_is_a_part_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invented_text, "JUMP", 0.0)
    for window in InventedText(TEXT).read(10, [(1,), (2,), (3,)]):
        assert window.tobytes() in bytes(TEXT) * 2  # after the last token comes the first


def test_a_jump_to_the_same_token_keeps_the_pairs_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invented_text, "JUMP", 0.7)
    monkeypatch.setattr(invented_text, "ANYWHERE", 0.0)
    windows = InventedText(TEXT).read(500, [(1,), (2,)])
    for window in windows:
        assert pairs(window) <= pairs(np.append(TEXT, TEXT[0]))
        assert pairs(window[:-1:2]) - pairs(TEXT[::2]) - pairs(TEXT[1::2])  # tokens two apart that the text does not have


def test_a_jump_to_any_place_makes_new_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invented_text, "JUMP", 1.0)
    monkeypatch.setattr(invented_text, "ANYWHERE", 1.0)
    (window,) = InventedText(TEXT).read(20_000, [(1,)])
    frequencies = np.bincount(window, minlength=256) / len(window)
    assert frequencies == pytest.approx(np.bincount(TEXT, minlength=256) / len(TEXT), abs=0.01)
    following = window[1:][window[:-1] == ord("t")]  # in the text always a, h or a blank
    assert len(set(following.tolist())) == len(set(TEXT.tolist()))


def test_invented_text_jumps_as_often_as_is_said() -> None:
    ids = np.arange(10_000)  # each token once: a jump to the same token leads back to where the reader was
    windows = InventedText(ids).read(2_000, [(seed,) for seed in range(20)]).astype(np.int64)
    went_on = (np.diff(windows, axis=1) % len(ids) == 1).mean()
    assert went_on == pytest.approx(1 - invented_text.JUMP * invented_text.ANYWHERE, abs=0.005)


def test_a_window_depends_on_its_own_seed_alone() -> None:
    text = InventedText(TEXT)
    both = text.read(30, [(1, 5, 0), (1, 5, 1)])
    assert np.array_equal(both[1], text.read(30, [(1, 5, 1)])[0])
    assert not np.array_equal(both[0], both[1])


# Batches.


def test_a_batch_ends_with_its_invented_windows(small: Path) -> None:
    dataset = Dataset(small / "dataset")
    chosen = config("train.counts_share=0.5", "train.invented_share=0.5")
    ids, soft, _ = Batches(dataset, chosen).batch(step=3)
    assert ids.shape == (4, dataset.context_length + 1)
    assert soft is not None
    assert soft.rows.shape == (4 * dataset.context_length, 256)
    assert torch.allclose(soft.rows.sum(dim=-1), torch.ones(len(soft.rows)), atol=1e-5)
    assert np.array_equal(ids[:2].numpy(), dataset.batch(chosen.seed, 3, 2))
    text = dataset.tokens.read(*dataset.split("train")).tobytes()
    assert all(window.numpy().astype(np.uint16).tobytes() in text for window in ids[:2])
    assert not any(window.numpy().astype(np.uint16).tobytes() in text for window in ids[2:])


def test_the_pieces_of_a_batch_make_the_whole(small: Path) -> None:
    made = Batches(Dataset(small / "dataset"), config("train.counts_share=0.5", "train.invented_share=0.25"))
    ids, soft, _ = made.batch(step=2)
    pieces = [made.batch(2, range(2)), made.batch(2, range(2, 3)), made.batch(2, range(3, 4))]
    assert torch.equal(ids, torch.cat([piece.ids for piece in pieces]))
    assert soft is not None
    assert torch.equal(soft.rows, torch.cat([piece.soft.rows for piece in pieces if piece.soft]))


@pytest.mark.parametrize("order", [1, 2, 4])
def test_invented_windows_are_taught_by_counts_of_the_whole_training_text(small: Path, order: int) -> None:
    dataset = Dataset(small / "dataset")
    changes = ["train.counts_share=1", "train.invented_share=1", f"train.counts_order={order}"]
    ids, soft, _ = Batches(dataset, config(*changes)).batch(step=0)
    counts = KneserNey(NGrams(dataset.tokens, [dataset.split("train")], order, 256))
    for row in range(4):  # from the fourth target on the window has all that the counts look at
        positions = np.arange(4, dataset.context_length + 1)
        expected = counts.rows(InMemoryTokens(ids[row].numpy()), positions)
        assert soft is not None
        own = soft.rows[row * dataset.context_length : (row + 1) * dataset.context_length]
        assert np.allclose(own[3:].numpy(), expected, atol=1e-6)


def test_invented_windows_need_counts() -> None:
    with pytest.raises(UsageError, match=r"train\.counts_share, 0\.9 for example"):
        config("train.counts_share=0", "train.invented_share=0.5")


def test_a_share_that_is_no_window_is_refused() -> None:
    with pytest.raises(UsageError, match=r"use 0\.125 or more"):
        config("train.counts_share=0.9", "train.invented_share=0.1")
    assert config("train.counts_share=0.9", "train.invented_share=0.125").invented_windows == 1


def test_a_text_that_is_too_long_to_be_counted_is_refused(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "MAX_COUNTED_TOKENS", 100)
    with pytest.raises(UsageError, match="at most 100: set it to 0"):
        Batches(Dataset(small / "dataset"), config("train.counts_share=0.5"))
