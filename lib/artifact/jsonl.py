"""Files of JSON lines that grow while something goes on, and can be cut back to where they once were."""

import json
from pathlib import Path
from typing import Any

from lib.artifact.files import fsync_path, naming_path
from lib.errors import MakegptError


def append_line(path: Path, line: Any) -> None:
    """Add `line`, plain data, to the file at `path`."""
    with naming_path(path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line, allow_nan=False) + "\n")


def flushed_size(path: Path) -> int:
    """The bytes of the file, all of them on the disk; 0 where there is none."""
    if not path.exists():
        return 0
    fsync_path(path)
    return path.stat().st_size


def truncate_lines(path: Path, size: int) -> None:
    """Leave the first `size` bytes of the file, and no file where that is none; MakegptError where it has fewer."""
    if size == 0:
        path.unlink(missing_ok=True)
        return
    if not path.is_file() or path.stat().st_size < size:
        raise MakegptError(f"{path} is shorter than when the state was saved")
    with naming_path(path), open(path, "r+b") as file:
        file.truncate(size)
