"""The windows, and batches that follow from (seed, t) alone.

Most texts here are distinct characters in code-point order, so that with characters as tokens an id is its own place.
"""

import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lib.artifact.io import read_json, write_json
from lib.artifact.manifest import Input, describe_files, identity_of, read_manifest, write_manifest
from lib.config.text import TokenizeConfig
from lib.data.corpus import write_corpus
from lib.data.dataset import Dataset, build_dataset
from lib.data.shuffle import naive_permutation, permute
from lib.data.text import open_document
from lib.errors import MakegptError, UsageError
from lib.tokenizer.char import CharTokenizer
from tests.conftest import Here


def tokens_of(folder: Path, text: str, kind: str = "char", shard_tokens: int = 64) -> Path:
    """The tokens folder of `text`, in small shards."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.txt").write_bytes(text.encode("utf-8"))
    settings = TokenizeConfig(tokenizer=kind, vocab_size=None, errors="strict", shard_tokens=shard_tokens)
    write_corpus(folder / "tokens", [open_document(folder / "text.txt")], kind, settings, started="", on_bytes=lambda _: None)
    return folder / "tokens"


def places(count: int) -> str:
    """A text whose ids are 0 to `count` - 1, in order."""
    return "".join(chr(0x4E00 + n) for n in range(count))


def build(
    tokens: Path,
    target: Path,
    context: int = 4,
    stride: int | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.0,
) -> Dataset:
    build_dataset(
        tokens,
        target,
        context_length=context,
        stride=stride,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        started="",
    )
    return Dataset(target)


@pytest.fixture(scope="module")
def hundred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokens 0 to 99."""
    return tokens_of(tmp_path_factory.mktemp("hundred"), places(100))


# The windows.


def test_the_shortest_text_that_will_do_gives_one_window(tmp_path: Path) -> None:
    dataset = build(tokens_of(tmp_path, places(21)), tmp_path / "dataset", context=17)
    assert (dataset.train_tokens, dataset.windows) == (18, 1)
    assert dataset.batch(seed=1, step=7, size=2).tolist() == [list(range(18))] * 2


def test_a_window_and_its_targets_are_one_apart(hundred: Path, tmp_path: Path) -> None:
    windows = build(hundred, tmp_path / "dataset", context=7, stride=3).batch(seed=1, step=0, size=16)
    assert windows.shape == (16, 8)
    assert (windows[:, 1:] == windows[:, :-1] + 1).all()


@pytest.mark.parametrize(("context", "stride"), [(4, None), (4, 4), (4, 1), (4, 3), (4, 9), (64, None), (88, 1), (89, 5)])
def test_windows_start_every_stride_and_end_with_the_training_part(
    hundred: Path, tmp_path: Path, context: int, stride: int | None
) -> None:
    dataset = build(hundred, tmp_path / "dataset", context, stride)
    starts = list(range(0, 90 - context, stride or context))
    assert dataset.windows == len(starts)
    windows = dataset.batch(seed=1, step=0, size=dataset.windows)
    assert sorted(windows[:, 0].tolist()) == starts
    assert windows.max() < 90


