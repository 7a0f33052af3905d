"""SentencePiece's `.model` files, which are protocol buffers (sentencepiece_model.proto).

A message is a sequence of fields: a number that holds the field's number and how its value is written, then the value. Only the
fields that encoding needs are read.
"""

import struct
from collections import defaultdict
from pathlib import Path
from typing import Any

from lib.errors import MakegptError
from lib.tokenizer.sentencepiece import ADDED, ALGORITHMS, CONTROL, NORMAL, UNKNOWN, UNUSED, SentencePieceTokenizer

SUFFIX = ".model"

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # how a value is written


def read_sentencepiece(path: Path) -> SentencePieceTokenizer:
    """The tokenizer in the file `path`; MakegptError if it is damaged or needs what is not supported."""
    try:
        return _tokenizer(fields(path.read_bytes()), path)
    except (ValueError, TypeError, struct.error) as error:
        raise MakegptError(f"{path} is damaged, or no SentencePiece model: {error}") from None


def fields(message: bytes) -> dict[int, list[Any]]:
    """The values of a message by the number of their field, in order: ints, or bytes; ValueError if it is cut."""
    values: defaultdict[int, list[Any]] = defaultdict(list)
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == _VARINT:
            value, at = _varint(message, at)
            values[key >> 3].append(value)
            continue
        sizes = {_FIXED64: 8, _FIXED32: 4}
        size, at = _varint(message, at) if key & 7 == _BYTES else (sizes.get(key & 7, len(message) + 1), at)
        if size > len(message) - at:
            raise ValueError("it ends within a field")
        values[key >> 3].append(message[at : at + size])
        at += size
    return values


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, of 7 bits from each byte, the lowest first, and where it ends."""
    value = 0
    for end in range(at, min(at + 10, len(message))):
        value |= (message[end] & 0x7F) << 7 * (end - at)
        if message[end] < 0x80:
            return value, end + 1
    raise ValueError("it ends within a number")


def _tokenizer(model: dict[int, list[Any]], path: Path) -> SentencePieceTokenizer:
    pieces = [fields(message) for message in model[1]]
    trainer, normalizer = (fields(model[number][-1] if model[number] else b"") for number in (2, 3))

    def option(message: dict[int, list[Any]], number: int, default: Any) -> Any:
        value = message[number][-1] if number in message else default
        if type(value) is not type(default):
            raise ValueError(f"field {number} is {type(value).__name__}, not {type(default).__name__}")
        return value

    algorithm = option(trainer, 3, 1)
    if not 1 <= algorithm <= len(ALGORITHMS):
        raise MakegptError(f"{path}: model_type={algorithm} is not supported; it must be 1 (unigram) or 2 (bpe)")
    types = [option(piece, 3, NORMAL) for piece in pieces]
    refused = {
        "treat_whitespace_as_suffix": bool(option(trainer, 24, 0)),
        "escape_whitespaces=false": not option(normalizer, 5, 1),
        "user-defined pieces": ADDED in types,
        "unused pieces of a bpe": UNUSED in types and algorithm == ALGORITHMS.index("bpe") + 1,
    }
    if names := [name for name, is_set in refused.items() if is_set]:
        raise MakegptError(f"{path}: {names[0]} is not supported")
    end = option(trainer, 42, 2)
    return SentencePieceTokenizer(
        ALGORITHMS[algorithm - 1],
        [option(piece, 1, b"").decode("utf-8") for piece in pieces],
        [struct.unpack("<f", option(piece, 2, bytes(4)))[0] for piece in pieces],
        types,
        unknown=types.index(UNKNOWN) if UNKNOWN in types else None,
        endoftext=end if end < len(types) and types[end] == CONTROL else None,
        add_dummy_prefix=bool(option(normalizer, 3, 1)),
        remove_extra_whitespaces=bool(option(normalizer, 4, 1)),
        charsmap=option(normalizer, 2, b""),
    )
