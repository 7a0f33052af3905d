"""Tokenizers in GGUF: the keys `tokenizer.*`, as llama.cpp reads them (src/llama-vocab.cpp).

Byte-level BPE is their model `gpt2`: tokens in GPT-2's way of writing bytes, merges, and the name of a pattern, since a file
cannot hold the pattern itself. Bytes and characters are their model `rwkv`, which takes the longest token at each place.
"""

import re
from typing import Any, Iterable

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

#: tokenizer.ggml.token_type. Those of _SPECIAL are no text; added tokens are text that is found before any merge.
_NORMAL, _UNKNOWN, _CONTROL, _ADDED, _UNUSED = 1, 2, 3, 4, 5
_SPECIAL = {_UNKNOWN, _CONTROL, _UNUSED}

#: llama.cpp refuses a file without merges. These two bytes, C0 and C1, are in no UTF-8 text.
_NO_MERGE = "À Á"

#: The first of llama.cpp's names of each pattern.
_PRE = {pattern: name for name, pattern in reversed(LLAMA_CPP_NAMES.items())}
#: Of these, a piece that is a token as a whole becomes that token.
_WHOLE_PIECES = {"llama-bpe"}


def read_tokenizer(file: GGUFFile) -> Tokenizer:
    """The byte-level BPE in `file`, or the bytes or characters; MakegptError says what is missing, damaged or not supported."""
    keys: dict[str, Any] = {
        name: file.values.get(f"tokenizer.ggml.{name}") for name in ("model", "pre", "tokens", "token_type", "merges")
    }
    if keys["model"] == "rwkv":
        return _read_pieces(file, keys["tokens"])
    if keys["model"] != "gpt2":
        raise MakegptError(
            f"{file.path}: tokenizer.ggml.model={keys['model']} is not supported; it must be gpt2, a byte-level BPE, "
            "or rwkv with single bytes or characters"
        )
    tokens, types, merges = keys["tokens"], keys["token_type"], keys["merges"]
    texts = all(isinstance(value, list) and all(isinstance(text, str) for text in value) for value in (tokens, merges))
    if not texts or types is None or isinstance(types, (str, int, float)) or len(types) != len(tokens):
        raise MakegptError(f"{file.path} is damaged: its tokenizer lacks tokens, their types or merges")
    if odd := set(map(int, types)) - {_NORMAL, _ADDED, *_SPECIAL}:
        raise MakegptError(f"{file.path}: tokens of type {min(odd)} are not supported in a byte-level BPE")
    pre = keys["pre"]
    if pre not in LLAMA_CPP_NAMES:
        raise MakegptError(f"{file.path}: the pre-tokenizer {pre} is not supported; {nearest(str(pre), LLAMA_CPP_NAMES)}")
    special = {id: tokens[id] for id, kind in enumerate(types) if kind in _SPECIAL}
    added = {id: tokens[id] for id, kind in enumerate(types) if kind == _ADDED}
    endoftext = file.values.get("tokenizer.ggml.eos_token_id")
    try:
        return from_merges(pre, tokens, merges, special, endoftext, added=added, whole_pieces=pre in _WHOLE_PIECES)
    except ValueError as error:
        raise MakegptError(f"{file.path}: its tokenizer cannot be followed: {error}") from None


def _read_pieces(file: GGUFFile, written: Any) -> Tokenizer:
    """The bytes or the characters that the model `rwkv` takes the longest of: only one of them can match at each place."""
    try:
        tokens = [_unescaped(token) for token in written] if isinstance(written, list) else []
        if tokens == [bytes([value]) for value in range(256)]:
            return BytesTokenizer()
        characters = [token.decode("utf-8") for token in tokens]
        if any(len(character) != 1 for character in characters):
            raise ValueError("a token is not one character")
        return CharTokenizer("".join(characters))
    except (TypeError, ValueError):
        raise MakegptError(
            f"{file.path}: its tokenizer rwkv is not supported; its tokens must be the 256 bytes, or distinct characters"
        ) from None


def tokenizer_values(tokenizer: Tokenizer) -> dict[str, Any]:
    """The keys `tokenizer.*` with which llama.cpp gives the ids of `tokenizer`; their values as in `GGUFFile.values`.

    A text with characters that `tokenizer` refuses is not refused there: they are dropped, or tokenization never ends.
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
            values = _gpt2(pre, tokens, tokenizer.merges(), tokenizer)
            values["tokenizer.ggml.token_type"][tokenizer.added] = _ADDED
            return values
        case BytesTokenizer() | CharTokenizer():
            tokens = [_escaped(tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size)]
            return _values("rwkv", tokens, tokenizer)
    raise MakegptError(
        f"llama.cpp has no tokenizer of kind {tokenizer.kind}; --to gguf takes models with gpt2, bpe, char or bytes"
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


def _values(model: str, tokens: list[str], tokenizer: Tokenizer) -> dict[str, Any]:
    types = np.full(len(tokens), _NORMAL, dtype=np.int32)
    types[list(tokenizer.special_ids())] = _CONTROL
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
