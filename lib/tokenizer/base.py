"""What every tokenizer can do."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Iterable, Iterator, Self, Sequence

import numpy as np

from lib.artifact.io import canonical_json, json_digest, write_text
from lib.errors import MakegptError

#: The token between two documents, by GPT-2's name; not every tokenizer has it.
ENDOFTEXT = "<|endoftext|>"


class UnknownText(MakegptError):
    """A character that a tokenizer has no token for."""


class Tokenizer(ABC):
    """Text to ids and back. Ids are 0 to `vocab_size` - 1.

    `lossless`: decode(encode(text)) == text for any text that can be encoded.
    `endoftext`: the id of the token between documents, or None.
    `unknown`: the id of any word outside of the vocabulary, or None.
    """

    kind: ClassVar[str]
    lossless: bool = True
    endoftext: int | None = None
    unknown: int | None = None

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Distinct tokens, V."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of `text`; special tokens in it are encoded as ordinary text."""

    @abstractmethod
    def token_bytes(self, id: int) -> bytes:
        """The UTF-8 bytes of token `id`, not always whole characters; for a special token, its name."""

    def bytes_after(self, previous: int | None, id: int) -> bytes:
        """The bytes that `id` adds to a text whose last token is `previous`, None at the start."""
        return self.token_bytes(self.check_id(id))

    @abstractmethod
    def to_saved(self) -> dict[str, Any]:
        """The vocabulary as plain data, for `from_saved`."""

    @classmethod
    @abstractmethod
    def from_saved(cls, saved: dict[str, Any]) -> Self:
        """The tokenizer of the data from `to_saved`."""

    @classmethod
    @abstractmethod
    def train(cls, documents: Iterable[Iterable[str]], data: Path, vocab_size: int | None = None) -> Self:
        """A tokenizer trained on `documents`, each in pieces, or read from the fetched files in `data`, as its kind needs.

        `vocab_size`: of `bpe` and `unigram`.
        """

    def encode_stream(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        """The ids of one text that comes in pieces, as arrays; together they equal `encode` of the whole text."""
        for piece in pieces:
            yield np.array(self.encode(piece), dtype=np.uint32)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`, which may end inside a character."""
        return b"".join(self.token_bytes(self.check_id(id)) for id in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that are not a whole character become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def byte_lengths(self) -> np.ndarray:
        """Bytes that each id adds after another token, (V,) int64; a special token adds none."""
        lengths = np.array([len(self.token_bytes(id)) for id in range(self.vocab_size)], dtype=np.int64)
        lengths[list(self.special_ids())] = 0
        return lengths

    def special_ids(self) -> Sequence[int]:
        """The ids that stand for no text."""
        return [] if self.endoftext is None else [self.endoftext]

    def check_id(self, id: int) -> int:
        """`id` itself; MakegptError if it is not in the vocabulary."""
        if not 0 <= id < self.vocab_size:
            raise MakegptError(f"id {id} is not in this {self.kind} vocabulary; ids are 0 to {self.vocab_size - 1}")
        return id

    def default_prompt(self) -> list[int]:
        """The prompt if none is given: a line break, or the vocabulary's first token if that is unknown."""
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
        """A hash of the vocabulary: tokenizers with the same identity give the same ids."""
        return json_digest(self.saved())
