"""Conversations to tokens to packed windows: what is learned, what is refused."""

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from lib.chat.examples import example_segments, read_examples
from lib.chat.messages import Message
from lib.chat.template import ALPACA_SYSTEM, Alpaca, ChatML
from lib.data.dataset import Dataset
from lib.data.packed import pack_texts
from lib.data.packing import pack
from lib.data.shards import BEGINS, TRAINED, Tokens
from lib.errors import MakegptError
from stages.shared.tokens import conversation_text
from tests.chat.test_template import TOKENIZER
from tests.conftest import Here

CHATML = ChatML()
USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def learned(value: Any, format: str = "messages") -> list[str]:
    return [segment.text for segment in example_segments(value, CHATML, format) if segment.trained]


@pytest.mark.parametrize(
    ("value", "format", "texts"),
    [
        ({"messages": [USER, ANSWER, USER, ANSWER]}, "messages", ["a", "<|im_end|>"] * 2),
        ({"prompt": [USER, ANSWER, USER], "completion": [ANSWER]}, "messages", ["a", "<|im_end|>"]),
        ({"prompt": "2 + 2 =", "completion": " 4"}, "messages", [" 4", "<|im_end|>"]),
        ({"text": "all of it"}, "messages", ["all of it", "<|im_end|>"]),
        ({"instruction": "Add.", "input": "2 + 2", "output": "4"}, "alpaca", ["4", "<|im_end|>"]),
    ],
)
def test_each_shape_says_what_is_learned(value: Any, format: str, texts: list[str]) -> None:
    assert learned(value, format) == texts


