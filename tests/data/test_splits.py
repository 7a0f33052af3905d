"""The splits: training, validation and test, in the order of the text, with exact boundaries."""

import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lib.artifact.io import read_json, write_json
from lib.data.dataset import Dataset, split_sizes
from lib.errors import MakegptError
from tests.data.test_dataset import build, forge, places, tokens_of


def traps() -> list[tuple[int, float]]:
    """Lengths and fractions where n·(1 - F) in floating point falls on the wrong side of a whole number; some where not."""
    pairs = [(n, f) for f in (0.1, 0.3, 0.7, 0.9) for n in range(30, 200) if int(n * (1 - f)) != train_tokens(n, f)]
    assert len(pairs) >= 4
    return [*pairs[::16], (30, 0.9), (30, 0.1), (30, 0.3), (31, 0.1), (37, 0.3), (41, 0.9)]


def train_tokens(n: int, f: float) -> int:
    return math.floor(n * (1 - Fraction(str(f))))


@pytest.mark.parametrize(("n", "f"), traps())
def test_the_first_floor_of_n_less_its_fraction_is_for_training(tmp_path: Path, n: int, f: float) -> None:
    dataset = build(tokens_of(tmp_path, places(n)), tmp_path / "dataset", context=1, val_fraction=f)
    train = train_tokens(n, f)
    assert (dataset.train_tokens, dataset.val_tokens) == (train, n - train)
    assert dataset.split("train") == (0, train)
    assert dataset.split("val") == (train, n)


def splits(dataset: Dataset) -> list[tuple[int, int]]:
    return [dataset.split(name) for name in ("train", "val", "test")]


@given(
    n=st.integers(0, 10**9),
    val=st.decimals("1e-9", "0.999", places=9),
    test=st.decimals(0, "0.999", places=9),
)
@example(n=1_000_000_007, val=Decimal("0.1"), test=Decimal("0.2"))  # 1 - 0.1 - 0.2 is not 0.7 in floating point
@example(n=10, val=Decimal("0.7"), test=Decimal("0.1"))  # nor 10·(1 - 0.7 - 0.1) 2
def test_the_splits_cover_all_tokens_in_order_and_their_boundaries_are_exact(n: int, val: Decimal, test: Decimal) -> None:
    assume(val + test < 1)
    sizes = split_sizes(n, float(val), float(test))
    assert min(sizes) >= 0
    assert sum(sizes) == n
    assert sizes[0] == math.floor(n * (1 - Fraction(val) - Fraction(test)))
    assert sizes[2] == math.ceil(n * Fraction(test))
    assert abs(sizes[1] - n * Fraction(val)) < 1
    if not test:
        assert sizes == (train_tokens(n, float(val)), n - train_tokens(n, float(val)), 0)


@pytest.mark.parametrize(
    ("n", "val_fraction", "test_fraction", "ends"),
    [
        (100, 0.1, 0.1, [80, 90, 100]),
        (100, 0.1, 0.2, [70, 80, 100]),  # 1 - 0.1 - 0.2 in floating point is less than 0.7
        (97, 0.13, 0.07, [77, 90, 97]),
        (101, 0.333, 0.333, [33, 67, 101]),
    ],
)
def test_training_validation_and_test_follow_each_other(
    tmp_path: Path, n: int, val_fraction: float, test_fraction: float, ends: list[int]
) -> None:
    dataset = build(
        tokens_of(tmp_path, places(n)), tmp_path / "dataset", val_fraction=val_fraction, test_fraction=test_fraction
    )
    assert splits(dataset) == list(zip([0, *ends], ends, strict=False))
    assert [dataset.predicted(name) for name in ("train", "val", "test")] == [
        stop - start - 1 for start, stop in splits(dataset)
    ]
    ids = [id for start, stop in splits(dataset) for id in dataset.tokens.read(start, stop).tolist()]
    assert ids == list(range(n)), "disjoint, ordered and complete"
    assert dataset.batch(seed=1, step=0, size=dataset.windows).max() < ends[0]
    assert dataset.train_ids().tolist() == list(range(ends[0]))


def test_a_dataset_without_a_test_split_has_the_same_identity_as_before_there_were_any(tmp_path: Path) -> None:
    dataset = build(tokens_of(tmp_path, places(100)), tmp_path / "dataset")
    assert "test_tokens" not in read_json(tmp_path / "dataset" / "dataset.json")
    others = [
        build(tokens_of(tmp_path, places(100)), tmp_path / f"{f}", val_fraction=0.1, test_fraction=f).identity()
        for f in (0.1, 0.2)
    ]
    assert len({dataset.identity(), *others}) == 3


def test_a_test_split_that_is_missing_is_refused_with_what_to_run(tmp_path: Path) -> None:
    dataset = build(tokens_of(tmp_path, places(100)), tmp_path / "dataset", context=7)
    for ask in (dataset.split, dataset.predicted):
        with pytest.raises(
            MakegptError,
            match=r"dataset has no test split; build a dataset that has one, `build-dataset TOKENS -o DATASET "
            r"--context-length 7 --val-fraction 0\.1 --test-fraction 0\.1`, and train on it",
        ):
            ask("test")


def test_a_description_whose_splits_do_not_cover_its_tokens_is_refused(tmp_path: Path) -> None:
    build(tokens_of(tmp_path, places(100)), tmp_path / "dataset", test_fraction=0.1)
    path = tmp_path / "dataset" / "dataset.json"
    for changes in ({"test_tokens": 9}, {"test_tokens": None}):
        write_json(path, read_json(path) | changes)
        forge(tmp_path / "dataset")
        with pytest.raises(MakegptError, match=r"does not fit its 100 tokens; build the dataset again"):
            Dataset(tmp_path / "dataset")
    write_json(path, read_json(path) | {"test_tokens": 0})
    forge(tmp_path / "dataset")
    with pytest.raises(MakegptError, match=r"test_tokens must be a whole number of at least 1"):
        Dataset(tmp_path / "dataset")


@pytest.mark.parametrize(
    ("count", "test_fraction", "says"),
    [
        (
            20,
            0.05,
            "20 tokens, 17 for training, 2 for validation and 1 for test; one training window takes 5 and validation and",
        ),
        (20, 0.8, "20 tokens, 2 for training, 2 for validation and 16 for test"),
        (
            13,
            0.2,
            "13 tokens, 9 for training, 1 for validation and 3 for test; .* validation and test 2 each: use a longer text",
        ),
    ],
)
def test_a_test_split_that_leaves_too_little_is_refused(tmp_path: Path, count: int, test_fraction: float, says: str) -> None:
    tokens = tokens_of(tmp_path, places(count))
    with pytest.raises(MakegptError, match=says):
        build(tokens, tmp_path / "dataset", test_fraction=test_fraction)
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize(
    ("count", "context", "val_fraction", "says"),
    [
        (20, 18, 0.1, "20 tokens, 18 for training and 2 for validation; one training window takes 19"),
        (10, 4, 0.1, "10 tokens, 9 for training and 1 for validation"),
        (2, 1, 0.1, "2 tokens, 1 for training"),
        (1, 1, 0.1, "1 tokens, 0 for training"),
        (20, 4, 0.0, "0 for validation"),
    ],
)
def test_a_text_too_short_is_refused_with_what_it_holds_and_what_it_takes(
    tmp_path: Path, count: int, context: int, val_fraction: float, says: str
) -> None:
    tokens = tokens_of(tmp_path, places(count))
    with pytest.raises(MakegptError, match=says):
        build(tokens, tmp_path / "dataset", context, val_fraction=val_fraction)
    assert not (tmp_path / "dataset").exists()
