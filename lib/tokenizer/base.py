"""What every tokenizer can do."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Iterable, Iterator, Self, Sequence

import numpy as np

from lib.artifact.io import canonical_json, json_digest, write_text
from lib.errors import MakegptError

#: The token between two documents, where a tokenizer has it (GPT-2's name for it).
ENDOFTEXT = "<|endoftext|>"


class UnknownText(MakegptError):
    """A character that a tokenizer has no token for."""


class Tokenizer(ABC):
    """Text to ids and back. Ids are 0 to `vocab_size` - 1.

    `lossless`: decode(encode(text)) == text for any text that can be encoded.
    `endoftext`: the id of the token between documents, or None.
    `unknown`: the id of any word that has no token of its own, or None.
    """

    kind: ClassVar[str]
    lossless: ClassVar[bool] = True
    endoftext: int | None = None
    unknown: int | None = None

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Distinct tokens, V."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of `text`; special tokens are not looked for in it."""

    @abstractmethod
    def token_bytes(self, id: int) -> bytes:
        """The UTF-8 bytes that token `id` stands for (not always whole characters); a special token's own name."""

    def bytes_after(self, previous: int | None, id: int) -> bytes:
        """The bytes that `id` adds to a text whose last token is `previous`, None where it is the first."""
        return self.token_bytes(self.check_id(id))

    @abstractmethod
    def to_saved(self) -> dict[str, Any]:
        """What `from_saved` needs, as plain data."""

    @classmethod
    @abstractmethod
    def from_saved(cls, saved: dict[str, Any]) -> Self:
        """The tokenizer that `to_saved` described."""

    @classmethod
    @abstractmethod
    def train(cls, documents: Iterable[Iterable[str]], data: Path) -> Self:
        """A tokenizer for `documents`, each in pieces, with the fetched files below `data` where the kind has some."""

    def encode_stream(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        """The ids of one text that comes in pieces, in arrays: exactly `encode` of the whole."""
        for piece in pieces:
            yield np.array(self.encode(piece), dtype=np.uint32)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`, which may end in the middle of a character."""
        return b"".join(self.token_bytes(self.check_id(id)) for id in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that are no whole character become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def byte_lengths(self) -> np.ndarray:
        """Bytes that each id adds to a text that has begun, (V,) int64; a special token adds none."""
        lengths = np.array([len(self.token_bytes(id)) for id in range(self.vocab_size)], dtype=np.int64)
        lengths[list(self.special_ids())] = 0
        return lengths

    def special_ids(self) -> Sequence[int]:
        """The ids that stand for no text."""
        return [] if self.endoftext is None else [self.endoftext]

    def check_id(self, id: int) -> int:
        """`id` itself; MakegptError where the vocabulary has no such id."""
        if not 0 <= id < self.vocab_size:
            raise MakegptError(f"id {id} is not in this {self.kind} vocabulary; ids are 0 to {self.vocab_size - 1}")
        return id

    def default_prompt(self) -> list[int]:
        """Ids to begin a text with where no prompt is given: a line break, or else the vocabulary's first token."""
        try:
            return self.encode("\n") or [0]
        except UnknownText:
            return [0]

    def saved(self) -> dict[str, Any]:
        """The content of tokenizer.json."""
        head = {"kind": self.kind, "vocab_size": self.vocab_size, "lossless": self.lossless}
        return head | self.to_saved()

    def save(self, path: Path) -> None:
        """Write tokenizer.json, self-contained."""
        write_text(path, canonical_json(self.saved()) + "\n")

    def identity(self) -> str:
        """A hash of the vocabulary: two tokenizers with the same one give the same ids."""
        return json_digest(self.saved())
