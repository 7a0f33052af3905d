"""Text, bytes and JSON files, written atomically and read back, and their hashes."""

import hashlib
import json
from pathlib import Path
from typing import Any, Iterable

from lib.artifact.files import write_file
from lib.artifact.strict_json import load_json
from lib.errors import MakegptError


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(data: Any) -> str:
    """`data` as JSON, the same text for the same content: keys sorted, no spaces."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def json_digest(data: Any) -> str:
    """SHA-256 of plain data's canonical JSON."""
    return hashlib.sha256(canonical_json(data).encode()).hexdigest()


def write_text(path: Path, text: str | Iterable[str]) -> None:
    """Write `text`, whole or in pieces, as UTF-8 with its newlines unchanged; see `files.write_file`.

    A surrogate (from a file name that is not UTF-8) is written as an escape, which JSON reads back.
    """
    pieces = [text] if isinstance(text, str) else text
    write_file(path, (piece.encode("utf-8", "backslashreplace") for piece in pieces))


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content`; see `files.write_file`."""
    write_file(path, [content])


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; MakegptError if it is missing or damaged."""
    try:
        return load_json(path)
    except FileNotFoundError:
        raise MakegptError(f"{path} is missing") from None
    except ValueError as error:
        raise MakegptError(f"{path} is damaged: {error}; make the folder {path.parent} again") from None
