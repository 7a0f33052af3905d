"""A byte-level BPE that comes with pretrained weights: its tokens, its special tokens, and its pattern by name.

As in GPT-2's (`lib.tokenizer.gpt2`), a pattern cuts the text, and within each piece the pair of lowest rank is merged first;
here the rank of a token is its id. tiktoken does the merging. Such a vocabulary may lack some single bytes that its training
text did not have: a text with one of them is refused.
"""

import base64
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any, Iterable, Mapping, Self, Sequence

import tiktoken

from lib.errors import MakegptError, UsageError, nearest
from lib.tokenizer.base import Tokenizer, UnknownText
from lib.tokenizer.byte_alphabet import BYTE_OF
from lib.tokenizer.byte_level import LONG_BLANKS
from lib.tokenizer.byte_level import PATTERNS as SPLITS

#: The patterns by the names that llama.cpp gives them (src/llama-vocab.cpp).
#:
#: smollm: every digit is a piece, and GPT-2's pattern cuts what is between them, so blanks before a digit stay together.
PATTERNS = {
    "gpt-2": SPLITS["gpt2"],
    "smollm": r"\p{N}|'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+",
}
_BLANKS_BEFORE_DIGITS = {"smollm"}  # one piece, with the last of them


class PretrainedTokenizer(Tokenizer):
    kind = "pretrained"

    def __init__(self, pattern: str, tokens: Sequence[bytes], special: Iterable[int], endoftext: int | None) -> None:
        """`pattern`: one of `PATTERNS`; `tokens`: the bytes of each id, for an id in `special` those of its name.

        `endoftext`: the special token that ends a text. MakegptError if the pattern is unknown, ValueError if tokens are
        empty or not distinct, or if a special id or `endoftext` is none.
        """
        if pattern not in PATTERNS:
            raise MakegptError(f"the pre-tokenizer {pattern!r} is not supported; {nearest(pattern, PATTERNS)}")
        self.pattern, self.tokens, self.special = pattern, list(tokens), sorted(set(special))
        self.endoftext = endoftext
        specials = set(self.special)
        ranks = {token: id for id, token in enumerate(self.tokens) if id not in specials}
        if not specials <= set(range(len(self.tokens))) or (endoftext is not None and endoftext not in specials):
            raise ValueError("special tokens must be tokens")
        if len(ranks) + len(specials) != len(self.tokens) or b"" in ranks:
            raise ValueError("tokens must be distinct and not empty")
        self._missing = [bytes([byte]) for byte in range(256) if bytes([byte]) not in ranks]
        self._encoding = tiktoken.Encoding(self.kind, pat_str=PATTERNS[pattern], mergeable_ranks=ranks, special_tokens={})

    @property
    def vocab_size(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """The ids of `text`; UnknownText if one of its bytes has no token."""
        content = text.encode("utf-8")
        for byte in self._missing:
            if byte in content:
                character = next(character for character in text if byte in character.encode("utf-8"))
                raise UnknownText(
                    f"the vocabulary has no token for the byte 0x{byte[0]:02x} of {character!r} (U+{ord(character):04X}); "
                    "remove this character from the text"
                )
        ids: list[int] = []
        start = 0
        for run in LONG_BLANKS.finditer(text):  # on which tiktoken's regex engine fails, as in `ByteLevelBPE.encode`
            whole = run.end() == len(text) or (
                self.pattern in _BLANKS_BEFORE_DIGITS and unicodedata.category(text[run.end()]).startswith("N")
            )
            end = run.end() if whole else run.end() - 1
            ids += self._encoding.encode_ordinary(text[start : run.start()])
            ids += self._encoding._encode_single_piece(text[run.start() : end])
            start = end
        return ids + self._encoding.encode_ordinary(text[start:])

    def token_bytes(self, id: int) -> bytes:
        return self.tokens[id]

    def special_ids(self) -> Sequence[int]:
        return self.special

    def to_saved(self) -> dict[str, Any]:
        tokens = [base64.b64encode(token).decode("ascii") for token in self.tokens]
        return {"pattern": self.pattern, "special": self.special, "endoftext": self.endoftext, "tokens": tokens}

    @classmethod
    def from_saved(cls, saved: dict[str, Any]) -> Self:
        tokens = [base64.b64decode(token, validate=True) for token in saved["tokens"]]
        return cls(saved["pattern"], tokens, saved["special"], saved["endoftext"])

    @classmethod
    def train(cls, documents: Iterable[Iterable[str]], data: Path, vocab_size: int | None = None) -> Self:
        raise UsageError("a pretrained tokenizer comes with weights; get it with `import-weights FILE.gguf -o RUN`")


def from_merges(
    pattern: str, written: Sequence[str], merges: Sequence[str], special: Mapping[int, str], endoftext: int | None
) -> PretrainedTokenizer:
    """The tokenizer of a vocabulary in GPT-2's way of writing bytes: `written` by id, `merges` as "left right" by rank.

    ValueError, with the reason, unless each ordinary token is a single byte or the result of one merge, in the order of ids:
    then merging by ids, as here, and by the list of merges are the same.
    """
    tokens = [text.encode("utf-8") if id in special else _bytes_of(text) for id, text in enumerate(written)]
    ids = {token: id for id, token in enumerate(tokens) if id not in special}
    merged: list[int] = []
    for merge in merges:
        left, separator, right = merge.partition(" ")
        pair = (_bytes_of(left), _bytes_of(right))
        if not separator or pair[0] + pair[1] not in ids or pair[0] not in ids or pair[1] not in ids:
            raise ValueError(f"the merge {merge!r} does not make a token of two tokens")
        id = ids[pair[0] + pair[1]]
        if merged and id <= merged[-1]:
            raise ValueError(f"the merge {merge!r} is not in the order of the ids")
        if _last_merge(pair[0] + pair[1], ids) != pair:
            raise ValueError(f"the merge {merge!r} is never the last one that makes its token")
        merged.append(id)
    if loose := sorted({id for token, id in ids.items() if len(token) > 1} - set(merged)):
        raise ValueError(f"the token {written[loose[0]]!r} is not made by a merge")
    return PretrainedTokenizer(pattern, tokens, special, endoftext)


def _bytes_of(text: str) -> bytes:
    try:
        return bytes(BYTE_OF[character] for character in text)
    except KeyError:
        raise ValueError(f"the token {text!r} is not written in GPT-2's alphabet of bytes") from None


def _last_merge(token: bytes, ids: Mapping[bytes, int]) -> tuple[bytes, ...]:
    """The parts that remain when all merges of a lower id than the token's own are applied to its bytes."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        ranks = [ids.get(left + right, 1 << 62) for left, right in pairwise(parts)]
        lowest = min(ranks)
        if lowest >= ids[token]:
            break
        first = ranks.index(lowest)
        parts[first : first + 2] = [parts[first] + parts[first + 1]]
    return tuple(parts)
