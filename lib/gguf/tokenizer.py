"""Tokenizers in GGUF: the keys `tokenizer.*`, as llama.cpp reads them (src/llama-vocab.cpp).

Byte-level BPE is their model `gpt2`: tokens in GPT-2's way of writing bytes, merges, and the name of a pattern, since a file
cannot hold the pattern itself. Bytes and characters are their model `rwkv`, which takes the longest token at each place.
SentencePiece's tokenizers are `llama` (merges by scores) and `t5` (Unigram).
"""

import re
from typing import Any, Iterable, TypeGuard

import numpy as np

from lib.errors import MakegptError, nearest
from lib.gguf.reader import GGUFFile
from lib.tokenizer.base import ENDOFTEXT, Tokenizer
from lib.tokenizer.byte_alphabet import byte_string
from lib.tokenizer.byte_level import ByteLevelBPE, merges_of
from lib.tokenizer.bytes_ import BytesTokenizer
from lib.tokenizer.char import CharTokenizer
from lib.tokenizer.patterns import LLAMA_CPP_NAMES, PATTERNS
from lib.tokenizer.pretrained import PretrainedTokenizer, from_merges
from lib.tokenizer.sentencepiece import ADDED, BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, SentencePieceTokenizer

#: The types of tokens that are no text.
_SPECIAL = {UNKNOWN, CONTROL, UNUSED}

#: llama.cpp refuses a file without merges. These two bytes, C0 and C1, are in no UTF-8 text.
_NO_MERGE = "À Á"

#: The first of llama.cpp's names of each pattern.
_PRE = {pattern: name for name, pattern in reversed(LLAMA_CPP_NAMES.items())}
#: Of these, a piece that is a token as a whole becomes that token.
_WHOLE_PIECES = {"llama-bpe"}


def read_tokenizer(file: GGUFFile) -> Tokenizer:
    """The tokenizer in `file`; MakegptError says what is missing, damaged or not supported."""
    model, tokens, types = (file.values.get(f"tokenizer.ggml.{name}") for name in ("model", "tokens", "token_type"))
    if not isinstance(model, str) or model not in _MODELS:
        raise MakegptError(
            f"{file.path}: tokenizer.ggml.model={model} is not supported; it must be gpt2, a byte-level BPE, llama or t5, "
            "which are SentencePiece's, or rwkv with bytes or characters"
        )
    if not isinstance(tokens, list) or not _are_texts(tokens):
        raise MakegptError(f"{file.path} is damaged: its tokenizer lacks tokens")
    if types is None:
        types = np.full(len(tokens), NORMAL)
    if not _are_numbers(types) or len(types) != len(tokens):
        raise MakegptError(f"{file.path} is damaged: its tokenizer lacks the types of its tokens")
    try:
        return _MODELS[model](file, tokens, list(map(int, types)))
    except ValueError as error:
        raise MakegptError(f"{file.path}: its tokenizer cannot be followed: {error}") from None


def _are_texts(values: list[Any]) -> bool:
    return all(isinstance(text, str) for text in values)


def _are_numbers(values: Any) -> TypeGuard[np.ndarray]:
    return isinstance(values, np.ndarray)


def _read_bpe(file: GGUFFile, tokens: list[str], types: list[int]) -> Tokenizer:
    pre, merges = (file.values.get(f"tokenizer.ggml.{name}") for name in ("pre", "merges"))
    if not isinstance(merges, list) or not _are_texts(merges):
        raise MakegptError(f"{file.path} is damaged: its tokenizer lacks merges")
    if odd := set(types) - {NORMAL, ADDED, *_SPECIAL}:
        raise MakegptError(f"{file.path}: tokens of type {min(odd)} are not supported in a byte-level BPE")
    if pre not in LLAMA_CPP_NAMES:
        raise MakegptError(f"{file.path}: the pre-tokenizer {pre} is not supported; {nearest(str(pre), LLAMA_CPP_NAMES)}")
    special = {id: tokens[id] for id, kind in enumerate(types) if kind in _SPECIAL}
    added = {id: tokens[id] for id, kind in enumerate(types) if kind == ADDED}
    endoftext = file.values.get("tokenizer.ggml.eos_token_id")
    return from_merges(pre, tokens, merges, special, endoftext, added=added, whole_pieces=pre in _WHOLE_PIECES)


