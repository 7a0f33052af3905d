"""Tokenizers of SentencePiece (Kudo and Richardson 2018): Unigram, or byte-pair encoding by scores.

A text is normalized, its spaces become `▁`, with one more before it, and it is cut into pieces of the vocabulary. A character
that is no piece becomes its bytes, if the vocabulary has them, else the unknown token.
"""

import base64
import re
from pathlib import Path
from typing import Any, Iterable, Iterator, Self, Sequence

import numpy as np

from lib.errors import UsageError
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.charsmap import Charsmap
from lib.tokenizer.scored_merges import merge_by_score
from lib.tokenizer.unigram import best_segmentation, unknown_score

#: What a piece can be, by the numbers of SentencePiece and GGUF. An added one is found in the text before all others.
NORMAL, UNKNOWN, CONTROL, ADDED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
ALGORITHMS = ("unigram", "bpe")
SPACE = "▁"

_SAVED = ("algorithm", "pieces", "scores", "types")
_OPTIONS = ("unknown", "endoftext", "add_dummy_prefix", "remove_extra_whitespaces")
_WORD = re.compile(f"{SPACE}*[^{SPACE}]*")
_CACHED_WORDS = 100_000


class SentencePieceTokenizer(Tokenizer):
    kind = "sentencepiece"

    def __init__(
        self,
        algorithm: str,
        pieces: Sequence[str],
        scores: Sequence[float],
        types: Sequence[int],
        *,
        unknown: int | None,
        endoftext: int | None,
        add_dummy_prefix: bool = True,
        remove_extra_whitespaces: bool = False,
        charsmap: bytes = b"",
    ) -> None:
        """`pieces`, their `scores` and `types` by id; `algorithm`: one of `ALGORITHMS`. `charsmap`: rules that normalize texts.

        ValueError if these contradict each other.
        """
        self.algorithm, self.pieces, self.scores, self.types = algorithm, list(pieces), list(scores), list(types)
        self.unknown, self.endoftext = unknown, endoftext
        self.add_dummy_prefix, self.remove_extra_whitespaces = add_dummy_prefix, remove_extra_whitespaces
        self.charsmap = Charsmap(charsmap) if charsmap else None
        if algorithm not in ALGORITHMS or not len(pieces) == len(scores) == len(types) or len(set(pieces)) != len(pieces):
            raise ValueError("pieces must be distinct, each with a score and a type")
        if not all(isinstance(piece, str) and piece for piece in pieces) or not np.isfinite(scores).all():
            raise ValueError("pieces must be text and scores finite")
        "".join(self.pieces).encode("utf-8")  # a ValueError for half of a surrogate pair
        if not all(id is None or 0 <= id < len(pieces) for id in (unknown, endoftext)):
            raise ValueError("special tokens must be tokens")
        if not set(types) <= {NORMAL, UNKNOWN, CONTROL, ADDED, UNUSED, BYTE}:
            raise ValueError("a type is unknown")
        if not isinstance(add_dummy_prefix, bool) or not isinstance(remove_extra_whitespaces, bool):
            raise ValueError("options must be true or false")
        by_type = {kind: {self.pieces[id]: id for id, of in enumerate(types) if of == kind} for kind in (NORMAL, ADDED, BYTE)}
        self._ids, self._added = by_type[NORMAL], by_type[ADDED]
        self._byte_ids = [by_type[BYTE].get(f"<0x{byte:02X}>", -1) for byte in range(256)]
        self._has_bytes = bool(by_type[BYTE])
        if not self._ids or (min(self._byte_ids) < 0 if self._has_bytes else unknown is None):
            raise ValueError("it has no pieces, or neither an unknown one nor one for each byte")
        self._scores = {piece: self.scores[id] for piece, id in self._ids.items()}
        self._unknown_score, self._longest = unknown_score(self._scores), max(map(len, self._scores))
        self._in_words = not any(SPACE in piece.lstrip(SPACE) for piece in self._ids)
        self._cache: dict[str, list[int]] = {}
        self._at_added = re.compile("|".join(map(re.escape, sorted(self._added, key=len, reverse=True))) or "(?!)")
        self.lossless = self._has_bytes and not (charsmap or remove_extra_whitespaces or self._added)

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        start = 0
        for match in self._at_added.finditer(text):
            ids += self._encode(text[start : match.start()])
            ids.append(self._added[match.group()])
            start = match.end()
        return ids + self._encode(text[start:])

    def _encode(self, text: str) -> list[int]:
        normalized = self.normalize(text)
        words = filter(None, _WORD.findall(normalized)) if self._in_words else [normalized]
        ids: list[int] = []
        for word in words:
            for id in self._ids_of(word):
                if id != self.unknown or ids[-1:] != [id]:  # a run of unknown characters is one token
                    ids.append(id)
        return ids

    def normalize(self, text: str) -> str:
        """`text` as it is cut into pieces."""
        if self.charsmap:
            text = "".join(self.charsmap.normalize(text))
        if self.remove_extra_whitespaces:
            text = re.sub(" +", " ", text.strip(" "))
        return (" " + text if self.add_dummy_prefix and text else text).replace(" ", SPACE)

    def _ids_of(self, word: str) -> list[int]:
        if (ids := self._cache.get(word)) is None:
            ids = []
            for piece in self.segment(word):
                if piece in self._ids:
                    ids.append(self._ids[piece])
                elif self._has_bytes:
                    ids += [self._byte_ids[byte] for byte in piece.encode("utf-8")]
                else:
                    assert self.unknown is not None
                    ids.append(self.unknown)
            if len(self._cache) >= _CACHED_WORDS:
                self._cache.clear()
            self._cache[word] = ids
        return ids

    def segment(self, word: str) -> list[str]:
        """The pieces of normalized text, and the characters that are none."""
        if self.algorithm == "bpe":
            return merge_by_score(word, self._scores)
        return best_segmentation(word, self._scores, self._unknown_score, self._longest)

    def encode_stream(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        yield np.array(self.encode("".join(pieces)), dtype=np.uint32)

    def token_bytes(self, id: int) -> bytes:
        if self.types[id] == BYTE:
            return bytes([int(self.pieces[id][3:5], 16)])
        return (self.pieces[id].replace(SPACE, " ") if self.types[id] == NORMAL else self.pieces[id]).encode("utf-8")

    def bytes_after(self, previous: int | None, id: int) -> bytes:
        content = super().bytes_after(previous, id)
        return content.removeprefix(b" ") if previous is None and self.add_dummy_prefix else content

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        content = super().decode_bytes(ids)
        return content.removeprefix(b" ") if self.add_dummy_prefix else content

    def special_ids(self) -> Sequence[int]:
        return [id for id, kind in enumerate(self.types) if kind in (UNKNOWN, CONTROL, UNUSED)]

    def to_saved(self) -> dict[str, Any]:
        charsmap = base64.b64encode(self.charsmap.blob).decode("ascii") if self.charsmap else ""
        return {name: getattr(self, name) for name in (*_SAVED, *_OPTIONS)} | {"charsmap": charsmap}

    @classmethod
    def from_saved(cls, saved: dict[str, Any]) -> Self:
        charsmap = base64.b64decode(saved["charsmap"], validate=True)
        return cls(*(saved[name] for name in _SAVED), charsmap=charsmap, **{name: saved[name] for name in _OPTIONS})

    @classmethod
    def train(cls, documents: Iterable[Iterable[str]], data: Path, vocab_size: int | None = None) -> Self:
        raise UsageError("a sentencepiece tokenizer is read, not trained: `tokenize --tokenizer FILE.model` takes one")