def test_alpaca_s_shape_is_written_as_the_textbook_has_it() -> None:
    value = {"instruction": "Add.", "input": "2 + 2", "output": "4"}
    text = "".join(segment.text for segment in example_segments(value, Alpaca(ALPACA_SYSTEM), "alpaca"))
    assert text == f"{ALPACA_SYSTEM}\n\n### Instruction:\nAdd.\n\n### Input:\n2 + 2\n\n### Response:\n4<|endoftext|>"
    without = "".join(segment.text for segment in example_segments(value | {"input": ""}, Alpaca(), "alpaca"))
    assert without == "### Instruction:\nAdd.\n\n### Response:\n4<|endoftext|>"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([], "must be a JSON object"),
        ({}, 'an example has "messages"'),
        ({"messages": []}, "at least one message"),
        ({"messages": [USER]}, "nothing is learned"),
        ({"prompt": [USER, ANSWER], "completion": []}, "nothing is learned"),
        ({"prompt": "q", "completion": " "}, "nothing is learned"),
        ({"prompt": "", "completion": "a"}, "all of it is learned"),
        ({"text": ""}, "nothing is learned"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "the role 'bot'"),
    ],
)
def test_an_example_without_an_answer_or_shape_is_refused(value: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        example_segments(value, CHATML)


@pytest.mark.parametrize(
    "pieces", [['{"a": 1}\n', '\n{"a"', ": 2}\r\n{", '"a": 3}'], ['[{"a": 1},\n\n{"a": 2}, {"a"', ": 3}]"]]
)
def test_json_lines_and_a_list_are_read_alike(pieces: list[str]) -> None:
    assert [value["a"] for _, value in read_examples(pieces, "f")] == [1, 2, 3]


def test_an_error_names_the_line() -> None:
    with pytest.raises(MakegptError, match="f, line 3: not valid JSON"):
        list(read_examples(['{"a": 1}\n\n{"a" 2}\n'], "f"))
    assert list(read_examples(["\n \n"], "f")) == []


def test_windows_hold_whole_texts_and_few_of_them_are_needed() -> None:
    lengths = np.random.default_rng(1).integers(1, 60, 500).tolist()
    windows = pack(lengths, 64)
    assert sorted(text for window in windows for text in window) == list(range(500))
    assert all(sum(lengths[text] for text in window) <= 64 for window in windows)
    assert len(windows) <= 1.03 * sum(lengths) / 64 + 1
    assert pack([3, 3, 3], 3) == [[0], [1], [2]]
    with pytest.raises(ValueError, match="text 1 has 5 tokens"):
        pack([1, 5], 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer and twenty conversations, of which one is longer than a window of 64."""
    folder = tmp_path_factory.mktemp("conversations")
    TOKENIZER.save(folder / "tokenizer.json")
    answers = ["a" * (1 + number % 7) for number in range(20)]
    answers[4] = "long " * 30
    lines = [{"messages": [USER, ANSWER | {"content": answer}]} for answer in answers]
    (folder / "talk.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return folder


def build(folder: Path, here: Here, *words: Any) -> Dataset:
    here("tokenize", "--chat", folder / "talk.jsonl", "--tokenizer", folder, "-o", folder / "tokens")
    here("build-dataset", folder / "tokens", "-o", folder / "dataset", "--context-length", 64, *words)
    return Dataset(folder / "dataset")


def test_marks_say_where_a_conversation_begins_and_what_is_learned(folder: Path, here: Here) -> None:
    output = here("tokenize", "--chat", folder / "talk.jsonl", "--tokenizer", folder, "-o", folder / "tokens").err
    assert "20 conversations" in output
    tokens = Tokens(folder / "tokens")
    assert tokens.chat == CHATML.to_saved()
    assert tokens.marks is not None
    ids, marks = tokens.read(0, len(tokens)), tokens.marks.read(0, len(tokens))
    assert int((marks & BEGINS > 0).sum()) == 20
    (end,) = np.flatnonzero(marks[1:] & BEGINS)[:1] + 1
    assert TOKENIZER.decode(ids[:end]) == CHATML.text([Message("user", "q"), Message("assistant", "a")])
    assert TOKENIZER.decode(ids[:end][marks[:end] & TRAINED > 0]) == "a<|im_end|>"


def test_a_dataset_holds_each_training_conversation_once(folder: Path, here: Here) -> None:
    dataset = build(folder, here, "--val-fraction", 0.2, "--test-fraction", 0.1)
    assert dataset.packed is not None
    assert [len(list(dataset.texts_of(name))) for name in ("train", "val", "test")] == [14, 4, 2]
    seen = []
    for number in range(dataset.windows):
        windows = dataset.packed.windows(dataset.tokens, [number], 65)
        assert windows.ids.shape == (1, 65)
        for text in range(windows.texts.max() + 1):
            here_is = windows.texts[0] == text
            seen.append((TOKENIZER.decode(windows.ids[0, here_is]), windows.trained[0, here_is].tolist()))
        assert not windows.trained[0, windows.texts[0] == -1].any()
    expected = [(TOKENIZER.decode(ids), trained.tolist()) for ids, trained in dataset.texts_of("train")]
    assert sorted(seen) == sorted(expected)
    assert max(len(trained) for _, trained in seen) == 65
    assert dataset.manifest.metadata["cut_texts"] == 1


def test_more_tokens_than_the_files_can_count_are_refused(folder: Path, here: Here) -> None:
    tokens = build(folder, here).tokens
    with pytest.raises(MakegptError, match="at most 4,294,967,295 can be packed"):
        pack_texts(tokens, np.array([0, 2**32]), 65)


def test_every_epoch_has_every_window(folder: Path, here: Here) -> None:
    dataset = build(folder, here, "--val-fraction", 0.2)
    numbers = [number for step in range(dataset.windows) for number in dataset.window_numbers(1, step, 2)]
    assert sorted(numbers) == sorted([*range(dataset.windows)] * 2)
    part, whole = dataset.packed_batch(1, 3, 4, range(1, 3)), dataset.packed_batch(1, 3, 4)
    assert all(np.array_equal(mine, all_of_them[1:3]) for mine, all_of_them in zip(part, whole, strict=True))


def test_what_does_not_fit_is_refused(folder: Path, here: Here, tmp_path: Path) -> None:
    build(folder, here)
    tokens = folder / "tokens"
    assert "is for running text" in here("build-dataset", tokens, "-o", tmp_path / "d", "--stride", 3, code=2).err
    assert "has an answer within 9" in here("build-dataset", tokens, "-o", tmp_path / "d", "--context-length", 8, code=1).err
    assert "each split takes one" in here("build-dataset", tokens, "-o", tmp_path / "d", "--val-fraction", 0.97, code=1).err
    assert not (tmp_path / "d").exists()
    (tmp_path / "bad.jsonl").write_text('{"messages": [{"role": "user", "content": "q"}]}')
    chat = ("tokenize", "--chat", "--tokenizer", folder, "-o", tmp_path / "t")
    assert "bad.jsonl, line 1: nothing is learned" in here(*chat, tmp_path / "bad.jsonl", code=1).err
    assert (
        "--format goes with --chat" in here("tokenize", "--format", "alpaca", folder / "talk.jsonl", "-o", tmp_path, code=2).err
    )
    assert not (tmp_path / "t").exists()


def test_a_long_conversation_is_refused_if_asked_by_its_line_or_number(folder: Path, here: Here, tmp_path: Path) -> None:
    talk, window = folder / "talk.jsonl", ("--context-length", 64)
    build(folder, here)
    chat = ("tokenize", "--chat", "--strict", "--tokenizer", folder, "-o", tmp_path / "t")
    assert "talk.jsonl, line 5: it has 169 tokens, and a window 65" in here(*chat, talk, *window, code=1).err
    dataset = ("build-dataset", folder / "tokens", "-o", tmp_path / "d", "--strict")
    assert "conversation 5 of" in here(*dataset, *window, code=1).err
    assert not any(tmp_path.iterdir())
    here(*chat, talk, "--context-length", 200)
    here(*dataset, "--context-length", 200)
    assert "--strict goes with --chat" in here("tokenize", "--strict", talk, "-o", tmp_path / "u", code=2).err
    here("tokenize", talk, "--tokenizer", "bytes", "-o", tmp_path / "text")
    assert "is for conversations" in here("build-dataset", tmp_path / "text", "-o", tmp_path / "x", "--strict", code=2).err


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"messages": [{"role": "tool", "content": "x"}]}', "the role 'tool'"),
        ('{"messages": [{"role": "user", "content": " "}]}', "message 1, of the user, is empty"),
        ('{"messages": ', "not valid JSON"),
        ('{"text": "a\\ud800"}', "character 1 of a text is half of a surrogate pair"),
        (
            '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "\\ud800"}]}',
            "half of a surrogate",
        ),
        ('{"prompt": "", "completion": "x"}', "all of it is learned"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_left(line: str, problem: str, folder: Path, here: Here, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(json.dumps({"text": "fine"}) + "\n" + line, encoding="utf-8")
    error = here("tokenize", "--chat", tmp_path / "bad.jsonl", "--tokenizer", folder, "-o", tmp_path / "t", code=1).err
    assert "bad.jsonl, line 2: " in error
    assert problem in error
    assert not (tmp_path / "t").exists()


def test_a_vocabulary_is_learned_from_the_texts_that_are_for_training(folder: Path, here: Here, tmp_path: Path) -> None:
    words = ("--tokenizer", "bpe", "--set", "tokenize.vocab_size=265", "--val-fraction", 0.5)
    here("tokenize", "--chat", folder / "talk.jsonl", *words, "-o", tmp_path / "t")
    tokens = Tokens(tmp_path / "t")
    tokenizer = tokens.load_tokenizer()
    assert tokenizer.vocab_size == 267
    assert [tokenizer.token_bytes(id) for id in tokenizer.special_ids()] == [b"<|endoftext|>", b"<|im_start|>", b"<|im_end|>"]
    assert b"aa" in map(tokenizer.token_bytes, range(265))
    assert tokens.manifest.parameters["val_fraction"] == 0.5
    other = [json.dumps({"messages": [USER, ANSWER | {"content": "zzzz" * 20}]})] * 10
    lines = (folder / "talk.jsonl").read_text(encoding="utf-8").splitlines()[:10] + other
    (tmp_path / "more.jsonl").write_text("\n".join(lines), encoding="utf-8")
    here("tokenize", "--chat", tmp_path / "more.jsonl", *words, "-o", tmp_path / "more")
    assert Tokens(tmp_path / "more").load_tokenizer().identity() == tokenizer.identity(), "the second half is held out"


def test_inspect_shows_a_conversation_with_what_is_learned_of_it(folder: Path, here: Here) -> None:
    build(folder, here)
    shown = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[[aa<|im_end|>]]\n"
    for name in ("tokens", "dataset"):
        output = here("inspect", folder / name, "--conversation", 2).out
        assert output.startswith("conversation 2 of 20: 3 of ")
        assert shown in output
        whole = here("inspect", folder / name).out
        assert "conversations: 20" in whole
        assert "[[a<|im_end|>]]" in whole
        assert "[[" not in here("inspect", folder / name, "--json").out
    assert "has 20 conversations, and no number 21" in here("inspect", folder / "tokens", "--conversation", 21, code=1).err
    (folder / "tokens").rename(folder / "moved")
    assert "[[" not in here("inspect", folder / "dataset").out, "a dataset is described without its tokens"
    assert "does not exist" in here("inspect", folder / "dataset", "--conversation", 1, code=1).err
    (folder / "moved").rename(folder / "tokens")
    error = here("inspect", folder / "tokenizer.json", "--conversation", 1, code=1).err
    assert "holds no conversations" in error


def test_on_a_terminal_what_is_learned_is_green_and_control_characters_are_escaped() -> None:
    parts = [("a\n", False), ("b\x1b[2J\n", True)]
    assert conversation_text(parts, colored=True) == "a\n" + click.style("b\\x1b[2J\n", fg="green")
    assert conversation_text(parts, colored=False) == "a\n[[b\\x1b[2J\n]]"
