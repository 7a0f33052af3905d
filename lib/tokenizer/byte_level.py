"""Byte-level byte-pair encoding: what GPT-2's tokenizer, those trained here and those of pretrained weights have in common.

A pattern cuts the text into words with their leading space, numbers, marks and blanks. Within each, the adjacent pair of
lowest rank is merged, again and again, until no pair has a rank. tiktoken does the merging.
"""

import base64
import os
import re
from itertools import pairwise
from typing import Any, Iterable, Iterator, Mapping, Sequence

import numpy as np
import tiktoken

from lib.tokenizer.base import ENDOFTEXT, Tokenizer
from lib.tokenizer.patterns import PATTERNS, compiled, split
from lib.tokenizer.splitting import cut_at_blanks

_THREADS = min(4, os.cpu_count() or 1)
_PIECES_AT_ONCE = 4  # of about 1 MB; each becomes a Python list of ids for a moment


class MergingTokenizer(Tokenizer):
    """Encodes by `_encoding`, which `set_merging` sets, and by a pattern that cuts texts into words."""

    _encoding: tiktoken.Encoding
    _steps: Sequence[str]

    def set_merging(self, ranks: dict[bytes, int], steps: Sequence[str]) -> None:
        """`steps`: those of the pattern (`lib.tokenizer.patterns`); one alone matches every character.

        Each byte that a text may have must be in `ranks`: tiktoken would abort the process.
        """
        self._steps = steps
        pattern = steps[0] if len(steps) == 1 else r"[\s\S]+"  # several steps cut texts here, not in tiktoken
        self._encoding = tiktoken.Encoding(self.kind, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})

    def check_text(self, text: str) -> None:
        """UnknownText if a byte of `text` has no token."""

    def encode(self, text: str) -> list[int]:
        self.check_text(text)
        if len(self._steps) > 1:
            return [id for word in split(text, self._steps) for id in self._merged(word)]
        ids: list[int] = []
        start = 0
        for words in self._long_blanks(text):
            ids += self._encoding.encode_ordinary(text[start : words[0][0]])
            for start, end in words:
                ids += self._merged(text[start:end])
            start = words[-1][1]
        return ids + self._encoding.encode_ordinary(text[start:])

    def encode_stream(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        if len(self._steps) > 1:  # which a step may cut differently where a text is cut
            yield np.array(self.encode("".join(pieces)), dtype=np.uint32)
            return
        for texts in _groups(cut_into_words(pieces), _PIECES_AT_ONCE):
            if any(map(_LONG_BLANKS.search, texts)):
                encoded = list(map(self.encode, texts))
            else:
                for text in texts:
                    self.check_text(text)
                encoded = self._encoding.encode_ordinary_batch(texts, num_threads=_THREADS)
            for ids in encoded:
                yield np.array(ids, dtype=np.uint32)

    def _merged(self, word: str) -> list[int]:
        return self._encoding._encode_single_piece(word)  # tiktoken has no public call for one word

    def _long_blanks(self, text: str) -> Iterator[list[tuple[int, int]]]:
        """Where the words in long runs of blanks are: a list for each run, which its words may leave the start or end of.

        A pattern backtracks through a run to find its last blank, and tiktoken's regex engine fails on a run of a million.
        """
        for run in _LONG_BLANKS.finditer(text):
            start = max(run.start() - 1, 0)
            around = (match.span() for match in compiled(self._steps[0]).finditer(text[start : run.end() + 1]))
            words = [(start + a, start + b) for a, b in around if run.start() <= start + a and start + b <= run.end()]
            if words:
                yield words


class ByteLevelBPE(MergingTokenizer):
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
        self.set_merging({token: rank for rank, token in enumerate(tokens)}, [PATTERNS[pattern]])

    @property
    def vocab_size(self) -> int:
        return len(self.tokens) + 1

    def token_bytes(self, id: int) -> bytes:
        return ENDOFTEXT.encode() if id == self.endoftext else self.tokens[id]

    def to_saved(self) -> dict[str, Any]:
        return {"pattern": PATTERNS[self.pattern], "tokens": tokens_to_saved(self.tokens)}


def tokens_to_saved(tokens: Iterable[bytes]) -> list[str]:
    """Byte sequences as plain data."""
    return [base64.b64encode(token).decode("ascii") for token in tokens]


def saved_tokens(saved: dict[str, Any]) -> list[bytes]:
    """The byte sequences of the data from `to_saved`."""
    return [base64.b64decode(token, validate=True) for token in saved["tokens"]]


def cut_into_words(pieces: Iterable[str]) -> Iterator[str]:
    """The same text in other pieces, each of which every pattern of `PATTERNS` matches as it matches the whole text.

    Their matches never run from a visible character into a space. Into a line break they do, from marks.
    """
    return cut_at_blanks(pieces, _BORDER, " \t")


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
_LONG_BLANKS = re.compile(f"(?<![{_BLANK}])[{_BLANK}]{{4096,}}+")


def merges_of(tokens: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """The two parts that each token after the single bytes was merged from, for `apply_merges`."""
    ranks = {token: rank for rank, token in enumerate(tokens)}
    return [(parts[0], parts[1]) for parts in (last_merge(token, ranks) for token in tokens[256:])]


def last_merge(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, ...]:
    """The parts of `token`, two if a merge makes it, that remain when all merges of lower ranks are applied to its bytes."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [ranks.get(left + right, ranks[token]) for left, right in pairwise(parts)]
        lowest = min(pairs)
        if lowest >= ranks[token]:
            break
        first = pairs.index(lowest)
        parts[first : first + 2] = [parts[first] + parts[first + 1]]
    return tuple(parts)
