"""A folder that one process at a time works in; the lock dies with the process."""

import os
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from filelock import lock_descriptor

from lib.artifact.files import REFUSALS, follow_links, naming_path
from lib.errors import MakegptError

LOCK_FILE = ".lock"


@contextmanager
def hold_lock(folder: Path) -> Iterator[str | None]:
    """Lock `folder`, which is made where it is missing, for a training; MakegptError where one is at work in it already.

    Yields None, or what to say where the file system has no locks: then nothing keeps others out, and the work goes on.
    """
    follow_links(folder).mkdir(parents=True, exist_ok=True)
    with naming_path(folder), open(folder / LOCK_FILE, "a+b", buffering=0) as file:
        notice = None
        try:
            free = lock_descriptor(file.fileno(), blocking=False)
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            free = True
            notice = f"{folder} cannot be locked here ({error.strerror}); start no other `train` in it before this one ends"
        if not free:
            file.seek(1)  # Windows lets nobody else read the first byte, which is the one that is locked
            owner = file.read().decode("ascii", "replace").strip()
            raise MakegptError(
                f"{folder} is being trained by another `train` (process {owner}); wait for it, or choose another -o"
            )
        file.truncate(0)
        file.write(b" %d" % os.getpid())
        yield notice
