"""Labeled texts to tokens to splits: CSV and JSON Lines, what is refused, who is in which split."""

import json
from collections import Counter
from io import BytesIO
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from lib.data.cleaners import labeled_messages
from lib.data.dataset import Dataset
from lib.data.labels import Columns, LabeledText, read_labeled
from lib.data.packed import text_starts
from lib.data.shards import Tokens
from lib.data.text import document_from_stream
from lib.errors import MakegptError
from tests.conftest import Here

ROWS = [("ham", "a, b"), ("spam", 'say "win"\nnow'), ("ham", "naïve 😀"), ("spam", "café")]


COLUMNS = Columns()


def rows(content: str, columns: Columns = COLUMNS) -> list[LabeledText]:
    return list(read_labeled(document_from_stream(BytesIO(content.encode()), "f"), columns))


def as_csv(rows: list[tuple[str, str]] = ROWS) -> str:
    quoted = (f'{label},"{text.replace(chr(34), chr(34) * 2)}"\n' for label, text in rows)
    return "label,text\n" + "".join(quoted)


def as_json(rows: list[tuple[str, str]] = ROWS) -> str:
    return "".join(json.dumps({"label": label, "text": text}) + "\n" for label, text in rows)


@pytest.mark.parametrize("content", [as_csv(), as_csv().replace("\n", "\r\n").replace("\r\nnow", "\nnow"), as_json()])
def test_csv_with_quotes_and_line_breaks_and_json_lines_are_read_alike(content: str) -> None:
    assert [(label, text) for _, text, label in rows(content)] == ROWS


