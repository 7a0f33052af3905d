"""Token shards: the same ids whatever the shards' size, and nothing accepted that is not what was written."""

import shutil
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.config.text import TokenizeConfig
from lib.data.corpus import write_corpus
from lib.data.shards import Tokens, dtype_for, open_shard, write_shards
from lib.data.text import open_document
from lib.errors import MakegptError

TEXT = "To be, or not to be: that is the question.\n" * 3
IDS = list(TEXT.encode())


def written(folder: Path, text: str = TEXT, kind: str = "bytes", shard_tokens: int = 50) -> Path:
    """A tokens folder of `text`."""
    folder.mkdir(exist_ok=True)
    (folder / "text.txt").write_bytes(text.encode("utf-8"))
    settings = TokenizeConfig(tokenizer=kind, vocab_size=None, errors="strict", shard_tokens=shard_tokens)
    documents = [open_document(folder / "text.txt")]
    write_corpus(folder / "tokens", documents, kind, settings, started="", on_bytes=lambda _: None)
    return folder / "tokens"


@pytest.fixture(scope="module")
def tokens_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text in three shards of 50, 50 and 29 ids. Copy it to damage it."""
    return written(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def copied(tokens_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tokens_folder, tmp_path / "copy"))


def test_every_shard_but_the_last_is_full(tokens_folder: Path) -> None:
    assert [len(shard) for shard in Tokens(tokens_folder).shards] == [50, 50, 29]
    assert sorted(path.name for path in tokens_folder.glob("*.npy")) == [f"shard-0000{n}.npy" for n in range(3)]


def test_reading_across_shards_gives_the_ids_of_the_text(tokens_folder: Path) -> None:
    tokens = Tokens(tokens_folder)
    assert len(tokens) == len(IDS)
    for start, stop in [(0, 129), (0, 50), (49, 51), (50, 100), (0, 51), (99, 129), (100, 129), (128, 129), (10, 10)]:
        assert tokens.read(start, stop).tolist() == IDS[start:stop]


def test_blocks_are_all_ids_in_order(tokens_folder: Path) -> None:
    tokens = Tokens(tokens_folder)
    blocks = list(tokens.blocks(3, 120, size=40))
    assert [len(block) for block in blocks] == [40, 40, 37]
    assert np.concatenate(blocks).tolist() == IDS[3:120]


def test_what_is_read_is_an_array_of_its_own(tokens_folder: Path) -> None:
    tokens = Tokens(tokens_folder)
    tokens.read(0, 10)[:] = 0
    assert tokens.read(0, 10).tolist() == IDS[:10]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 65_535), max_size=9), max_size=9), st.integers(1, 8))
def test_a_stream_of_ids_is_stored_whole_whatever_comes_at_once(
    tmp_path_factory: pytest.TempPathFactory, arrays: list[list[int]], shard_tokens: int
) -> None:
    folder = tmp_path_factory.mktemp("stream")
    stream = (np.array(array, np.uint32) for array in arrays)
    names = write_shards(folder, stream, np.dtype(np.uint16), shard_tokens)
    shards = [np.load(folder / name) for name in names]
    assert np.concatenate(shards).tolist() == list(chain(*arrays))
    assert all(len(shard) == shard_tokens for shard in shards[:-1])
    assert len(shards[-1]) or not any(arrays)


def test_ids_take_two_bytes_where_the_vocabulary_fits_and_else_four() -> None:
    assert dtype_for(256) == dtype_for(50_257) == dtype_for(65_536) == np.uint16
    assert dtype_for(65_537) == np.uint32


def test_the_ids_of_a_vocabulary_beyond_two_bytes_survive(tmp_path: Path) -> None:
    text = "".join(chr(0x10000 + n) for n in range(65_537))
    tokens = Tokens(written(tmp_path, text, "char", shard_tokens=30_000))
    assert tokens.dtype == np.uint32
    assert tokens.read(0, len(tokens)).tolist() == list(range(65_537))


def test_the_ids_of_a_vocabulary_that_fits_just_so_survive(tmp_path: Path) -> None:
    text = "".join(chr(0x10000 + n) for n in range(65_536))
    tokens = Tokens(written(tmp_path, text, "char", shard_tokens=1 << 20))
    assert tokens.dtype == np.uint16
    assert tokens.read(0, len(tokens)).tolist() == list(range(65_536))


def test_the_same_text_gives_the_same_identity_anywhere(tokens_folder: Path, tmp_path: Path) -> None:
    again = written(tmp_path / "elsewhere")
    for name in ("shard-00000.npy", "tokenizer.json"):
        assert (again / name).read_bytes() == (tokens_folder / name).read_bytes()


def test_a_truncated_shard_is_refused_by_name(copied: Path) -> None:
    shard = copied / "shard-00001.npy"
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(MakegptError, match=r"shard-00001\.npy is damaged: it has \d+ bytes, not \d+"):
        Tokens(copied)


def test_a_shard_with_one_flipped_bit_is_refused_by_name(copied: Path) -> None:
    shard = copied / "shard-00002.npy"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(MakegptError, match=r"shard-00002\.npy is damaged: its SHA-256"):
        Tokens(copied)


def test_shards_that_changed_places_are_refused_by_name(copied: Path) -> None:
    one, two = copied / "shard-00000.npy", copied / "shard-00001.npy"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    with pytest.raises(MakegptError, match=r"shard-00000\.npy is damaged"):
        Tokens(copied)


def test_a_missing_shard_and_a_changed_tokenizer_are_refused_by_name(copied: Path) -> None:
    (copied / "tokenizer.json").write_text('{"kind": "bytes"}', encoding="utf-8")
    with pytest.raises(MakegptError, match=r"tokenizer\.json is damaged"):
        Tokens(copied)
    (copied / "shard-00000.npy").unlink()
    with pytest.raises(MakegptError, match=r"shard-00000\.npy is missing"):
        Tokens(copied)


def test_a_folder_that_holds_no_tokens_is_refused_with_what_makes_them(tmp_path: Path) -> None:
    with pytest.raises(MakegptError, match="`tokenize FILE -o "):
        Tokens(tmp_path / "none")
    with pytest.raises(MakegptError, match=r"has no manifest\.json.*`tokenize FILE -o "):
        Tokens(tmp_path)


@pytest.mark.parametrize(
    "array",
    [np.zeros(3), np.zeros((2, 2), np.uint16), np.zeros(3, np.int64), np.array(5, np.uint16), np.array([{}], dtype=object)],
)
def test_an_array_that_is_no_shard_is_refused_by_name(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "shard-00000.npy", array, allow_pickle=True)
    with pytest.raises(MakegptError, match=r"shard-00000\.npy"):
        open_shard(tmp_path / "shard-00000.npy")


@pytest.mark.parametrize("content", [b"", b"text\n", b"\x93NUMPY", b"PK\x03\x04"])
def test_a_file_that_is_no_array_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "shard-00000.npy").write_bytes(content)
    with pytest.raises(MakegptError, match=r"shard-00000\.npy is not a token shard"):
        open_shard(tmp_path / "shard-00000.npy")


def test_a_text_that_gives_no_tokens_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(MakegptError, match=r"text\.txt gives no tokens"):
        written(tmp_path, " \n \n", "word")
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_a_binary_file_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(MakegptError, match=r"text\.txt looks like a binary file: character 130 is NUL"):
        written(tmp_path, TEXT + "a\0")
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]
