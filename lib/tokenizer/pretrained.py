"""A byte-level BPE that comes with pretrained weights: its tokens, its special and added tokens, and its pattern.

As in GPT-2's (`lib.tokenizer.gpt2`), a pattern cuts the text, and within each piece the pair of lowest rank is merged first;
here the rank of a token is its id. tiktoken does the merging. A piece that is a token as a whole becomes that token. Such a
vocabulary may lack some single bytes that its training text did not have: a text with one of them is refused.

Special tokens are no text. Added tokens are: they are found in the text before the pattern cuts what is between them.
"""

import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping, Self, Sequence

import numpy as np
import regex

from lib.errors import MakegptError, UsageError, nearest
from lib.tokenizer.base import UnknownText
from lib.tokenizer.byte_alphabet import BYTE_OF
from lib.tokenizer.byte_level import MergingTokenizer, last_merge, saved_tokens, tokens_to_saved
from lib.tokenizer.patterns import LLAMA_CPP_NAMES, compiled, steps_of
from lib.tokenizer.splitting import cut_at_blanks

_BLANKS = " \t"  # before which no pattern goes on, nor a character that NFC composes


class PretrainedTokenizer(MergingTokenizer):
    kind = "pretrained"

    def __init__(
        self,
        pattern: str | Sequence[str],
        tokens: Sequence[bytes],
        special: Iterable[int],
        endoftext: int | None,
        *,
        added: Iterable[int] = (),
        nfc: bool = False,
    ) -> None:
        """`pattern`: a name of `LLAMA_CPP_NAMES`, or the steps of another pattern (`lib.tokenizer.patterns`).

        `tokens`: the bytes of each id, for an id in `special` those of its name. `endoftext`: the special token that ends a
        text. `nfc`: texts are composed first (Unicode's normalization form C).

        MakegptError if the pattern is unknown; ValueError if a step of it is no regular expression, if tokens are empty or not
        distinct, or if a special id, an added one or `endoftext` is none.
        """
        self.pattern, self.tokens, self.nfc = pattern, list(tokens), nfc
        self.special, self.added = sorted(set(special)), sorted(set(added))
        self.endoftext = endoftext
        plain = {*self.special, *self.added}
        ranks = {token: id for id, token in enumerate(self.tokens) if id not in plain}
        if not plain <= set(range(len(self.tokens))) or (endoftext is not None and endoftext not in self.special):
            raise ValueError("special tokens must be tokens")
        if len(ranks) + len(plain) != len(self.tokens) or len(plain) != len(self.special) + len(self.added) or b"" in ranks:
            raise ValueError("tokens must be distinct and not empty")
        self._ids_of_added = {self.tokens[id].decode("utf-8"): id for id in self.added}
        if "" in self._ids_of_added or len(self._ids_of_added) != len(self.added):
            raise ValueError("added tokens must be distinct and not empty")
        longest_first = sorted(self._ids_of_added, key=len, reverse=True)
        self._added = regex.compile("|".join(map(regex.escape, longest_first))) if self.added else None
        self._missing = [bytes([byte]) for byte in range(256) if bytes([byte]) not in ranks]
        self.set_merging(ranks, _steps(pattern))

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

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        start = 0
        for match in self._added.finditer(text) if self._added else ():
            ids += super().encode(self._normalized(text[start : match.start()]))
            ids.append(self._ids_of_added[match.group()])
            start = match.end()
        return ids + super().encode(self._normalized(text[start:]))

    def encode_stream(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        if len(self._steps) == 1 and not self._added and not self.nfc:
            yield from super().encode_stream(pieces)
            return
        is_cut = len(self._steps) > 1 or any(blank in added for added in self._ids_of_added for blank in _BLANKS)
        for text in ["".join(pieces)] if is_cut else cut_at_blanks(pieces, blanks=_BLANKS):
            yield np.array(self.encode(text), dtype=np.uint32)

    def _normalized(self, text: str) -> str:
        return unicodedata.normalize("NFC", text) if self.nfc else text

    def token_bytes(self, id: int) -> bytes:
        return self.tokens[id]

    def special_ids(self) -> Sequence[int]:
        return self.special

    def merges(self) -> tuple[list[tuple[bytes, bytes]], bool]:
        """The two parts that each token is merged from, in the order of ids; whether some tokens are only whole pieces.

        These cannot be made from their bytes, so they have all the parts that they have.
        """
        plain = {*self.special, *self.added}
        ranks = {token: id for id, token in enumerate(self.tokens) if id not in plain}
        pairs: list[tuple[bytes, bytes]] = []
        whole_pieces = False
        for token in ranks:
            parts = last_merge(token, ranks)
            if len(parts) == 2:
                pairs.append((parts[0], parts[1]))
            elif len(parts) > 2:
                whole_pieces = True
                pairs += [pair for pair in _splits(token) if {*pair} <= ranks.keys()]
        return pairs, whole_pieces

    def to_saved(self) -> dict[str, Any]:
        pattern = self.pattern if isinstance(self.pattern, str) else list(self.pattern)
        saved = {"pattern": pattern, "special": self.special, "endoftext": self.endoftext}
        options = {"added": self.added, "nfc": self.nfc}
        return saved | {"tokens": tokens_to_saved(self.tokens)} | {name: value for name, value in options.items() if value}

    @classmethod
    def from_saved(cls, saved: dict[str, Any]) -> Self:
        options = {name: saved[name] for name in ("added", "nfc") if name in saved}
        return cls(saved["pattern"], saved_tokens(saved), saved["special"], saved["endoftext"], **options)

    @classmethod
    def train(cls, documents: Iterable[Iterable[str]], data: Path, vocab_size: int | None = None) -> Self:
        raise UsageError("a pretrained tokenizer comes with weights; get it with `import-weights FILE.gguf -o RUN`")


def _steps(pattern: str | Sequence[str]) -> Sequence[str]:
    if not isinstance(pattern, str):
        for step in pattern:
            compiled(step)
        # A step of another pattern may leave characters between its matches, so tiktoken is never given one alone.
        return [r"[\s\S]+", *pattern]
    if pattern not in LLAMA_CPP_NAMES:
        raise MakegptError(f"the pre-tokenizer {pattern!r} is not supported; {nearest(pattern, LLAMA_CPP_NAMES)}")
    return steps_of(LLAMA_CPP_NAMES[pattern])


def from_merges(
    pattern: str | Sequence[str],
    written: Sequence[str],
    merges: Iterable[str],
    special: Mapping[int, str],
    endoftext: int | None,
    *,
    added: Mapping[int, str] | None = None,
    nfc: bool = False,
    whole_pieces: bool = False,
) -> PretrainedTokenizer:
    """The tokenizer of a vocabulary in GPT-2's way of writing bytes: `written` by id, `merges` as "left right" by rank.

    `special` and `added` tokens are written as they are. With `whole_pieces`, merges need not lead to a token: it is then
    only found where it is a whole piece.

    ValueError, with the reason, unless each other token is a single byte or the result of a merge, in the order of ids: then
    merging by ids, as here, and by the list of merges are the same. A token may have several merges, as in Llama 3's list,
    which was made from ids.
    """
    plain = {**special, **(added or {})}
    tokens = [text.encode("utf-8") if id in plain else _bytes_of(text) for id, text in enumerate(written)]
    ids = {token: id for id, token in enumerate(tokens) if id not in plain}
    pairs: defaultdict[int, list[tuple[bytes, ...]]] = defaultdict(list)
    last = -1
    for merge in merges:
        left, separator, right = merge.partition(" ")
        pair = (_bytes_of(left), _bytes_of(right))
        if not separator or pair[0] + pair[1] not in ids or pair[0] not in ids or pair[1] not in ids:
            raise ValueError(f"the merge {merge!r} does not make a token of two tokens")
        id = ids[pair[0] + pair[1]]
        if id < last:
            raise ValueError(f"the merge {merge!r} is not in the order of the ids")
        pairs[id].append(pair)
        last = id
    for token, id in ids.items():
        if len(token) == 1:
            continue
        parts, known = last_merge(token, ids), pairs[id]
        if len(parts) > 2 and whole_pieces and all(pair in known or not {*pair} <= ids.keys() for pair in _splits(token)):
            continue  # any two tokens that are merged into it here are so by the list
        if not known or len(parts) > 2:
            raise ValueError(f"the token {written[id]!r} is not made by a merge")
        if parts not in known:
            raise ValueError(f"the merge that makes {written[id]!r} is never the last one that makes it")
    return PretrainedTokenizer(pattern, tokens, special, endoftext, added=added or (), nfc=nfc)


def _splits(token: bytes) -> list[tuple[bytes, bytes]]:
    return [(token[:at], token[at:]) for at in range(1, len(token))]


def _bytes_of(text: str) -> bytes:
    try:
        return bytes(BYTE_OF[character] for character in text)
    except KeyError:
        raise ValueError(f"the token {text!r} is not written in GPT-2's alphabet of bytes") from None