def test_every_window_comes_exactly_once_an_epoch(hundred: Path, tmp_path: Path) -> None:
    dataset = build(hundred, tmp_path / "dataset", context=4, stride=1)
    size = 7  # which does not divide the 86 windows
    starts = np.concatenate([dataset.batch(seed=3, step=step, size=size)[:, 0] for step in range(3 * 86 // size + 1)])
    epochs = [starts[86 * n : 86 * (n + 1)].tolist() for n in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(86))] * 3
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert epochs[0] != list(range(86))


# Batches.


def test_a_batch_follows_from_the_seed_and_its_number_alone(hundred: Path, tmp_path: Path) -> None:
    dataset = build(hundred, tmp_path / "dataset", context=4, stride=1)
    forward = [dataset.batch(seed=5, step=step, size=8).tolist() for step in range(30)]
    np.random.default_rng(0).random()
    again = Dataset(tmp_path / "dataset")
    assert [again.batch(seed=5, step=step, size=8).tolist() for step in reversed(range(30))] == forward[::-1]
    assert len({str(batch) for batch in forward}) == 30


def test_another_seed_gives_other_batches(hundred: Path, tmp_path: Path) -> None:
    dataset = build(hundred, tmp_path / "dataset", context=4, stride=1)
    assert len({str(dataset.batch(seed=seed, step=0, size=86).tolist()) for seed in range(50)}) == 50


def test_one_seeds_second_epoch_is_not_another_seeds_first(hundred: Path, tmp_path: Path) -> None:
    dataset = build(hundred, tmp_path / "dataset", context=4, stride=1)
    orders = {str(dataset.batch(seed=seed, step=epoch, size=86).tolist()) for seed in range(6) for epoch in range(6)}
    assert len(orders) == 36


def test_a_big_batch_is_the_small_ones_it_could_be_cut_into(hundred: Path, tmp_path: Path) -> None:
    dataset = build(hundred, tmp_path / "dataset", context=4, stride=1)
    for step in range(12):
        halves = [dataset.batch(seed=5, step=2 * step + half, size=6) for half in range(2)]
        assert (dataset.batch(seed=5, step=step, size=12) == np.concatenate(halves)).all()


#: Around the powers of two and of four, where the Feistel network gets another width.
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 255, 256, 257, 1025]


def test_the_fast_and_the_naive_shuffle_are_permutations() -> None:
    for n in SIZES:
        for key in [(0, 0), (1, 0), (0, 1), (2**63 - 1, 10**6)]:
            assert sorted(naive_permutation(*key, n)) == list(range(n)), (n, key)
            assert sorted(permute(index, n, key) for index in range(n)) == list(range(n)), (n, key)


def test_the_fast_shuffle_needs_no_table() -> None:
    n = 10**15 + 37
    values = {permute(index, n, (1, 0)) for index in range(2_000)}
    assert len(values) == 2_000
    assert all(0 <= value < n for value in values)
    assert 0.4 < sum(values) / 2_000 / n < 0.6


@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_every_item_comes_first_about_equally_often(n: int) -> None:
    counts = np.bincount([permute(0, n, (seed, 0)) for seed in range(200 * n)], minlength=n)
    assert abs(counts - 200).max() < 5 * math.sqrt(200)


def test_the_order_of_an_epoch_of_one_seed_is_not_that_of_another_seeds() -> None:
    orders = {str([permute(index, 40, (seed, epoch)) for index in range(40)]) for seed in range(15) for epoch in range(15)}
    assert len(orders) == 15 * 15


# The folder.


def test_a_dataset_says_what_it_holds(hundred: Path, tmp_path: Path) -> None:
    dataset = build(hundred, tmp_path / "dataset", context=4, stride=2)
    metadata = read_json(tmp_path / "dataset" / "manifest.json")["metadata"]
    assert metadata == {"windows": dataset.windows, "train_tokens": 90, "val_tokens": 10, "test_tokens": 0}
    assert dataset.vocab_size == 100
    assert dataset.tokenizer_identity == dataset.tokens.load_tokenizer().identity()


def test_the_same_tokens_and_windows_are_the_same_dataset_anywhere(hundred: Path, tmp_path: Path) -> None:
    one, two = build(hundred, tmp_path / "one"), build(hundred, tmp_path / "deep" / "two")
    assert one.identity() == two.identity()
    assert one.identity() != build(hundred, tmp_path / "three", context=5).identity()


def test_a_dataset_that_moves_with_its_tokens_still_opens(tmp_path: Path) -> None:
    build(tokens_of(tmp_path / "here", places(50)), tmp_path / "here" / "dataset")
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert Dataset(tmp_path / "there" / "dataset").batch(seed=1, step=0, size=1).shape == (1, 5)


def test_a_dataset_behind_a_link_still_finds_its_tokens(hundred: Path, tmp_path: Path) -> None:
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    os.symlink(tmp_path / "disk" / "deep", tmp_path / "link")
    assert build(hundred, tmp_path / "link" / "dataset").windows == 22


def test_tokens_that_changed_are_refused_with_what_to_run(tmp_path: Path) -> None:
    tokens = tokens_of(tmp_path, places(50))
    build(tokens, tmp_path / "dataset")
    tokens_of(tmp_path, places(60))
    with pytest.raises(
        MakegptError, match=r"has changed since .* was made from it; rebuild it with `build-dataset TOKENS -o .*dataset .*`"
    ):
        Dataset(tmp_path / "dataset")


def test_tokens_made_again_from_the_same_text_are_accepted(tmp_path: Path) -> None:
    build(tokens_of(tmp_path, places(50)), tmp_path / "dataset")
    tokens_of(tmp_path, places(50))
    assert Dataset(tmp_path / "dataset").windows == 11


def test_tokens_that_are_gone_or_damaged_are_refused_by_name(tmp_path: Path) -> None:
    tokens = tokens_of(tmp_path, places(50))
    build(tokens, tmp_path / "dataset")
    (tokens / "shard-00000.npy").write_bytes(b"")
    with pytest.raises(MakegptError, match=r"shard-00000\.npy is damaged"):
        Dataset(tmp_path / "dataset")
    shutil.rmtree(tokens)
    with pytest.raises(
        MakegptError, match=r"was made from tokens at .*, which does not exist; rebuild it with `build-dataset TOKENS -o"
    ):
        Dataset(tmp_path / "dataset")


def test_a_description_that_changed_is_refused_by_name(hundred: Path, tmp_path: Path) -> None:
    build(hundred, tmp_path / "dataset")
    path = tmp_path / "dataset" / "dataset.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"train_tokens": 90', '"train_tokens": 99'), encoding="utf-8")
    with pytest.raises(MakegptError, match=r"dataset\.json is damaged"):
        Dataset(tmp_path / "dataset")


def forge(folder: Path, *, identity: str | None = None) -> str:
    """Have the manifest of `folder` list its files as they are now; return the folder's new identity."""
    manifest = read_manifest(folder, None)
    manifest = replace(manifest, outputs=describe_files(folder, manifest.outputs))
    if identity:
        manifest = replace(manifest, inputs={name: Input(identity=identity) for name in manifest.inputs})
    write_manifest(folder, manifest)
    return identity_of(manifest)


def test_ids_that_the_tokenizer_lacks_are_refused(tmp_path: Path) -> None:
    tokens = tokens_of(tmp_path, places(50))
    CharTokenizer("abc").save(tokens / "tokenizer.json")
    forge(tokens)
    with pytest.raises(MakegptError, match="holds the id 49, but its tokenizer has 3 tokens; tokenize again"):
        build(tokens, tmp_path / "dataset")


def test_ids_beyond_the_vocabulary_are_refused_though_every_hash_is_right(tmp_path: Path, here: Here) -> None:
    tokens = tokens_of(tmp_path, places(50), shard_tokens=30)
    build(tokens, tmp_path / "dataset")
    shard = np.load(tokens / "shard-00001.npy")
    shard[5] = 60_000
    np.save(tokens / "shard-00001.npy", shard)
    forge(tmp_path / "dataset", identity=forge(tokens))
    for name, words in {"build-dataset": [tokens], "train": [tmp_path / "dataset", "--config", "debug"]}.items():
        message = here(name, *words, "-o", tmp_path / "out", code=1).err
        assert "holds the id 60000, but its tokenizer has 50 tokens; tokenize again" in message
    path = tmp_path / "dataset" / "dataset.json"
    write_json(path, read_json(path) | {"vocab_size": 1 << 16})
    forge(tmp_path / "dataset")
    message = here("train", tmp_path / "dataset", "--config", "debug", "-o", tmp_path / "out", code=1).err
    assert "holds the id 60000, but its tokenizer has 50 tokens" in message


def test_a_model_of_another_context_is_refused_with_the_right_one(hundred: Path, tmp_path: Path) -> None:
    dataset = build(hundred, tmp_path / "dataset", context=4)
    dataset.check_context(4)
    with pytest.raises(UsageError, match=r"context_length is 8, but .* has windows of 4; .*--context-length 8"):
        dataset.check_context(8)
