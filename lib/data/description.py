"""What a dataset folder says of itself: dataset.json."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lib.artifact.io import read_json
from lib.artifact.record import Positive, RecordError, from_json
from lib.data.labeled import LabeledSplit
from lib.data.parallel import ParallelSplit
from lib.errors import MakegptError

DATASET_FILE = "dataset.json"


@dataclass(frozen=True, kw_only=True)
class DatasetDescription:
    """The content of dataset.json, which nothing else repeats."""

    tokens: str  # identity of the tokens folder
    tokenizer: str  # identity of its tokenizer
    vocab_size: Positive
    context_length: Positive
    stride: Positive
    train_tokens: Positive
    val_tokens: Positive
    test_tokens: Positive | None = None  # None: no test split
    packed_windows: Positive | None = None  # None: windows of running text, or pairs
    pairs: Positive | None = None  # for training; None: no pairs of answers
    labeled: LabeledSplit | None = None  # of labeled texts
    parallel: ParallelSplit | None = None  # of parallel texts

    @property
    def windows(self) -> int:
        """How many training windows, or labeled or parallel texts for training, there are."""
        if by_text := self.labeled or self.parallel:
            return by_text.train
        return self.pairs or self.packed_windows or count_windows(self.train_tokens, self.context_length, self.stride)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The description in the file `path`."""
        try:
            return from_json(cls, read_json(path))
        except RecordError as error:
            raise MakegptError(f"{path} is damaged: {error}; build the dataset again") from None


def count_windows(train_tokens: int, context_length: int, stride: int) -> int:
    """How many windows of context_length + 1 tokens start every `stride` tokens."""
    return (train_tokens - context_length - 1) // stride + 1
