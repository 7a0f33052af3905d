"""SHA-256 of files that were hashed before: make asks for many at each start, and most have not changed.

A file counts as unchanged as in git: by size, inode, and the times of its last change of content and of status.
"""

from contextlib import suppress
from pathlib import Path

from lib.artifact.io import read_json, sha256_of, write_json
from lib.errors import MakegptError


class Hashes:
    """A file's SHA-256 by its path; `file` keeps them from one process to the next."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            known = read_json(file)
        except (MakegptError, OSError):
            known = {}
        self._known: dict[str, list[object]] = known if isinstance(known, dict) else {}
        self._changed = False

    def __call__(self, path: Path) -> str:
        """The SHA-256 of `path`; OSError if it cannot be read."""
        stat = path.stat()
        state = [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
        known = self._known.get(str(path))
        if not (isinstance(known, list) and len(known) == 5 and known[:4] == state and isinstance(known[4], str)):
            known = self._known[str(path)] = [*state, sha256_of(path)]
            self._changed = True
        return str(known[4])

    def save(self) -> None:
        """Remember them if that can be done: on a full disk the files are hashed again."""
        if self._changed:
            with suppress(OSError):
                write_json(self.file, {name: known for name, known in self._known.items() if Path(name).exists()})
