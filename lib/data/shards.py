"""Token shards: the ids of a corpus as 1-D `.npy` files, written as a stream and read memory-mapped.

`uint16` where the vocabulary fits, else `uint32`; each shard holds `shard_tokens` ids but the last.
Nothing here keeps more than one shard in memory, so a corpus may have any size.
"""

import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Iterable, Iterator

import numpy as np

from lib.artifact.manifest import read_manifest, verify_files
from lib.errors import MakegptError
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.registry import load_tokenizer


def dtype_for(vocab_size: int) -> np.dtype[Any]:
    """The smallest of uint16 and uint32 that holds every id."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def write_shards(folder: Path, ids: Iterable[np.ndarray], dtype: np.dtype[Any], shard_tokens: int) -> list[str]:
    """Write the stream `ids` into `folder` as shard-00000.npy and so on; return their names."""
    names: list[str] = []
    shard = np.empty(shard_tokens, dtype)
    filled = 0

    def flush() -> None:
        names.append(f"shard-{len(names):05d}.npy")
        with open(folder / names[-1], "wb") as file:  # numpy's own save does not say why a disk refused
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(shard[:filled]))
            file.write(shard[:filled].data)

    for array in ids:
        while len(array):
            taken = array[: shard_tokens - filled]
            shard[filled : filled + len(taken)] = taken
            filled += len(taken)
            array = array[len(taken) :]
            if filled == shard_tokens:
                flush()
                filled = 0
    if filled or not names:
        flush()
    return names


class TokenSource(ABC):
    """A sequence of ids, of which a part can be read."""

    @abstractmethod
    def read(self, start: int, stop: int) -> np.ndarray:
        """The ids `start` to `stop`."""

    def blocks(self, start: int, stop: int, size: int = 1 << 22) -> Iterator[np.ndarray]:
        """The ids `start` to `stop`, in order, in arrays of at most `size`."""
        for at in range(start, stop, size):
            yield self.read(at, min(at + size, stop))


class InMemoryTokens(TokenSource):
    """Ids in memory."""

    def __init__(self, ids: np.ndarray) -> None:
        self._ids = ids

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._ids[start:stop]


class Tokens(TokenSource):
    """The ids of a tokens folder as one sequence, read from memory-mapped shards: len(tokens), tokens.read(a, b)."""

    def __init__(self, folder: Path) -> None:
        """Open `folder` and verify its files against its manifest; MakegptError names what does not fit."""
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder, "tokens")
        verify_files(self.folder, self.manifest["outputs"])
        shards = (name for name in self.manifest["outputs"] if name.endswith(".npy"))
        names = sorted(shards, key=lambda name: (len(name), name))
        if not names:
            raise MakegptError(f"{self.folder} holds no token shards; make the folder again with `tokenize`")
        self.shards = [open_shard(self.folder / name) for name in names]
        self._ends = np.cumsum([len(shard) for shard in self.shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.shards[0].dtype

    def read(self, start: int, stop: int) -> np.ndarray:
        """The ids `start` to `stop` as an array of their own."""
        out = np.empty(stop - start, self.dtype)
        number = int(np.searchsorted(self._ends, start, side="right"))
        filled = 0
        while filled < len(out):
            offset = start + filled - (int(self._ends[number - 1]) if number else 0)
            part = self.shards[number][offset : offset + len(out) - filled]
            out[filled : filled + len(part)] = part
            filled += len(part)
            number += 1
        return out

    def load_tokenizer(self) -> Tokenizer:
        """The tokenizer that made these ids."""
        return load_tokenizer(self.folder)


def open_shard(path: Path) -> np.ndarray:
    """The ids of the shard `path`, memory-mapped; MakegptError where it is none.

    Of the many things that an `.npy` header may say, in Python's syntax, the one is read that is written here.
    """
    if not path.is_file():
        raise MakegptError(f"{path} is missing, or no file; make the folder again with `tokenize`")
    with open(path, "rb") as file:
        found = _HEADER.match(file.read(_LONGEST_HEADER))
    if found is None or len(found[0]) != len(_MAGIC) + 2 + int.from_bytes(found["length"], "little"):
        raise MakegptError(
            f"{path} is not a token shard, a 1-D array of uint16 or uint32; make the folder again with `tokenize`"
        )
    dtype, count, start = np.dtype(found["dtype"].decode("ascii")), int(found["count"]), len(found[0])
    if path.stat().st_size != start + count * dtype.itemsize:
        raise MakegptError(f"{path} is damaged: it does not hold the {count} ids that it claims; make the folder again")
    try:
        return np.asarray(np.memmap(path, dtype, "r", start, (count,)))
    except OSError as error:  # a file system that maps no files
        raise OSError(error.errno, error.strerror, str(path)) from None


_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    re.escape(_MAGIC)
    + rb"(?P<length>..)\{'descr': '(?P<dtype><u[24])', 'fortran_order': False, 'shape': \((?P<count>\d{1,18}),\), \} *\n",
    re.DOTALL,
)
_LONGEST_HEADER = 1 << 10  # numpy writes 128 bytes