def test_the_columns_have_any_names_and_numbers_are_labels() -> None:
    assert rows("is_spam,n,message\n0,7,hello\n\n1,8,win\n", Columns("message", "is_spam")) == [
        ("f, line 2", "hello", "0"), ("f, line 4", "win", "1"),
    ]  # fmt: skip
    assert [text.label for text in rows('{"text": "a", "label": 3}\n{"text": "a", "label": true}')] == ["3", "true"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("label,txt\nham,a\n", "no column 'text' in its first line.*--text-column"),
        ("label,text,text\nham,a,b\n", "two columns 'text'"),
        ('label,text\nham,"a\nb"\nham,a,b\n', "line 4: it has 3 fields, the header 2; quote"),
        ('label,text\nham,a\nham,"a\n', "line 3: not valid CSV"),
        ('label,text\nham,"a"b\n', "line 2: not valid CSV"),
        ("label,text\nham, \n", "line 2: 'text' is empty"),
        ("label,text\n,a\n", "line 2: 'label' is empty"),
        ("label,text\nha\x1bm,a\n", "a label is one line without control characters"),
        ('{"text": "a", "label": "x"}\n[]\n', "line 2: a labeled text must be a JSON object"),
        ('{"text": "a", "label": null}\n', "line 1: 'label' is not a text"),
        ('{"text": 1, "label": "x"}\n', "line 1: 'text' is not a text"),
        ('{"text": "a", "lable": "x"}\n', "line 1: there is no 'label'.*--label-column"),
        ('{"text": "a\\ud800", "label": "x"}\n', "character 1 of 'text' is half of a surrogate pair"),
        ('{"text": "a"\n', "line 1: not valid JSON"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(content: str, problem: str) -> None:
    with pytest.raises(MakegptError, match=problem):
        rows(content)


def tokenized(folder: Path, here: Here, content: str, name: str = "texts.csv") -> Tokens:
    (folder / name).write_text(content, encoding="utf-8")
    here("tokenize", "--labels", folder / name, "--tokenizer", "bytes", "-o", folder / "tokens")
    return Tokens(folder / "tokens")


def test_tokens_say_where_a_text_begins_and_what_its_class_is(tmp_path: Path, here: Here) -> None:
    tokens = tokenized(tmp_path, here, as_csv())
    assert tokens.classes == ("ham", "spam")
    assert tokens.manifest.metadata["classes"] == {"ham": 2, "spam": 2}
    assert tokens.labels is not None
    assert tokens.labels.read(0, 4).tolist() == [0, 1, 0, 1]
    starts = text_starts(tokens)
    texts = [tokens.load_tokenizer().decode(tokens.read(*span)) for span in pairwise(starts)]
    assert texts == [text for _, text in ROWS]


def test_one_class_alone_cannot_be_learned(tmp_path: Path, here: Here) -> None:
    (tmp_path / "f.csv").write_text("label,text\nham,a\nham,b\n")
    (tmp_path / "empty.csv").write_text("label,text\n")
    labels = ("tokenize", "--labels", "--tokenizer", "bytes", "-o", tmp_path / "tokens")
    assert "all 2 texts have the label 'ham'; a classifier needs two classes" in here(*labels, tmp_path / "f.csv", code=1).err
    assert "has no labeled texts" in here(*labels, tmp_path / "empty.csv", code=1).err
    assert (
        "--label-column goes with --labels"
        in here("tokenize", "--label-column", "x", tmp_path / "f.csv", "-o", "d", code=2).err
    )
    assert not (tmp_path / "tokens").exists()


def dataset(folder: Path, here: Here, *words: Any) -> Dataset:
    here("build-dataset", folder / "tokens", "-o", folder / "dataset", "--context-length", 8, *words)
    return Dataset(folder / "dataset")


#: 40 texts of class a, 10 of class b; the number of each is in it.
MANY = as_csv([("ab"[n % 5 == 4], f"{n:02}") for n in range(50)])


def test_every_text_is_in_one_split_and_keeps_its_class(tmp_path: Path, here: Here) -> None:
    tokenized(tmp_path, here, MANY)
    texts = dataset(tmp_path, here, "--val-fraction", 0.1, "--test-fraction", 0.2).labeled
    assert texts is not None
    numbers = [texts.numbers(name).tolist() for name in ("train", "val", "test")]
    assert [len(split) for split in numbers] == [35, 5, 10]
    assert sorted(chain(*numbers)) == list(range(50))
    assert numbers[0] != sorted(numbers[0])
    for number, (ids, label) in zip(numbers[0], texts.read(numbers[0]), strict=True):
        assert bytes(ids.tolist()).decode() == f"{number:02}"
        assert label == (number % 5 == 4)


def test_balanced_classes_have_as_many_texts_as_the_smallest(tmp_path: Path, here: Here) -> None:
    tokenized(tmp_path, here, MANY)
    texts = dataset(tmp_path, here, "--balance", "true", "--test-fraction", 0.2).labeled
    assert texts is not None
    used = np.concatenate([texts.numbers(name) for name in ("train", "val", "test")])
    assert Counter(text.label for text in texts.read(used)) == {0: 10, 1: 10}
    other = dataset(tmp_path, here, "--balance", "true", "--seed", 7).labeled
    assert other is not None
    assert set(other.numbers("train")) != set(texts.numbers("train"))


def test_a_long_text_is_cut_and_counted_or_refused(tmp_path: Path, here: Here) -> None:
    tokenized(tmp_path, here, as_csv([("ab"[n % 2], "x" * (9 if n == 3 else 8)) for n in range(20)]))
    cut = dataset(tmp_path, here)
    assert cut.labeled is not None
    assert cut.manifest.metadata["cut_texts"] == 1
    assert max(len(ids) for ids, _ in cut.labeled.read(range(20))) == 8
    refused = here("build-dataset", tmp_path / "tokens", "-o", tmp_path / "d", "--context-length", 8, "--strict", code=1).err
    assert "are longer than the context of 8 tokens, text 4 most" in refused
    assert not (tmp_path / "d").exists()


def test_what_does_not_fit_labeled_texts_is_refused(tmp_path: Path, here: Here) -> None:
    tokenized(tmp_path, here, as_csv([*[("ham", "x")] * 9, ("rare", "x")]))
    build = ("build-dataset", tmp_path / "tokens", "-o", tmp_path / "d")
    assert "each split takes one" in here(*build, "--val-fraction", 0.95, code=1).err
    assert "is for running text" in here(*build, "--stride", 3, code=2).err
    assert "no text of the class 'rare' is in the training split of 1" in here(*build, "--val-fraction", 0.9, code=1).err
    here("tokenize", tmp_path / "texts.csv", "--tokenizer", "bytes", "-o", tmp_path / "text")
    assert (
        "--balance is for labeled texts"
        in here("build-dataset", tmp_path / "text", *build[2:], "--balance", "true", code=2).err
    )
    assert not (tmp_path / "d").exists()


def test_rows_that_swallowed_others_are_split_again() -> None:
    swallowed = 'a" b\nham\tc\td\nspam\te'
    content = f',spam,text\n0,0,fine\n1,1,"{swallowed.replace(chr(34), chr(34) * 2)}"\n'.encode()
    assert labeled_messages(content).decode() == 'label,text\nham,fine\nspam,"a"" b"\nham,c\td\nspam,e\n'


def test_the_spam_collection_has_uci_s_counts_and_the_textbook_s_splits(
    fetched: Callable[[str], Path], tmp_path: Path, here: Here
) -> None:
    tokens = tokenized(tmp_path, here, (fetched("sms_spam") / "sms_spam.csv").read_text(encoding="utf-8"))
    assert tokens.manifest.metadata["classes"] == {"ham": 4827, "spam": 747}
    fractions = ("--val-fraction", 0.1, "--test-fraction", 0.2)
    texts = dataset(tmp_path, here, "--balance", "true", "--seed", 123, *fractions).labeled
    assert texts is not None
    assert [len(texts.numbers(name)) for name in ("train", "val", "test")] == [1045, 149, 300]
    assert sum(text.label for text in texts.read(texts.numbers("test"))) == 151