def _read_sentencepiece(file: GGUFFile, tokens: list[str], types: list[int]) -> Tokenizer:
    values = {key.removeprefix("tokenizer.ggml."): value for key, value in file.values.items()}
    scores, charsmap = values.get("scores"), values.get("precompiled_charsmap", np.empty(0))
    if not _are_numbers(scores):
        raise MakegptError(f"{file.path} is damaged: its tokenizer lacks scores")
    is_bpe = values["model"] == "llama"
    if ADDED in types and not is_bpe:
        raise MakegptError(f"{file.path}: tokens of type {ADDED}, user-defined, are not supported in a Unigram tokenizer")
    return SentencePieceTokenizer(
        "bpe" if is_bpe else "unigram",
        tokens,
        [float(score) for score in scores],
        types,
        unknown=values.get("unknown_token_id", types.index(UNKNOWN) if UNKNOWN in types else None),
        endoftext=values.get("eos_token_id"),
        add_dummy_prefix=bool(values.get("add_space_prefix", is_bpe)),
        remove_extra_whitespaces=bool(values.get("remove_extra_whitespaces", False)) and not is_bpe,
        charsmap=charsmap.astype(np.uint8).tobytes() if _are_numbers(charsmap) and not is_bpe else b"",
    )


def _read_pieces(file: GGUFFile, tokens: list[str], types: list[int]) -> Tokenizer:
    """The bytes or the characters that the model `rwkv` takes the longest of: only one of them can match at each place."""
    if set(types) != {NORMAL}:
        raise ValueError("it has special tokens")
    pieces = [_unescaped(token) for token in tokens]
    if pieces == [bytes([value]) for value in range(256)]:
        return BytesTokenizer()
    characters = [piece.decode("utf-8") for piece in pieces]
    if any(len(character) != 1 for character in characters):
        raise ValueError("its tokens must be the 256 bytes, or distinct characters")
    return CharTokenizer("".join(characters))


_MODELS = {"gpt2": _read_bpe, "llama": _read_sentencepiece, "t5": _read_sentencepiece, "rwkv": _read_pieces}


def tokenizer_values(tokenizer: Tokenizer) -> dict[str, Any]:
    """The keys `tokenizer.*` with which llama.cpp gives the ids of `tokenizer`; their values as in `GGUFFile.values`.

    A text with characters that `tokenizer` refuses is not refused there: they are dropped, or tokenization never ends. Texts
    are not composed there: one that is not in NFC has other ids if `tokenizer` composes it.

    MakegptError if llama.cpp has no such tokenizer.
    """
    match tokenizer:
        case ByteLevelBPE():
            tokens, merges = [*map(byte_string, tokenizer.tokens), ENDOFTEXT], merges_of(tokenizer.tokens)
            return _gpt2(_PRE.get(tokenizer.pattern), tokens, merges, tokenizer)
        case PretrainedTokenizer():
            plain = {*tokenizer.special, *tokenizer.added}
            tokens = [token.decode("utf-8") if id in plain else byte_string(token) for id, token in enumerate(tokenizer.tokens)]
            pre = tokenizer.pattern if isinstance(tokenizer.pattern, str) else None
            merges, whole_pieces = tokenizer.merges()
            if whole_pieces and pre not in _WHOLE_PIECES:
                raise MakegptError(
                    "llama.cpp would not find all tokens of this tokenizer: some have no merge, and with the pre-tokenizer "
                    f"{pre} it does not look for whole pieces"
                )
            values = _gpt2(pre, tokens, merges, tokenizer)
            values["tokenizer.ggml.token_type"][tokenizer.added] = ADDED
            return values
        case BytesTokenizer() | CharTokenizer():
            tokens = [_escaped(tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size)]
            return _values("rwkv", tokens, tokenizer)
        case SentencePieceTokenizer():
            return _sentencepiece_values(tokenizer)
    raise MakegptError(
        f"llama.cpp has no tokenizer of kind {tokenizer.kind}; it has one of kind gpt2, bpe, char, bytes, pretrained "
        "and sentencepiece"
    )


