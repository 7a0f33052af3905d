"""Characters as tokens: each distinct character of the training text is a token, in code-point order."""

from pathlib import Path
from typing import Any, Iterable, Iterator, Self

import numpy as np

from lib.tokenizer.base import Tokenizer, UnknownText


class CharTokenizer(Tokenizer):
    kind = "char"

    def __init__(self, characters: str) -> None:
        """ValueError if there are none, they are not distinct, or one is not valid Unicode."""
        if len(set(characters)) != len(characters) or not characters:
            raise ValueError("characters must be distinct, and at least one")
        "".join(characters).encode("utf-8")
        self.characters = characters
        self._ids = {character: id for id, character in enumerate(characters)}

    @property
    def vocab_size(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> list[int]:
        return self._encode(text, 0)

    def encode_stream(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        offset = 0
        for piece in pieces:
            yield np.array(self._encode(piece, offset), dtype=np.uint32)
            offset += len(piece)

    def _encode(self, text: str, offset: int) -> list[int]:
        """The ids of `text`, which begins at character `offset` of the whole text."""
        try:
            return [self._ids[character] for character in text]
        except KeyError:
            position, unknown = next((i, c) for i, c in enumerate(text) if c not in self._ids)
            raise UnknownText(
                f"the character {unknown!r} (U+{ord(unknown):04X}) at position {offset + position} is not among the "
                f"{self.vocab_size} of this tokenizer; leave it out, or train with --tokenizer bytes or gpt2"
            ) from None

    def token_bytes(self, id: int) -> bytes:
        return self.characters[id].encode("utf-8")

    def to_saved(self) -> dict[str, Any]:
        return {"characters": self.characters}

    @classmethod
    def from_saved(cls, saved: dict[str, Any]) -> Self:
        if not isinstance(saved["characters"], str):
            raise TypeError("characters must be a string")
        return cls(saved["characters"])

    @classmethod
    def train(cls, documents: Iterable[Iterable[str]], data: Path, vocab_size: int | None = None) -> Self:
        characters: set[str] = set()
        for document in documents:
            for piece in document:
                characters.update(piece)
        return cls("".join(sorted(characters)))
