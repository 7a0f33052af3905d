"""How the texts of a dataset are split for training, validation and test, one by one: which are used, in which split.

texts-00000.npy   the number of each text that is used: those for training first, then those for validation and for test
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.artifact.record import Count, Positive
from lib.data.packed import text_starts
from lib.data.shards import Tokens, write_shards
from lib.errors import MakegptError

TEXTS_FILE = "texts-00000.npy"


@dataclass(frozen=True, kw_only=True)
class TextSplit:
    """In dataset.json: how many texts each split has."""

    train: Positive
    val: Positive
    test: Count

    def range(self, name: str) -> tuple[int, int]:
        """Where the split `name`, train, val or test, begins and ends in texts-00000.npy."""
        stops = {"train": self.train, "val": self.train + self.val, "test": self.train + self.val + self.test}
        return {"train": 0, "val": self.train, "test": self.train + self.val}[name], stops[name]


class SplitTexts:
    """The texts of `tokens` that a dataset has, and the split of each. `numbers`: as in the file."""

    split: TextSplit

    def __init__(self, tokens: Tokens, numbers: np.ndarray, split: TextSplit) -> None:
        self._tokens, self._numbers, self.split = tokens, numbers, split
        self._starts = text_starts(tokens)

    def _check(self, n_texts: int, kind: str, *, fits: bool) -> None:
        """MakegptError if the numbers are not those of different texts, of `n_texts`, or if what else must fit does not."""
        numbers = self._numbers
        if (
            not fits
            or len(numbers) != self.split.range("test")[1]
            or len(numbers) != len(np.unique(numbers))
            or numbers.max() >= n_texts
        ):
            folder = self._tokens.folder
            raise MakegptError(f"{folder} and the dataset of its {kind} texts do not fit; tokenize and build it again")

    def numbers(self, name: str) -> np.ndarray:
        """The numbers of the texts of a split, `train`, `val` or `test`: (n,) int64."""
        return np.asarray(self._numbers[slice(*self.split.range(name))]).astype(np.int64)

    def write(self, folder: Path) -> list[str]:
        """Write the file into `folder`; return its name."""
        numbers = self._numbers.astype(np.uint32)
        return write_shards(folder, [numbers], numbers.dtype, len(numbers), "texts")
