"""Texts to their classes, as they are read."""

from collections import deque
from dataclasses import dataclass
from typing import Any, BinaryIO, Iterable, Iterator

import numpy as np
import torch

from lib.data.text import read_line
from lib.errors import MakegptError
from lib.evaluate.classification import predict_logits, softmax
from lib.run.folder import TrainedModel
from lib.tokenizer.base import UnknownText


@dataclass(frozen=True)
class Answer:
    """The most probable class of a text, and the probabilities of all; `cut`: whether the text was too long."""

    text: str
    label: str
    probabilities: dict[str, float]
    cut: bool

    @property
    def probability(self) -> float:
        return self.probabilities[self.label]

    def to_json(self) -> dict[str, Any]:
        """The answer as a line of JSON Lines has it."""
        return {
            "text": self.text,
            "label": self.label,
            "probability": self.probability,
            "probabilities": self.probabilities,
        }


def read_lines(file: BinaryIO, name: str) -> Iterator[tuple[str, str]]:
    """The place, for messages, and the text of each line."""
    for number, line in enumerate(file, 1):
        place = f"{name}, line {number}"
        yield place, read_line(line, place, first=number == 1)


def classify_texts(
    trained: TrainedModel, texts: Iterable[tuple[str, str]], device: torch.device, *, strict: bool = False
) -> Iterator[Answer]:
    """The answer to each of `texts`, (place, text), in order; a few texts are read before the first is answered.

    A text longer than the context is cut at its end, or with `strict` refused. MakegptError names the place of an empty text.
    """
    waiting: deque[tuple[str, bool]] = deque()
    length = trained.config.context_length

    def encoded() -> Iterator[np.ndarray]:
        for place, text in texts:
            if not text.strip():
                raise MakegptError(f"{place} is empty; a text is expected")
            try:
                ids = trained.tokenizer.encode(text)
            except UnknownText as error:
                raise UnknownText(f"{place}: {error}") from None
            if not ids:
                raise MakegptError(f"{place} has no tokens of the model's {trained.tokenizer.kind} tokenizer")
            if strict and len(ids) > length:
                raise MakegptError(
                    f"{place} has {len(ids)} tokens, more than the context of {length}; leave out --strict to cut it"
                )
            waiting.append((text, len(ids) > length))
            yield np.array(ids[:length], np.int64)

    for logits in predict_logits(trained, encoded(), device):
        for row in softmax(logits):
            text, cut = waiting.popleft()
            probabilities = dict(zip(trained.classes, map(float, row), strict=True))
            yield Answer(text, trained.classes[int(row.argmax())], probabilities, cut)
