"""Locking a folder for one process; the lock ends with the process."""

import os
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from filelock import lock_descriptor

from lib.artifact.files import UNSUPPORTED, follow_links, naming_path
from lib.errors import MakegptError

LOCK_FILE = ".lock"


@contextmanager
def hold_lock(folder: Path) -> Iterator[str | None]:
    """Lock `folder` for a training, and create it if needed; MakegptError if another training holds the lock.

    Yields None, or a warning if the file system has no locks: then nothing keeps others out.
    """
    follow_links(folder).mkdir(parents=True, exist_ok=True)
    with naming_path(folder), open(folder / LOCK_FILE, "a+b", buffering=0) as file:
        warning = None
        try:
            acquired = lock_descriptor(file.fileno(), blocking=False)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            acquired = True
            warning = (
                f"{folder} cannot be locked here ({error.strerror}); do not start another `train` in it before this one ends"
            )
        if not acquired:
            file.seek(1)  # on Windows nobody else can read the first byte, the one that is locked
            owner = file.read().decode("ascii", "replace").strip()
            raise MakegptError(
                f"{folder} is being trained by another `train` (process {owner}); wait for it, or choose another -o"
            )
        file.truncate(0)
        file.write(b" %d" % os.getpid())
        yield warning
