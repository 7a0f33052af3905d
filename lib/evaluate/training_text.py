"""What the text that a model was trained on says of another text: its counts, and the passages of it that stand there."""

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Iterator, Sequence

import numpy as np

from lib.artifact.manifest import read_manifest
from lib.data.dataset import Dataset
from lib.data.shards import InMemoryTokens
from lib.errors import MakegptError
from lib.evaluate.baselines import count_training
from lib.evaluate.memorization import CopyIndex
from lib.evaluate.span import decoded_pieces, own_dataset
from lib.ngrams.counts import NGRAM_NAMES, ngram_label
from lib.ngrams.kneser_ney import KneserNey
from lib.run.folder import is_imported
from lib.tokenizer.base import Tokenizer

#: A passage is at least so long; about 8 tokens of GPT-2, the middle one of the lengths in `memorization`.
PASSAGE_BYTES = 32

#: Of a longer training text the last so many tokens are counted, a tenth of what `evaluate` counts: somebody waits for it.
MAX_COUNTED_TOKENS = 5_000_000

_SAMPLE = 1 << 16  # tokens of the training text whose mean length is measured


class MissingText(MakegptError):
    """A model's training text is not at hand; the message says why, without a path."""


@dataclass(frozen=True)
class Passage:
    """The tokens `start` to `stop` of a text, which stand in the training text too: from its token `place` on.

    `before` and `after`: what stands around them there.
    """

    start: int
    stop: int
    place: int
    before: str
    text: str
    after: str


class TrainingText:
    """The training split of the run in `folder`. It is opened and counted once, when it is first asked for, by any thread."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, order: int) -> None:
        """`order`: that of the n-grams."""
        self._folder, self._tokenizer, self._order = folder, tokenizer, order
        self._lock = threading.Lock()

    @property
    def counts_name(self) -> str:
        """The name of the n-grams, such as "4-gram (counts)"; it says so if they are those of a part of the training text."""
        name = ngram_label(NGRAM_NAMES[self._order])
        return name if self._dataset.train_tokens <= MAX_COUNTED_TOKENS else f"{name}, last {MAX_COUNTED_TOKENS:,} tokens"

    def nats(self, ids: Sequence[int]) -> list[float]:
        """The loss of each of `ids` but the first by counts of the training split.

        It is that of the baseline in `evaluate`, unless the split has more than `MAX_COUNTED_TOKENS`.
        """
        with self._reading():
            blocks = self._counts.nats(InMemoryTokens(np.array(list(ids), dtype=np.int64)), 1, len(ids))
            return [nats for block in blocks for nats in block[NGRAM_NAMES[self._order]].tolist()]

    def passages(self, ids: Sequence[int]) -> list[Passage]:
        """The longest passages of `ids` that stand in the training split, of at least `PASSAGE_BYTES` or so, in order.

        None overlaps another.
        """
        with self._reading():
            start, stop = self._dataset.split("train")
            copies = CopyIndex(self._dataset.tokens, start, stop).passages(
                np.array(list(ids), dtype=np.int64), self._passage_tokens
            )
            around = 2 * self._passage_tokens
            return [
                Passage(
                    copy.start,
                    copy.stop,
                    copy.place,
                    self._text(max(start, copy.place - around), copy.place),
                    self._text(copy.place, end := copy.place + copy.stop - copy.start),
                    self._text(end, min(end + around, stop)),
                )
                for copy in copies
            ]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """One thread at a time; a file that is damaged or gone is a missing text."""
        try:
            with self._lock:
                yield
        except MissingText:
            raise
        except (MakegptError, OSError, ValueError) as error:
            raise MissingText("the dataset that the model was trained on cannot be read any more") from error

    @cached_property
    def _dataset(self) -> Dataset:
        if is_imported(read_manifest(self._folder, "run")):
            raise MissingText("the model was imported, without the text that it was trained on")
        dataset = own_dataset(self._folder)
        if dataset is None:
            raise MissingText("the dataset that the model was trained on is missing, or has changed")
        if dataset.has_pairs:
            raise MissingText("the model was trained on pairs of answers, which are no running text")
        return dataset

    @cached_property
    def _counts(self) -> KneserNey:
        return KneserNey(count_training(self._dataset, self._order, self._tokenizer.vocab_size, MAX_COUNTED_TOKENS))

    @cached_property
    def _passage_tokens(self) -> int:
        start, stop = self._dataset.split("train")
        lengths = self._tokenizer.byte_lengths()[self._dataset.tokens.read(start, min(start + _SAMPLE, stop))]
        return max(2, round(PASSAGE_BYTES / max(1.0, float(lengths.mean()))))

    def _text(self, start: int, stop: int) -> str:
        content = b"".join(decoded_pieces(self._dataset.tokens, start, stop, self._tokenizer))
        return content.decode("utf-8", "replace").strip("\ufffd")  # it may begin and end inside a character
