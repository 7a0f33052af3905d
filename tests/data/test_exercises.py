"""Exercises written by a rule: the pinned bytes, the right answers, no network."""

import json
from pathlib import Path

import pytest

from lib.config.params import load_params
from lib.data.downloads import fetch_input, find_input
from lib.data.exercises import reverse, sums
from lib.errors import UsageError
from tests.conftest import PROJECT


def test_words_are_distinct_and_reversed() -> None:
    words = list(reverse())
    assert len({prompt for prompt, _ in words}) == len(words) == 4000
    assert all(prompt == f"{answer[::-1]}=" for prompt, answer in words)
    assert [len(answer) for _, answer in words[:4]] == [3, 4, 5, 6]


def test_all_sums_of_two_digits_are_there() -> None:
    exercises = dict(sums())
    assert exercises == {f"{a}+{b}=": str(a + b) for a in range(10) for b in range(10)}


@pytest.mark.parametrize("name", ["reverse", "sums"])
def test_fetch_writes_the_pinned_bytes(name: str, tmp_path: Path) -> None:
    entry = find_input(load_params(PROJECT / "params.yaml"), name)
    (file,) = fetch_input(entry, tmp_path)
    assert (file.path.name, file.source) == (f"{name}.jsonl", f"written by the rule {name}")
    assert json.loads(file.path.read_text().splitlines()[0]).keys() == {"prompt", "completion"}


def test_an_unknown_rule_is_refused() -> None:
    entry = {"about": "", "license": "", "files": {"x.jsonl": "0" * 64}, "exercise": "sum"}
    with pytest.raises(UsageError, match=r"there is no exercise 'sum'.*sums"):
        find_input({"inputs": {"x": entry}}, "x")
