"""Bytes as tokens: the 256 values of a byte. No training, any text, nothing unknown."""

from pathlib import Path
from typing import Any, Iterable, Iterator, Self

import numpy as np

from lib.tokenizer.base import Tokenizer


class BytesTokenizer(Tokenizer):
    kind = "bytes"
    vocab_size = 256

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))

    def encode_stream(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        for piece in pieces:
            yield np.frombuffer(piece.encode("utf-8"), dtype=np.uint8)

    def token_bytes(self, id: int) -> bytes:
        return bytes([id])

    def to_saved(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_saved(cls, saved: dict[str, Any]) -> Self:
        return cls()

    @classmethod
    def train(cls, documents: Iterable[Iterable[str]], data: Path, vocab_size: int | None = None) -> Self:
        return cls()
