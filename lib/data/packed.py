"""Windows of packed texts: whole conversations side by side, and which tokens of them are learned.

The texts of a tokens folder that has marks are split in their order: the first are for training, then come those for
validation and test. The training texts are packed (`lib.data.packing`) into windows of T + 1 ids:

    spans.npy   the first token and the number of tokens of each packed text, window by window
    ends.npy    how many texts are in the windows up to each one

A text longer than a window is cut at its end.

B windows, T context length
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lib.data.packing import pack
from lib.data.shards import BEGINS, Tokens, open_shard, write_shards
from lib.errors import MakegptError, UsageError

_MOST_TOKENS = 2**32 - 1  # of uint32

SPANS_FILE, ENDS_FILE = "spans-00000.npy", "ends-00000.npy"


class PackedWindows(NamedTuple):
    """Windows: `ids`, `texts`, the number of each token's text, -1 where there is none, and `trained`; (B, T + 1) each."""

    ids: np.ndarray
    texts: np.ndarray
    trained: np.ndarray


@dataclass(frozen=True)
class Packed:
    """How training texts were packed: `spans`, (n, 2), and `ends`, (windows,), as in the files; `cut` texts were too long."""

    spans: np.ndarray
    ends: np.ndarray
    cut: int = 0

    @property
    def used(self) -> int:
        """Tokens in all windows."""
        return int(self.spans[:, 1].sum())

    def metadata(self) -> dict[str, int]:
        """What a manifest says of it."""
        return {"packed_texts": len(self.spans), "packed_tokens": self.used, "cut_texts": self.cut}

    def write(self, folder: Path) -> list[str]:
        """Write both files into `folder`; return their names."""
        names = []
        for name, numbers in (("spans", self.spans.ravel()), ("ends", self.ends)):
            names += write_shards(folder, [numbers.astype(np.uint32)], np.dtype(np.uint32), max(1, len(numbers)), name)
        return names

    @classmethod
    def read(cls, folder: Path) -> "Packed":
        """The packing written in `folder`."""
        return cls(open_shard(folder / SPANS_FILE).reshape(-1, 2), open_shard(folder / ENDS_FILE))

    def windows(self, tokens: Tokens, numbers: list[int], length: int) -> PackedWindows:
        """The windows with these `numbers`, `length` tokens each."""
        shape = (len(numbers), length)
        ids, texts, trained = np.zeros(shape, np.int64), np.full(shape, -1), np.zeros(shape, bool)
        for row, number in enumerate(numbers):
            at = 0
            first = int(self.ends[number - 1]) if number else 0
            for text, (start, size) in enumerate(self.spans[first : int(self.ends[number])].astype(int)):
                ids[row, at : at + size] = tokens.read(start, start + size)
                texts[row, at : at + size] = text
                trained[row, at : at + size] = tokens.trained(start, start + size)
                at += size
        return PackedWindows(ids, texts, trained)

    def trained(self, tokens: Tokens, numbers: list[int]) -> int:
        """How many tokens of the windows with these `numbers` are learned."""
        ends = [(int(self.ends[number - 1]) if number else 0, int(self.ends[number])) for number in numbers]
        spans = np.concatenate([self.spans[first:end] for first, end in ends]).astype(int)
        return sum(int(tokens.trained(start, start + size).sum()) for start, size in spans)


def text_starts(tokens: Tokens) -> np.ndarray:
    """Where each text of `tokens`, which have marks, begins, and where the last one ends: (texts + 1,)."""
    assert tokens.marks is not None
    starts, at = [], 0
    for block in tokens.marks.blocks(0, len(tokens.marks)):
        starts.append(at + np.flatnonzero(block & BEGINS))
        at += len(block)
    return np.concatenate([*starts, [at]]).astype(np.int64)


def check_lengths(tokens: Tokens, longest: int) -> None:
    """MakegptError with the number of the first conversation that has more than `longest` tokens."""
    if tokens.marks is None:
        raise UsageError("--strict is for conversations and labeled texts; running text is cut into windows")
    sizes = np.diff(text_starts(tokens))
    if len(too_long := np.flatnonzero(sizes > longest)):
        raise MakegptError(
            f"conversation {too_long[0] + 1:,} of {tokens.folder} has {sizes[too_long[0]]:,} tokens, and a window {longest:,}; "
            "shorten it, use a longer --context-length, or leave --strict, and its end is cut"
        )


def pack_texts(tokens: Tokens, starts: np.ndarray, length: int) -> Packed:
    """Pack the texts between `starts`, (n + 1,), into windows of `length` tokens; a text is cut if it is longer.

    A text of which nothing that is learned is left after the cut is left out. MakegptError if there are more tokens than the
    files can count.
    """
    assert tokens.marks is not None
    if starts[-1] > _MOST_TOKENS:
        raise MakegptError(f"{tokens.folder} has {starts[-1]:,} tokens for training; at most {_MOST_TOKENS:,} can be packed")
    sizes = np.minimum(np.diff(starts), length)
    cut = int((np.diff(starts) > length).sum())
    kept = [
        number
        for number, (start, size) in enumerate(zip(starts[:-1], sizes, strict=True))
        if tokens.trained(int(start), int(start + size)).any()
    ]
    windows = pack([int(sizes[number]) for number in kept], length)
    order = [kept[number] for window in windows for number in window]
    spans = np.stack([starts[order], sizes[order]], axis=1) if order else np.empty((0, 2), np.int64)
    return Packed(spans, np.cumsum([len(window) for window in windows], dtype=np.int64), cut)
