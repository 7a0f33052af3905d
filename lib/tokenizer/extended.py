"""Special tokens for a vocabulary that lacks them, such as the tags of a chat template.

They get the ids after the vocabulary's own, so that a model with weights for those needs only a few new rows. No text is
encoded to them.
"""

from itertools import groupby
from pathlib import Path
from typing import Any, Iterable, Iterator, Self, Sequence

import numpy as np

from lib.errors import UsageError
from lib.tokenizer.base import ENDOFTEXT, Tokenizer
from lib.tokenizer.byte_level import ByteLevelBPE
from lib.tokenizer.patterns import LLAMA_CPP_NAMES, PATTERNS
from lib.tokenizer.pretrained import PretrainedTokenizer


class ExtendedTokenizer(Tokenizer):
    """A tokenizer of any kind, `base`, and special tokens after its own."""

    kind = "extended"

    def __init__(self, base: Tokenizer, names: Sequence[str]) -> None:
        """`names` of the special tokens; ValueError if they are not distinct and new, or `base` is extended already."""
        if isinstance(base, ExtendedTokenizer) or len({*names, *special_names(base)}) < len(names) + len(special_names(base)):
            raise ValueError("special tokens must be distinct")
        self.base, self.names = base, list(names)
        self.lossless, self.unknown = base.lossless, base.unknown
        self.endoftext = base.vocab_size + names.index(ENDOFTEXT) if ENDOFTEXT in names else base.endoftext

    @property
    def vocab_size(self) -> int:
        return self.base.vocab_size + len(self.names)

    def encode(self, text: str) -> list[int]:
        return self.base.encode(text)

    def encode_stream(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        return self.base.encode_stream(pieces)

    def token_bytes(self, id: int) -> bytes:
        return self.names[id - self.base.vocab_size].encode("utf-8") if self._is_new(id) else self.base.token_bytes(id)

    def bytes_after(self, previous: int | None, id: int) -> bytes:
        if self._is_new(self.check_id(id)):
            return self.token_bytes(id)
        return self.base.bytes_after(None if previous is None or self._is_new(previous) else previous, id)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        runs = groupby(map(self.check_id, ids), self._is_new)
        return b"".join(b"".join(map(self.token_bytes, run)) if is_new else self.base.decode_bytes(run) for is_new, run in runs)

    def byte_lengths(self) -> np.ndarray:
        return np.concatenate([self.base.byte_lengths(), np.zeros(len(self.names), np.int64)])

    def special_ids(self) -> Sequence[int]:
        return [*self.base.special_ids(), *range(self.base.vocab_size, self.vocab_size)]

    def to_saved(self) -> dict[str, Any]:
        return {"base": self.base.saved(), "names": self.names}

    @classmethod
    def from_saved(cls, saved: dict[str, Any]) -> Self:
        """As in `Tokenizer`, but `base` is the tokenizer itself, which the registry loads."""
        return cls(saved["base"], list(map(str, saved["names"])))

    @classmethod
    def train(cls, documents: Iterable[Iterable[str]], data: Path, vocab_size: int | None = None) -> Self:
        raise UsageError(
            "an extended tokenizer comes of another one; make it with `tokenize --chat FILE --tokenizer KIND -o DIR`"
        )

    def _is_new(self, id: int) -> bool:
        return id >= self.base.vocab_size


def special_names(tokenizer: Tokenizer) -> list[str]:
    """The names of the special tokens that a tokenizer has."""
    return [tokenizer.token_bytes(id).decode("utf-8", "replace") for id in tokenizer.special_ids()]


def with_special_tokens(tokenizer: Tokenizer, names: Iterable[str]) -> Tokenizer:
    """`tokenizer` with a special token for each of `names` that it lacks; itself if it lacks none.

    A byte-level BPE becomes one of kind `pretrained`, which other programs know too, with the same ids.
    """
    has = special_names(tokenizer)
    new = [name for name in names if name not in has]
    if not new:
        return tokenizer
    match tokenizer:
        case ExtendedTokenizer():
            return ExtendedTokenizer(tokenizer.base, [*tokenizer.names, *new])
        case ByteLevelBPE():
            pattern = next((name for name, own in LLAMA_CPP_NAMES.items() if own == tokenizer.pattern), None)
            tokens, last = [*tokenizer.tokens, ENDOFTEXT.encode()], len(tokenizer.tokens)
            plain = PretrainedTokenizer(pattern or [PATTERNS[tokenizer.pattern]], tokens, [last], last)
            return with_special_tokens(plain, new)
        case PretrainedTokenizer():
            size = tokenizer.vocab_size
            end = size + new.index(ENDOFTEXT) if ENDOFTEXT in new else tokenizer.endoftext
            tokens = [*tokenizer.tokens, *(name.encode("utf-8") for name in new)]
            special = [*tokenizer.special, *range(size, size + len(new))]
            return PretrainedTokenizer(tokenizer.pattern, tokens, special, end, added=tokenizer.added, nfc=tokenizer.nfc)
    return ExtendedTokenizer(tokenizer, new)


def is_extension(tokenizer: Tokenizer, base: Tokenizer) -> bool:
    """Whether `tokenizer` is `base` with special tokens after its own."""
    ids = range(base.vocab_size, tokenizer.vocab_size)
    names = [tokenizer.token_bytes(id).decode("utf-8", "replace") for id in ids]
    special = set(tokenizer.special_ids())
    return special.issuperset(ids) and with_special_tokens(base, names).identity() == tokenizer.identity()
