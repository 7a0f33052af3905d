"""GPT-2's byte-pair encoding: 50,256 byte sequences and `<|endoftext|>` (Radford et al. 2019, section 2.2).

A pattern cuts the text into words with their leading space, numbers, marks and blanks. Within each, the adjacent pair of
lowest rank is merged, again and again, until no pair has a rank. tiktoken does the merging, over the two files as released,
and never uses the network here.
"""

import base64
import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Any, Iterable, Iterator, Self, Sequence

import numpy as np
import tiktoken

from lib.artifact.strict_json import load_json
from lib.errors import MakegptError
from lib.tokenizer.base import ENDOFTEXT, Tokenizer
from lib.tokenizer.splitting import cut_at_blanks

#: Tokens of the released vocabulary: 256 bytes, 50,000 merges and `<|endoftext|>`.
GPT2_VOCAB_SIZE = 50_257

PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""

_THREADS = min(4, os.cpu_count() or 1)
_PIECES_AT_ONCE = 4  # of about 1 MB; each becomes a Python list of ids for a moment


class GPT2Tokenizer(Tokenizer):
    kind = "gpt2"

    def __init__(self, tokens: list[bytes]) -> None:
        """`tokens`: the byte sequence of each id, in the order of the merges (their rank).

        ValueError if one is empty or a duplicate, or if a byte is missing: tiktoken would abort the process.
        """
        distinct = set(tokens)
        if len(distinct) < len(tokens) or b"" in distinct or not {bytes([byte]) for byte in range(256)} <= distinct:
            raise ValueError("tokens must be distinct and include every byte")
        self.tokens = tokens
        self.endoftext = len(tokens)
        self._encoding = tiktoken.Encoding(
            self.kind,
            pat_str=PATTERN,
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
        for run in _LONG_BLANKS.finditer(text):
            end = run.end() if run.end() == len(text) else run.end() - 1
            ids += self._encoding.encode_ordinary(text[start : run.start()])
            ids += self._encoding._encode_single_piece(text[run.start() : end])
            start = end
        return ids + self._encoding.encode_ordinary(text[start:])

    def encode_stream(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        for texts in _groups(cut_at_blanks(pieces, _BORDER), _PIECES_AT_ONCE):
            if any(map(_LONG_BLANKS.search, texts)):
                encoded = list(map(self.encode, texts))
            else:
                encoded = self._encoding.encode_ordinary_batch(texts, num_threads=_THREADS)
            for ids in encoded:
                yield np.array(ids, dtype=np.uint32)

    def token_bytes(self, id: int) -> bytes:
        return ENDOFTEXT.encode() if id == self.endoftext else self.tokens[id]

    def to_saved(self) -> dict[str, Any]:
        return {"pattern": PATTERN, "tokens": [base64.b64encode(token).decode("ascii") for token in self.tokens]}

    @classmethod
    def from_saved(cls, saved: dict[str, Any]) -> Self:
        return cls([base64.b64decode(token, validate=True) for token in saved["tokens"]])

    @classmethod
    def train(cls, documents: Iterable[Iterable[str]], data: Path) -> Self:
        return cls(read_released(data / "gpt2" / "vocab.bpe", data / "gpt2" / "encoder.json"))


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


#: How the released files write bytes: the printable ones as themselves, the others as characters from U+0100 on. Ids 0 to 255
#: are the single bytes, in this order.
_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
BYTE_OF = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + n): byte for n, byte in enumerate(_OTHERS)}
_WRITTEN = {byte: character for character, byte in BYTE_OF.items()}


def read_released(vocab_bpe: Path, encoder_json: Path) -> list[bytes]:
    """The byte sequences of all ids but the last: the merges of one file, checked against the ids of the other.

    The two files as released with GPT-2, or others in their format.
    """
    try:
        merges = vocab_bpe.read_text(encoding="utf-8").splitlines()[1:]
        ids = load_json(encoder_json)
    except ValueError:
        raise MakegptError(f"{vocab_bpe} or {encoder_json} is damaged; fetch both again") from None
    except FileNotFoundError as error:
        raise MakegptError(f"{error.filename} is missing; fetch GPT-2's vocabulary with `fetch gpt2`") from None
    try:
        return apply_merges([tuple(merge.split()) for merge in merges if merge], ids)
    except ValueError:
        raise MakegptError(f"{vocab_bpe} and {encoder_json} do not match; fetch both again") from None


def apply_merges(merges: Iterable[Sequence[str]], ids: dict[str, int]) -> list[bytes]:
    """The byte sequences of all ids but the last: the 256 single bytes, then one for each merge, in the order of their ranks.

    ValueError unless `ids` numbers these tokens in this order, then `<|endoftext|>`.
    """
    written = [*BYTE_OF, *("".join(merge) for merge in merges)]
    if ids != {token: id for id, token in enumerate([*written, ENDOFTEXT])} or not set("".join(written)) <= BYTE_OF.keys():
        raise ValueError("the ids do not match the merges")
    return [bytes(BYTE_OF[character] for character in token) for token in written]


def merges_of(tokens: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """The two parts that each token after the single bytes was merged from, for `apply_merges`.

    They remain when all merges of lower rank are applied to its bytes.
    """
    ranks = {token: rank for rank, token in enumerate(tokens)}
    merges = []
    for token in tokens[len(BYTE_OF) :]:
        parts = [bytes([byte]) for byte in token]
        while len(parts) > 2:
            pairs = [ranks.get(left + right, len(tokens)) for left, right in pairwise(parts)]
            first = pairs.index(min(pairs))
            parts[first : first + 2] = [parts[first] + parts[first + 1]]
        merges.append((parts[0], parts[1]))
    return merges


def byte_string(token: bytes) -> str:
    """A byte sequence as the released files write it."""
    return "".join(_WRITTEN[byte] for byte in token)
