"""Token shards: the ids of a corpus as 1-D `.npy` files, written as a stream and read memory-mapped.

`uint16` where the vocabulary fits, else `uint32`; each shard holds `shard_tokens` ids but the last.
Nothing here keeps more than one shard in memory, so a corpus may have any size.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Iterable, Iterator

import numpy as np

from lib import artifact, tokenizer
from lib.errors import MakegptError
from lib.tokenizer import Tokenizer


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


class Readable(ABC):
    """A sequence of ids, of which a part can be read."""

    @abstractmethod
    def read(self, start: int, stop: int) -> np.ndarray:
        """The ids `start` to `stop`."""

    def blocks(self, start: int, stop: int, size: int = 1 << 22) -> Iterator[np.ndarray]:
        """The ids `start` to `stop`, in order, in arrays of at most `size`."""
        for at in range(start, stop, size):
            yield self.read(at, min(at + size, stop))


class Held(Readable):
    """Ids in memory."""

    def __init__(self, ids: np.ndarray) -> None:
        self._ids = ids

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._ids[start:stop]


class Tokens(Readable):
    """The ids of a tokens folder as one sequence, read from memory-mapped shards: len(tokens), tokens.read(a, b)."""

    def __init__(self, folder: Path) -> None:
        """Open `folder` and verify its files against its manifest; MakegptError names what does not fit."""
        self.folder = Path(folder)
        self.manifest = artifact.read_manifest(self.folder, "tokens")
        artifact.verify(self.folder, self.manifest["outputs"])
        shards = (name for name in self.manifest["outputs"] if name.endswith(".npy"))
        names = sorted(shards, key=lambda name: (len(name), name))
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
        return tokenizer.load(self.folder)


def open_shard(path: Path) -> np.ndarray:
    """The ids of the shard `path`, memory-mapped; MakegptError where it is none."""
    try:
        shard = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    except (ValueError, EOFError):
        raise MakegptError(f"{path} is not a token shard; make the folder again with `tokenize`") from None
    if shard.ndim != 1 or shard.dtype not in (np.dtype(np.uint16), np.dtype(np.uint32)):
        raise MakegptError(f"{path} holds {shard.dtype} of shape {shard.shape}; a 1-D array of uint16 or uint32 is expected")
    return np.asarray(shard)
