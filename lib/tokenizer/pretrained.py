"""A byte-level BPE that comes with pretrained weights: its tokens, its special tokens, and its pattern by name.

As in GPT-2's (`lib.tokenizer.gpt2`), a pattern cuts the text, and within each piece the pair of lowest rank is merged first;
here the rank of a token is its id. tiktoken does the merging. Such a vocabulary may lack some single bytes that its training
text did not have: a text with one of them is refused.
"""

import unicodedata
from pathlib import Path
from typing import Any, Iterable, Mapping, Self, Sequence

import tiktoken

from lib.errors import MakegptError, UsageError, nearest
from lib.tokenizer.base import UnknownText
from lib.tokenizer.byte_alphabet import BYTE_OF
from lib.tokenizer.byte_level import PATTERNS as SPLITS
from lib.tokenizer.byte_level import MergingTokenizer, last_merge, saved_tokens, tokens_to_saved

#: The patterns by the names that llama.cpp gives them (src/llama-vocab.cpp).
#:
#: smollm: every digit is a piece, and GPT-2's pattern cuts what is between them, so blanks before a digit stay together.
PATTERNS = {
    "gpt-2": SPLITS["gpt2"],
    "smollm": r"\p{N}|'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+",
}
_BLANKS_BEFORE_DIGITS = {"smollm"}  # one piece, with the last of them


class PretrainedTokenizer(MergingTokenizer):
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

    def check_text(self, text: str) -> None:
        content = text.encode("utf-8")
        for byte in self._missing:
            if byte in content:
                character = next(character for character in text if byte in character.encode("utf-8"))
                raise UnknownText(
                    f"the vocabulary has no token for the byte 0x{byte[0]:02x} of {character!r} (U+{ord(character):04X}); "
                    "remove this character from the text"
                )

    def keeps_last_blank(self, text: str, end: int) -> bool:
        before_digit = self.pattern in _BLANKS_BEFORE_DIGITS and unicodedata.category(text[end : end + 1] or " ").startswith(
            "N"
        )
        return before_digit or super().keeps_last_blank(text, end)

    def token_bytes(self, id: int) -> bytes:
        return self.tokens[id]

    def special_ids(self) -> Sequence[int]:
        return self.special

    def merges(self) -> list[tuple[bytes, bytes]]:
        """The two parts that each token was merged from, in the order of ids."""
        ranks = {token: id for id, token in enumerate(self.tokens) if id not in set(self.special)}
        parts = [last_merge(token, ranks) for token in ranks if len(token) > 1]
        return [(pair[0], pair[1]) for pair in parts]

    def to_saved(self) -> dict[str, Any]:
        saved = {"pattern": self.pattern, "special": self.special, "endoftext": self.endoftext}
        return saved | {"tokens": tokens_to_saved(self.tokens)}

    @classmethod
    def from_saved(cls, saved: dict[str, Any]) -> Self:
        return cls(saved["pattern"], saved_tokens(saved), saved["special"], saved["endoftext"])

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
        if last_merge(pair[0] + pair[1], ids) != pair:
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
