"""Token shards: the ids of a corpus as 1-D `.npy` files, written as a stream and read memory-mapped.

`uint16` if the vocabulary fits, else `uint32`; each shard but the last holds `shard_tokens` ids. At most one shard is in
memory, so a corpus may have any size.
"""

import re
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, Iterable, Iterator

import numpy as np

from lib.artifact.manifest import read_manifest, verify_files
from lib.errors import MakegptError
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.registry import load_tokenizer

#: What a mark says of its token: a model learns to write it; a text begins with it; that text is the rejected one of a pair,
#: and the chosen one is before it.
TRAINED, BEGINS, REJECTED = 1, 2, 4


def dtype_for(vocab_size: int) -> np.dtype[Any]:
    """The smallest of uint16 and uint32 that holds every id."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def write_shards(
    folder: Path, ids: Iterable[np.ndarray], dtype: np.dtype[Any], shard_tokens: int, name: str = "shard"
) -> list[str]:
    """Write the stream `ids` into `folder` as shard-00000.npy and so on, or by another `name`; return their names."""
    names: list[str] = []
    shard = np.empty(shard_tokens, dtype)
    filled = 0

    def flush() -> None:
        names.append(f"{name}-{len(names):05d}.npy")
        with open(folder / names[-1], "wb") as file:  # numpy.save does not say why a write failed
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(shard[:filled]))
            file.write(shard[:filled].data)

    for array in ids:
        while len(array):
            part = array[: shard_tokens - filled]
            shard[filled : filled + len(part)] = part
            filled += len(part)
            array = array[len(part) :]
            if filled == shard_tokens:
                flush()
                filled = 0
    if filled or not names:
        flush()
    return names


class TokenSource(ABC):
    """A sequence of ids, read in parts."""

    @abstractmethod
    def read(self, start: int, stop: int) -> np.ndarray:
        """The ids `start` to `stop`."""

    def blocks(self, start: int, stop: int, size: int = 1 << 22) -> Iterator[np.ndarray]:
        """The ids `start` to `stop`, in order, in arrays of at most `size`."""
        for begin in range(start, stop, size):
            yield self.read(begin, min(begin + size, stop))


class InMemoryTokens(TokenSource):
    """Ids in memory."""

    def __init__(self, ids: np.ndarray) -> None:
        self._ids = ids

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._ids[start:stop]


class Sharded(TokenSource):
    """Numbers in memory-mapped shards as one sequence."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.shards = [open_shard(path) for path in sorted(paths, key=lambda path: (len(path.name), path.name))]
        self._ends = np.cumsum([len(shard) for shard in self.shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.shards[0].dtype

    def read(self, start: int, stop: int) -> np.ndarray:
        """The ids `start` to `stop`, copied."""
        ids = np.empty(stop - start, self.dtype)
        shard = int(np.searchsorted(self._ends, start, side="right"))
        filled = 0
        while filled < len(ids):
            offset = start + filled - (int(self._ends[shard - 1]) if shard else 0)
            part = self.shards[shard][offset : offset + len(ids) - filled]
            ids[filled : filled + len(part)] = part
            filled += len(part)
            shard += 1
        return ids


class Tokens(Sharded):
    """The ids of a tokens folder as one sequence, read from memory-mapped shards: len(tokens), tokens.read(a, b).

    `marks`: for tokens of conversations and of labeled texts, what each is (TRAINED, BEGINS), in a sequence of the same length;
    else None. `labels`: for labeled texts, the number of each text's class in `classes`; else None.
    """

    def __init__(self, folder: Path) -> None:
        """Open `folder` and verify its files against its manifest."""
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder, "tokens")
        verify_files(self.folder, self.manifest.outputs)
        names = [name for name in self.manifest.outputs if name.startswith("shard-")]
        if not names:
            raise MakegptError(f"{self.folder} holds no token shards; make the folder again with `tokenize`")
        super().__init__(self.folder / name for name in names)
        marks = [self.folder / name for name in self.manifest.outputs if name.startswith("marks-")]
        self.marks = Sharded(marks) if marks else None
        if self.marks and len(self.marks) != len(self):
            raise MakegptError(f"{self.folder} is damaged: {len(self.marks)} marks of {len(self)} tokens; tokenize again")
        labels = [self.folder / name for name in self.manifest.outputs if name.startswith("labels-")]
        self.labels = Sharded(labels) if labels else None

    @property
    def is_parallel(self) -> bool:
        """Whether these are parallel texts: the source and the target of each pair (`lib.data.parallel`)."""
        return "parallel_texts" in self.manifest.metadata

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes of labeled texts."""
        return tuple(self.manifest.metadata.get("classes") or ())

    def trained(self, start: int, stop: int) -> np.ndarray:
        """Whether a model learns to write each of the ids `start` to `stop`: (stop - start,) bool; of running text, all."""
        return np.ones(stop - start, bool) if self.marks is None else (self.marks.read(start, stop) & TRAINED) > 0

    @property
    def chat(self) -> dict[str, Any] | None:
        """The chat template that conversations were written with (`ChatTemplate.to_saved`); None for running text."""
        return self.manifest.parameters.get("chat")

    def load_tokenizer(self) -> Tokenizer:
        """The tokenizer that made these ids; MakegptError if its vocabulary lacks one of them."""
        tokenizer = load_tokenizer(self.folder)
        self.check_ids(tokenizer.vocab_size)
        return tokenizer

    def check_ids(self, vocab_size: int) -> None:
        """Refuse ids beyond a vocabulary of `vocab_size`, whatever the hashes in the manifest say."""
        if self._largest_id >= vocab_size:
            raise MakegptError(
                f"{self.folder} holds the id {self._largest_id}, but its tokenizer has {vocab_size} tokens; tokenize again"
            )

    @cached_property
    def _largest_id(self) -> int:
        return max((int(shard.max()) for shard in self.shards if len(shard)), default=0)


def open_shard(path: Path) -> np.ndarray:
    """The ids of the shard `path`, memory-mapped.

    An `.npy` header is a Python literal; only the one form that `write_shards` writes is accepted.
    """
    if not path.is_file():
        raise MakegptError(f"{path} is missing or not a file; make the folder again with `tokenize`")
    with open(path, "rb") as file:
        header = _HEADER.match(file.read(_LONGEST_HEADER))
    if header is None or len(header[0]) != len(_MAGIC) + 2 + int.from_bytes(header["length"], "little"):
        raise MakegptError(
            f"{path} is not a token shard, a 1-D array of uint8, uint16 or uint32; make the folder again with `tokenize`"
        )
    dtype, count, start = np.dtype(header["dtype"].decode("ascii")), int(header["count"]), len(header[0])
    if path.stat().st_size != start + count * dtype.itemsize:
        raise MakegptError(f"{path} is damaged: it does not hold the {count} ids of its header; make the folder again")
    try:
        return np.asarray(np.memmap(path, dtype, "r", start, (count,)))
    except OSError as error:  # a file system without mmap
        raise OSError(error.errno, error.strerror, str(path)) from None


_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    re.escape(_MAGIC)
    + rb"(?P<length>..)\{'descr': '(?P<dtype>\|u1|<u[24])', 'fortran_order': False, 'shape': \((?P<count>\d{1,18}),\), \} *\n",
    re.DOTALL,
)
_LONGEST_HEADER = 1 << 10  # numpy writes 128 bytes
