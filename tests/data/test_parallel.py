"""Parallel texts to tokens, splits and batches: lines with a tab, dictionaries and JSON, who is in which split."""

from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.data.cleaners import pronunciations
from lib.data.dataset import Dataset
from lib.data.parallel import ParallelTexts, split_sources
from lib.data.parallel_lines import read_parallel
from lib.data.shards import Tokens
from lib.data.text import document_from_stream
from lib.errors import MakegptError
from tests.conftest import Here

PAIRS = [("cat", " K AE T"), ("read", " R EH D"), ("read", " R IY D"), ("to be", "être")]


def pairs(content: str) -> list[tuple[str, str]]:
    return [pair[1:] for pair in read_parallel(document_from_stream(BytesIO(content.encode()), "f"))]


def test_a_tab_or_the_first_space_ends_a_source() -> None:
    assert pairs("cat K AE T\nread\t R EH D\r\n\nread R IY D\nto be\têtre") == PAIRS
    assert pairs("a\u2028b\tc\n") == [("a\u2028b", "c")]


def test_json_lines_and_a_list_have_prompts_and_completions() -> None:
    lines = '{"prompt": "ab=", "completion": "ba"}\n{"prompt": "c", "completion": "c", "more": 1}\n'
    assert pairs(lines) == pairs(f"[{lines.strip().replace(chr(10), ',')}]") == [("ab=", "ba"), ("c", "c")]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("cat K\ndog\n", "f, line 2: 'dog' has no target; a line is a source, a tab and its target"),
        ("a\tb\tc\n", "f, line 1: it has 2 tabs"),
        ("a\t \n", "f, line 1: the target is empty"),
        ("a b\n\tb\n", "f, line 2: the source is empty"),
        (" a b\n", "f, line 1: the source is empty"),
        ('{"prompt": "a"}\n', 'f, line 1: parallel texts in JSON are objects with the texts "prompt" and "completion"'),
        ('{"prompt": "a", "completion": 7}\n', "f, line 1: parallel texts in JSON"),
        ('{"prompt": "a\\nb", "completion": "c"}\n', "f, line 1: the source has a line break"),
        ('{"prompt": "a", "completion": "\\ud800"}\n', "f, line 1: character 0 of 'completion' is half of a surrogate pair"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(content: str, problem: str) -> None:
    with pytest.raises(MakegptError) as error:
        pairs(content)
    assert problem in str(error.value)


def test_a_dictionary_loses_stress_variant_numbers_comments_and_what_is_then_equal() -> None:
    original = b"read R EH1 D\nread(2) R IY1 D # the present tense\nread(3) R IY2 D\na(b B IY1\n"
    assert pronunciations(original) == b"read R EH D\nread R IY D\na(b B IY\n"


def build(folder: Path, here: Here, content: str, *words: Any, tokenizer: str = "symbols", length: int = 8) -> ParallelTexts:
    (folder / "pairs").write_text(content, encoding="utf-8")
    here("tokenize", "--parallel", folder / "pairs", "--tokenizer", tokenizer, "-o", folder / "tokens")
    here("build-dataset", folder / "tokens", "-o", folder / "dataset", "--context-length", length, *words)
    texts = Dataset(folder / "dataset").parallel
    assert texts is not None
    return texts


#: 40 different sources; every fifth has two targets.
MANY = "".join(f"w{n:02} A{n}\n" + (f"w{n:02} B{n}\n" if n % 5 == 0 else "") for n in range(40))


def test_the_shards_give_the_pairs_back(tmp_path: Path, here: Here) -> None:
    texts = build(tmp_path, here, MANY)
    tokenizer = Tokens(tmp_path / "tokens").load_tokenizer()
    decoded = [
        tokenizer.decode(texts.source(number).tolist()) + tokenizer.decode(texts.target(number).tolist())
        for number in range(48)
    ]
    assert "".join(f"{line}\n" for line in decoded) == MANY
    assert tokenizer.endoftext == texts.end == tokenizer.vocab_size - 1


def test_all_targets_of_a_source_are_in_one_split(tmp_path: Path, here: Here) -> None:
    texts = build(tmp_path, here, MANY, "--val-fraction", 0.1, "--test-fraction", 0.2)
    splits = {name: {texts.source(n).tobytes() for n in texts.numbers(name)} for name in ("train", "val", "test")}
    assert [len(sources) for sources in splits.values()] == [28, 4, 8]
    assert len(set().union(*splits.values())) == 40
    assert sorted(chain(*(texts.numbers(name) for name in splits))) == list(range(48))


def test_a_twentieth_and_a_tenth_are_split_by_the_published_rule() -> None:
    """g2p-seq2seq: of every 20 words the first is for validation, the second and third are for test."""
    splits = split_sources(np.arange(60), 0.05, 0.1).tolist()
    assert splits == ["val", "test", "test", *["train"] * 17] * 3


@pytest.mark.parametrize(("val", "test"), [(0.1, 0.0), (0.3, 0.3), (1 / 3, 0.25), (0.001, 0.999 / 2)])
def test_every_split_has_its_fraction(val: float, test: float) -> None:
    splits = split_sources(np.arange(20_000), round(val, 4), round(test, 4))
    assert (splits == "val").mean() == pytest.approx(val, abs=1e-3)
    assert (splits == "test").mean() == pytest.approx(test, abs=1e-3)


def test_a_batch_is_padded_and_its_targets_stand_between_ends(tmp_path: Path, here: Here) -> None:
    texts = build(tmp_path, here, "ab X Y\nc Z\nabc X\n" + MANY)
    numbers = texts.numbers("train")[:2]
    batch, end = texts.batch(numbers), texts.end
    for row, number in enumerate(numbers):
        source, target = texts.source(number).tolist(), texts.target(number).tolist()
        assert batch.source[row].tolist() == source + [end] * (batch.source.shape[1] - len(source))
        assert batch.source_lengths[row] == len(source)
        assert batch.target[row].tolist() == [end, *target] + [end] * (batch.target.shape[1] - len(target) - 1)
        assert batch.target_lengths[row] == len(target) + 1
    assert texts.target_tokens(numbers) == batch.target_lengths.sum()


def test_an_epoch_has_every_training_pair_once_and_pieces_make_up_the_batch(tmp_path: Path, here: Here) -> None:
    texts = build(tmp_path, here, MANY)
    dataset = Dataset(tmp_path / "dataset")
    n = len(texts.numbers("train"))
    assert dataset.windows == n
    batches = [dataset.parallel_batch(1, step, 1) for step in range(n)]
    assert len({(batch.source.tobytes(), batch.target.tobytes()) for batch in batches}) == n
    whole = dataset.parallel_batch(1, 3, 8)
    pieces = [dataset.parallel_batch(1, 3, 8, range(start, start + 4)) for start in (0, 4)]
    sizes = whole.source_lengths + whole.target_lengths
    assert sizes.tolist() == sorted(sizes)
    assert [length for piece in pieces for length in piece.source_lengths] == whole.source_lengths.tolist()
    assert [row[1] for piece in pieces for row in piece.target.tolist()] == whole.target[:, 1].tolist()


def test_a_long_pair_is_left_out_and_counted_or_refused(tmp_path: Path, here: Here) -> None:
    long = "abcdefghi X\na" + " Y" * 8 + "\n"  # a source of 9 tokens; a target of 8 and its end
    texts = build(tmp_path, here, MANY + long)
    assert texts.metadata()["left_out"] == 2
    assert len(np.concatenate([texts.numbers(name) for name in ("train", "val", "test")])) == 48
    refused = here("build-dataset", tmp_path / "tokens", "-o", tmp_path / "d", "--context-length", 8, "--strict", code=1).err
    assert "2 pairs of" in refused
    assert "have a text of more than 8 tokens" in refused


def test_the_character_tokenizer_gets_an_end_of_text(tmp_path: Path, here: Here) -> None:
    texts = build(
        tmp_path, here, '{"prompt": "ab=", "completion": "ba"}\n{"prompt": "c", "completion": "c"}\n', tokenizer="char"
    )
    tokenizer = Tokens(tmp_path / "tokens").load_tokenizer()
    assert tokenizer.kind == "extended"
    assert texts.end == tokenizer.endoftext


def test_what_cannot_be_parallel_texts_is_refused_by_name(tmp_path: Path, here: Here) -> None:
    (tmp_path / "pairs").write_text("a b\n")
    (tmp_path / "empty").write_text("\n \n")
    parallel = ("tokenize", "--parallel", "-o", tmp_path / "t", "--tokenizer")
    assert "has no parallel texts" in here(*parallel, "symbols", tmp_path / "empty", code=1).err
    assert (
        "--parallel with bpe needs a saved vocabulary"
        in here(*parallel, "bpe", "--vocab-size", 300, tmp_path / "pairs", code=2).err
    )
    assert "--parallel makes shards" in here(*parallel, "symbols", "--labels", tmp_path / "pairs", code=2).err
    assert "give it to build-dataset" in here(*parallel, "symbols", "--strict", tmp_path / "pairs", code=2).err
    here(*parallel, "symbols", tmp_path / "pairs")
    few = here("build-dataset", tmp_path / "t", "-o", tmp_path / "d", code=1).err
    assert "each split takes one" in few
    stride = here("build-dataset", tmp_path / "t", "-o", tmp_path / "d", "--stride", 3, code=2).err
    assert "is for running text" in stride
