"""Byte-level byte-pair encoding: what GPT-2's tokenizer and those trained here have in common.

A pattern cuts the text into words with their leading space, numbers, marks and blanks. Within each, the adjacent pair of
lowest rank is merged, again and again, until no pair has a rank. tiktoken does the merging.
"""

import base64
import os
import re
from itertools import pairwise
from typing import Any, Iterable, Iterator, Sequence

import numpy as np
import tiktoken

from lib.tokenizer.base import ENDOFTEXT, Tokenizer
from lib.tokenizer.splitting import cut_at_blanks

#: How a text is cut into words, by name. No merge crosses a border of two words.
PATTERNS = {
    # Radford et al. 2019, section 2.2: contractions, letters, numbers and marks, each with a space before it, and blanks
    "gpt2": r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""",
    # the same, but each digit is a word
    "digits": r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""",
}

_THREADS = min(4, os.cpu_count() or 1)
_PIECES_AT_ONCE = 4  # of about 1 MB; each becomes a Python list of ids for a moment


class ByteLevelBPE(Tokenizer):
    """A tokenizer of byte sequences and `<|endoftext|>`, which has the last id."""

    pattern: str = "gpt2"

    def __init__(self, tokens: list[bytes], pattern: str = "gpt2") -> None:
        """`tokens`: the byte sequence of each id, the 256 single bytes, then the merges in the order of their ranks.

        `pattern`: a name of `PATTERNS`. ValueError if a token is empty or a duplicate, or if a byte is missing: tiktoken would
        abort the process.
        """
        distinct = set(tokens)
        if len(distinct) < len(tokens) or b"" in distinct or not {bytes([byte]) for byte in range(256)} <= distinct:
            raise ValueError("tokens must be distinct and include every byte")
        self.tokens = tokens
        self.pattern = pattern
        self.endoftext = len(tokens)
        self._encoding = tiktoken.Encoding(
            self.kind,
            pat_str=PATTERNS[pattern],
            mergeable_ranks={token: rank for rank, token in enumerate(tokens)},
            special_tokens={ENDOFTEXT: self.endoftext},
        )

    @property
    def vocab_size(self) -> int:
        return len(self.tokens) + 1

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        start = 0
        # `\s+(?!\S)` matches a run of blanks up to the last one before a word. It backtracks to find that one, and tiktoken's
        # regex engine fails on a run of a million; so a long run is matched here and only merged by tiktoken, for which it has
        # no public call.
        for run in LONG_BLANKS.finditer(text):
            end = run.end() if run.end() == len(text) else run.end() - 1
            ids += self._encoding.encode_ordinary(text[start : run.start()])
            ids += self._encoding._encode_single_piece(text[run.start() : end])
            start = end
        return ids + self._encoding.encode_ordinary(text[start:])

    def encode_stream(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        for texts in _groups(cut_into_words(pieces), _PIECES_AT_ONCE):
            if any(map(LONG_BLANKS.search, texts)):
                encoded = list(map(self.encode, texts))
            else:
                encoded = self._encoding.encode_ordinary_batch(texts, num_threads=_THREADS)
            for ids in encoded:
                yield np.array(ids, dtype=np.uint32)

    def token_bytes(self, id: int) -> bytes:
        return ENDOFTEXT.encode() if id == self.endoftext else self.tokens[id]

    def to_saved(self) -> dict[str, Any]:
        return {
            "pattern": PATTERNS[self.pattern],
            "tokens": [base64.b64encode(token).decode("ascii") for token in self.tokens],
        }


def saved_tokens(saved: dict[str, Any]) -> list[bytes]:
    """The byte sequences of the data from `ByteLevelBPE.to_saved`."""
    return [base64.b64decode(token, validate=True) for token in saved["tokens"]]


def cut_into_words(pieces: Iterable[str]) -> Iterator[str]:
    """The same text in other pieces, each of which every pattern of `PATTERNS` matches as it matches the whole text."""
    return cut_at_blanks(pieces, _BORDER)


def _groups(items: Iterable[str], size: int) -> Iterator[list[str]]:
    group: list[str] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


#: Where a match of the pattern always ends: between a letter and a mark, a digit and a mark, a letter and a digit, or a digit
#: and a letter. Only letters and marks that are the same in every version of Unicode.
_LETTERS, _MARKS = "A-Za-zА-яぁ-ゖァ-ヺ一-龥가-힣", r"!-/:-@\[-`{-~、。「」『』！（），：；？…—"
_BORDER = re.compile(f"[{_LETTERS}](?=[0-9{_MARKS}])|[0-9](?=[{_LETTERS}{_MARKS}])")

_BLANK = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # Unicode's White_Space, the pattern's \s
LONG_BLANKS = re.compile(f"(?<![{_BLANK}])[{_BLANK}]{{4096,}}+")


def merges_of(tokens: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """The two parts that each token after the single bytes was merged from, for `apply_merges`.

    They remain when all merges of lower rank are applied to its bytes.
    """
    ranks = {token: rank for rank, token in enumerate(tokens)}
    merges = []
    for token in tokens[256:]:
        parts = [bytes([byte]) for byte in token]
        while len(parts) > 2:
            pairs = [ranks.get(left + right, len(tokens)) for left, right in pairwise(parts)]
            first = pairs.index(min(pairs))
            parts[first : first + 2] = [parts[first] + parts[first + 1]]
        merges.append((parts[0], parts[1]))
    return merges
