"""JSON Lines files that grow during a training, and can be truncated to an earlier size."""

import json
from pathlib import Path
from typing import Any, TypeVar

from lib.artifact.files import fsync_path, naming_path
from lib.artifact.record import RecordError, from_json, to_json
from lib.artifact.strict_json import load_json_lines
from lib.errors import MakegptError

T = TypeVar("T")


def read_lines(path: Path, kind: type[T]) -> list[T]:
    """The lines of the file at `path`, each the dataclass `kind`.

    FileNotFoundError if there is no file; ValueError names the line and the field that is wrong.
    """
    records = []
    for number, data in load_json_lines(path):
        try:
            records.append(from_json(kind, data))
        except RecordError as error:
            raise ValueError(f"line {number}: {error}") from None
    return records


def append_line(path: Path, line: Any) -> None:
    """Add `line`, a dataclass, to the file at `path`."""
    with naming_path(path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(to_json(line), allow_nan=False) + "\n")


def flushed_size(path: Path) -> int:
    """The size of the file, flushed to the disk; 0 if it does not exist."""
    if not path.exists():
        return 0
    fsync_path(path)
    return path.stat().st_size


def truncate_lines(path: Path, size: int) -> None:
    """Truncate the file to its first `size` bytes, or remove it if that is 0; MakegptError if it is shorter."""
    if size == 0:
        path.unlink(missing_ok=True)
        return
    if not path.is_file() or path.stat().st_size < size:
        raise MakegptError(f"{path} is shorter than when the state was saved")
    with naming_path(path), open(path, "r+b") as file:
        file.truncate(size)