def _gpt2(
    pre: str | None, tokens: list[str], merges: Iterable[tuple[bytes, bytes]], tokenizer: ByteLevelBPE | PretrainedTokenizer
) -> dict[str, Any]:
    if pre is None:
        raise MakegptError(
            f"llama.cpp has no name for the pattern {tokenizer.pattern} of this tokenizer; "
            f"of those that `tokenize --train bpe --pattern` takes it has {', '.join(sorted(PATTERNS.keys() & _PRE.keys()))}"
        )
    lines = [f"{byte_string(left)} {byte_string(right)}" for left, right in merges] or [_NO_MERGE]
    return _values("gpt2", tokens, tokenizer) | {"tokenizer.ggml.pre": pre, "tokenizer.ggml.merges": lines}


def _sentencepiece_values(tokenizer: SentencePieceTokenizer) -> dict[str, Any]:
    is_bpe, normalizes = tokenizer.algorithm == "bpe", tokenizer.charsmap or tokenizer.remove_extra_whitespaces
    if (is_bpe and normalizes) or not (is_bpe or tokenizer.remove_extra_whitespaces) or (BYTE in tokenizer.types) != is_bpe:
        raise MakegptError(
            "llama.cpp has no such SentencePiece tokenizer: bpe needs pieces for bytes and leaves texts as they are, unigram "
            "has no pieces for bytes and removes extra whitespace"
        )
    values = _values("llama" if is_bpe else "t5", tokenizer.pieces, tokenizer) | {
        "tokenizer.ggml.token_type": np.array(tokenizer.types, dtype=np.int32),
        "tokenizer.ggml.scores": np.array(tokenizer.scores, dtype=np.float32),
        "tokenizer.ggml.add_space_prefix": tokenizer.add_dummy_prefix,
        "tokenizer.ggml.remove_extra_whitespaces": tokenizer.remove_extra_whitespaces,
    }
    if tokenizer.charsmap:
        values["tokenizer.ggml.precompiled_charsmap"] = np.frombuffer(tokenizer.charsmap.blob, dtype=np.uint8)
    if tokenizer.unknown is not None:
        values["tokenizer.ggml.unknown_token_id"] = tokenizer.unknown
    return values


def _values(model: str, tokens: list[str], tokenizer: Tokenizer) -> dict[str, Any]:
    types = np.full(len(tokens), NORMAL, dtype=np.int32)
    types[list(tokenizer.special_ids())] = CONTROL
    values = {"model": model, "tokens": tokens, "token_type": types, "add_bos_token": False, "add_eos_token": False}
    if tokenizer.endoftext is not None:
        values |= {"bos_token_id": tokenizer.endoftext, "eos_token_id": tokenizer.endoftext}
    return {f"tokenizer.ggml.{name}": value for name, value in values.items()}


def _escaped(token: bytes) -> str:
    r"""`token` as the model `rwkv` writes it: printable ASCII as it is, other bytes as \x0a, a backslash twice."""
    return "".join(chr(byte).replace("\\", "\\\\") if ord(" ") <= byte <= ord("~") else f"\\x{byte:02x}" for byte in token)


def _unescaped(written: str) -> bytes:
    """The token that `_escaped` writes so; ValueError if it does not."""
    token = re.sub(
        rb"\\(?:x([0-9a-f]{2})|\\)", lambda match: bytes.fromhex((match[1] or b"5c").decode()), written.encode("ascii")
    )
    if _escaped(token) != written:
        raise ValueError(f"{written!r} is escaped in another way")
    return token
