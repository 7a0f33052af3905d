"""Words and punctuation marks as tokens, in sorted order, with `<|endoftext|>` and `<unk>`.

The split is the textbook's (Raschka, Build a Large Language Model, 2024, section 2.2). It is lossy: whitespace is not kept,
and a word that is not in the training text becomes `<unk>`.
"""

import re
from pathlib import Path
from typing import Any, Iterable, Iterator, Self, Sequence

import numpy as np

from lib.tokenizer.base import ENDOFTEXT, Tokenizer
from lib.tokenizer.splitting import cut_at_blanks

UNKNOWN = "<unk>"

_SPLIT = re.compile(r"""([,.:;?_!"()']|--|\s)""")
_NO_SPACE_BEFORE = re.compile(r"""\s+([,.:;?!"()'])""")


def split_words(text: str) -> list[str]:
    """The words and marks of `text`, without whitespace."""
    return [word for part in _SPLIT.split(text) if (word := part.strip())]


class WordTokenizer(Tokenizer):
    kind = "word"
    lossless = False

    def __init__(self, words: list[str]) -> None:
        """ValueError if they are not distinct, not valid Unicode, or lack one of the two special tokens."""
        if len(set(words)) != len(words):
            raise ValueError("words must be distinct")
        "".join(words).encode("utf-8")
        self.words = words
        self.endoftext: int = words.index(ENDOFTEXT)
        self.unknown: int = words.index(UNKNOWN)
        self._ids = {word: id for id, word in enumerate(words) if id not in self.special_ids()}

    @property
    def vocab_size(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        return [self._ids.get(word, self.unknown) for word in split_words(text)]

    def encode_stream(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        for text in cut_at_blanks(pieces):
            yield np.array(self.encode(text), dtype=np.uint32)

    def token_bytes(self, id: int) -> bytes:
        return self.words[id].encode("utf-8")

    def bytes_after(self, previous: int | None, id: int) -> bytes:
        if previous is None:
            return super().bytes_after(None, id)
        return self.decode_bytes([previous, id]).removeprefix(self.token_bytes(previous))

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        spaced = b" ".join(self.token_bytes(self.check_id(id)) for id in ids).decode("utf-8")
        return _NO_SPACE_BEFORE.sub(r"\1", spaced).encode("utf-8")

    def byte_lengths(self) -> np.ndarray:
        spaces = np.array([not _NO_SPACE_BEFORE.match(f" {word}") for word in self.words], dtype=np.int64)
        spaces[list(self.special_ids())] = 0
        return super().byte_lengths() + spaces

    def special_ids(self) -> Sequence[int]:
        return [self.endoftext, self.unknown]

    def to_saved(self) -> dict[str, Any]:
        return {"words": self.words}

    @classmethod
    def from_saved(cls, saved: dict[str, Any]) -> Self:
        return cls(list(saved["words"]))

    @classmethod
    def train(cls, documents: Iterable[Iterable[str]], data: Path, vocab_size: int | None = None) -> Self:
        words: set[str] = set()
        for document in documents:
            for text in cut_at_blanks(document):
                words.update(split_words(text))
        return cls([*sorted(words - {ENDOFTEXT, UNKNOWN}), ENDOFTEXT, UNKNOWN])
