"""How the texts of a dataset are split for training, validation and test, one by one: which are used, in which split.

texts-00000.npy   the number of each text that is used: those for training first, then those for validation and for test
"""

from dataclasses import dataclass

from lib.artifact.record import Count, Positive

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
