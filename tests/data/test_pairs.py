"""Preferences to pairs of texts: what is compared, what is left out, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from lib.chat.preferences import is_pair, pair_segments
from lib.chat.template import ChatML
from lib.data.dataset import Dataset
from lib.data.pairs import packed_pairs
from lib.data.shards import BEGINS, REJECTED, Tokens
from tests.chat.test_template import TOKENIZER
from tests.conftest import Here

CHATML = ChatML()
USER, GOOD, BAD = (
    {"role": role, "content": text} for role, text in [("user", "q"), ("assistant", "good"), ("assistant", "bad")]
)


def answers(value: Any, format: str = "messages") -> list[list[str]]:
    return [[part.text for part in text if part.trained] for text in pair_segments(value, CHATML, format)]


@pytest.mark.parametrize(
    ("value", "format"),
    [
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, "messages"),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, "messages"),
        ({"chosen": [USER, BAD, USER, GOOD], "rejected": [USER, BAD, USER, BAD]}, "messages"),
        ({"prompt": "q", "chosen": "good", "rejected": "bad"}, "messages"),
        ({"instruction": "q", "input": "about", "output": "x", "chosen": "good", "rejected": "bad"}, "alpaca"),
    ],
)
def test_each_shape_compares_the_answers(value: Any, format: str) -> None:
    assert is_pair(value)
    assert answers(value, format) == [["good", "<|im_end|>"], ["bad", "<|im_end|>"]]


def test_two_texts_without_a_prompt_are_cut_where_their_words_differ() -> None:
    value = {"chosen": "2 + 2 is 4", "rejected": "2 + 2 is 44"}
    assert answers(value) == [[" 4", "<|im_end|>"], [" 44", "<|im_end|>"]]
    assert answers({"chosen": "yes", "rejected": "yet"}) == [["yes", "<|im_end|>"], ["yet", "<|im_end|>"]]


@pytest.mark.parametrize(
    ("value", "format", "problem"),
    [
        ({"prompt": "q", "chosen": "a"}, "messages", '"rejected" is missing'),
        ({"prompt": "q", "rejected": "a"}, "messages", '"chosen" is missing'),
        ({"prompt": "q", "chosen": "a", "rejected": " "}, "messages", "nothing is learned"),
        ({"prompt": [USER], "chosen": "a", "rejected": "b"}, "messages", '"prompt" must be a text'),
        ({"prompt": "q", "chosen": [GOOD], "rejected": [BAD]}, "messages", '"prompt" must be a list'),
        ({"prompt": "q", "chosen": [GOOD], "rejected": "bad"}, "messages", "two texts or two lists"),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [USER]}, "messages", "turn of the assistant"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "messages", "turn of the user"),
        ({"chosen": [USER, GOOD], "rejected": [USER]}, "messages", "nothing is learned"),
        ({"chosen": "a", "rejected": "b"}, "alpaca", '"instruction", "input" and "chosen"'),
    ],
)
def test_a_pair_of_another_shape_is_refused(value: Any, format: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        pair_segments(value, CHATML, format)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pairs: the third is of equal answers, those of the fifth differ only beyond a window of 32 tokens."""
    folder = tmp_path_factory.mktemp("pairs")
    TOKENIZER.save(folder / "tokenizer.json")
    pairs = [("a" * (1 + number % 7), "b" * (1 + number % 5)) for number in range(20)]
    pairs[2], pairs[4] = ("same", "same"), ("long " * 10 + "x", "long " * 10 + "y")
    lines = [{"prompt": "2 + 2 =", "chosen": chosen, "rejected": rejected} for chosen, rejected in pairs]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return folder


def tokenize(folder: Path, here: Here) -> str:
    output = here("tokenize", "--chat", folder / "pairs.jsonl", "--tokenizer", folder, "-o", folder / "tokens")
    return str(output.err)


def test_a_pair_is_two_texts_and_equal_answers_are_left_out(folder: Path, here: Here) -> None:
    notices = tokenize(folder, here)
    assert "1 of 20 pairs have two equal answers" in notices
    assert "pairs.jsonl, line 3" in notices
    assert "38 conversations in 19 pairs" in notices
    tokens = Tokens(folder / "tokens")
    assert {key: tokens.manifest.metadata[key] for key in ("pairs", "equal_pairs")} == {"pairs": 19, "equal_pairs": 1}
    assert tokens.marks is not None
    begins = [mark & (BEGINS | REJECTED) for mark in tokens.marks.read(0, len(tokens)).tolist() if mark & BEGINS]
    assert begins == [BEGINS, BEGINS | REJECTED] * 19


def test_a_dataset_is_split_by_pairs_and_leaves_out_those_that_the_cut_makes_equal(folder: Path, here: Here) -> None:
    tokenize(folder, here)
    output = here("build-dataset", folder / "tokens", "-o", folder / "dataset", "--context-length", 32, "--val-fraction", 0.2)
    assert "14 pairs" in output.err
    dataset = Dataset(folder / "dataset")
    assert dataset.has_pairs
    assert (dataset.windows, len(dataset.pairs_of("train")), len(dataset.pairs_of("val"))) == (14, 14, 4)
    assert dataset.manifest.metadata["cut_texts"] == 2
    expected = [TOKENIZER.decode(pair.chosen.ids) for pair in dataset.pairs_of("train")]
    assert dataset.packed is not None
    batch = packed_pairs(dataset.tokens, dataset.packed, dataset.window_numbers(1, 0, 14))
    assert sorted(TOKENIZER.decode(pair.chosen.ids) for pair in batch) == sorted(expected)
    for pair in batch:
        chosen, rejected = (TOKENIZER.decode(text.ids[text.answer]) for text in pair)
        assert set(chosen.removesuffix("<|im_end|>")) == {"a"}
        assert set(rejected.removesuffix("<|im_end|>")) == {"b"}


def test_what_is_no_pair_is_refused(folder: Path, here: Here, tmp_path: Path) -> None:
    def refused(*lines: Any) -> str:
        (tmp_path / "bad.jsonl").write_text("\n".join(map(json.dumps, lines)))
        words = ("tokenize", "--chat", tmp_path / "bad.jsonl", "--tokenizer", folder, "-o", tmp_path / "t")
        error = here(*words, code=1).err
        assert not (tmp_path / "t").exists()
        return str(error)

    good = {"prompt": "q", "chosen": "a", "rejected": "b"}
    assert 'line 2: a pair has "chosen" and "rejected"; "rejected" is missing' in refused(good, {"prompt": "q", "chosen": "a"})
    assert "line 2: it is no pair of answers, unlike those before" in refused(good, {"prompt": "q", "completion": "a"})
    assert "line 2: it is a pair of answers, unlike those before" in refused({"text": "a"}, good)
    assert "has no pairs of different answers" in refused(good | {"rejected": "a"})


def test_with_strict_nothing_is_left_out(folder: Path, here: Here, tmp_path: Path) -> None:
    words = ("tokenize", "--chat", "--strict", folder / "pairs.jsonl", "--tokenizer", folder, "-o", tmp_path / "t")
    assert "line 3: its two answers are equal" in here(*words, "--context-length", 64, code=1).err
    assert not (tmp_path / "t").exists()
