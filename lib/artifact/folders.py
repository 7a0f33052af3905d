"""Writing folders atomically: a temporary folder is filled and renamed, and replaces an older artifact of the same kind.

A folder that cannot be renamed, such as a mount point, is filled in place, its manifest last.
"""

import errno
import os
import re
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator

from lib.artifact.files import (
    IMMOVABLE,
    PART,
    copy_mode,
    follow_links,
    fsync_path,
    is_process_alive,
    may_write_in,
    naming_path,
    remove_leftovers,
    remove_path,
    swap_paths,
    temporary_path,
)
from lib.artifact.io import write_text
from lib.artifact.manifest import MANIFEST, OtherFormat, read_manifest, with_article
from lib.errors import MakegptError, UsageError


@contextmanager
def replacing_folder(path: Path, kind: str) -> Iterator[Path]:
    """Yield a temporary folder to fill; rename it to `path` if the block succeeds, else remove it.

    An older artifact of the same `kind` at `path` is replaced; any other folder that is not empty is refused.
    """
    path = Path(path)
    check_replaceable(path, kind)
    real = follow_links(path)
    _check_nothing_is_lost(path, real, kind)
    parent = _work_folder(real)
    part = temporary_path(real, parent)
    try:
        with naming_path(path, part, real):
            parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(real, parent)
            part.mkdir()
            mode = part.stat().st_mode & 0o7777
            yield part
            for file in part.iterdir():
                fsync_path(file)
            copy_mode(part, real, mode)
            fsync_path(part)
            check_replaceable(path, kind)
            if parent == real:
                _fill(part, real, kind)
            else:
                try:
                    _move(part, real, kind)
                except OSError as error:
                    if error.errno not in IMMOVABLE or not real.is_dir():
                        raise
                    _fill(part, real, kind)
            fsync_path(parent)
    finally:
        remove_path(part)


def _work_folder(folder: Path) -> Path:
    """Where the future `folder` is written: in its parent, or inside it if it cannot be renamed."""
    if folder.is_dir() and (os.path.ismount(folder) or not may_write_in(folder.parent)):
        return folder
    return folder.parent


def _move(part: Path, path: Path, kind: str) -> None:
    """Rename the folder `part` to `path`, and replace what another command of the same kind wrote there in the meantime."""
    old = part.with_name(part.name + ".old")
    while not swap_paths(part, path):  # atomic; two renames if `path` does not exist or the system has no such call
        with suppress(FileNotFoundError):
            os.rename(path, old)
        try:
            os.rename(part, path)
        except BaseException as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                remove_path(old)
                check_replaceable(path, kind)
                continue
            with suppress(OSError):
                os.rename(old, path)
            raise
        remove_path(old)
        return


def _fill(part: Path, path: Path, kind: str) -> None:
    """Move the content of `part` into the folder `path`: the old manifest is removed first, the new one comes last.

    In between, a marker file says that the folder is being filled, so that the same command can repeat it after a kill.
    """
    if part.parent != path:  # perhaps on another file system: copy everything before anything is removed
        inside = temporary_path(path, path)
        try:
            inside.mkdir()
            for entry in part.iterdir():
                shutil.copyfile(entry, inside / entry.name)
            _fill(inside, path, kind)
        finally:
            remove_path(inside)
        return
    write_text(path / _FILLING, kind)
    (path / MANIFEST).unlink(missing_ok=True)
    fsync_path(path)
    for entry in path.iterdir():
        if entry.name != _FILLING and not _in_use(entry.name):
            remove_path(entry)
    for entry in sorted(part.iterdir(), key=lambda entry: entry.name == MANIFEST):
        if entry.name == MANIFEST:
            fsync_path(path)
        fsync_path(entry)
        os.replace(entry, path / entry.name)
    (path / _FILLING).unlink()


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder near `path` that is removed after the block; after a kill, the next command removes it."""
    real = follow_links(path)
    parent = _work_folder(real)
    parent = next(folder for folder in (parent, *parent.parents) if folder.is_dir())
    folder = parent / (temporary_path(real).name + ".scratch")
    try:
        with naming_path(path, folder):
            remove_path(folder)
            folder.mkdir()
            yield folder
    finally:
        remove_path(folder)


def check_replaceable(path: Path, kind: str) -> None:
    """Refuse to write an artifact over a file, or over a folder that is not an artifact of this `kind`."""
    real = follow_links(path)
    if real.is_dir() and not all(_LEFTOVER.fullmatch(entry.name) for entry in real.iterdir()):
        existing = _kind_of(real)
        if existing != kind:
            hint = f", or its {MANIFEST} is damaged" if (real / MANIFEST).exists() else ""
            problem = f"holds {with_article(existing)}" if existing else f"is not empty and not made by this program{hint}"
            raise UsageError(f"{path} {problem}; choose another folder for {with_article(kind)}")
    elif real.exists() and not real.is_dir():
        what = "a file" if real.is_file() else "not a folder"
        raise UsageError(f"{path} is {what}; choose a folder for {with_article(kind)}")


def _check_nothing_is_lost(path: Path, real: Path, kind: str) -> None:
    """Refuse to replace an artifact whose folder has files that neither its stage nor a later one wrote."""
    if not (real / MANIFEST).is_file():
        return
    known = {MANIFEST, _FILLING, *read_manifest(real, kind).outputs, *_LATER_OUTPUTS.get(kind, ())}
    for entry in sorted(real.iterdir()):
        if entry.name not in known and not _LEFTOVER.fullmatch(entry.name):
            raise UsageError(
                f"{path} holds {entry.name}, which is not part of {with_article(kind)} and would be lost; move it elsewhere, "
                "or choose another folder"
            )


#: Files that later stages write into a run's folder by default.
_LATER_OUTPUTS = {"run": ("evaluation.json", "sample.txt", "loss.png", "report.html")}


def _kind_of(folder: Path) -> str | None:
    """The kind of the artifact in `folder`, or of the one it was being filled with; None if there is none."""
    try:
        return read_manifest(folder, None).artifact
    except OtherFormat:
        raise
    except MakegptError:
        pass
    filling = folder / _FILLING
    return filling.read_text(encoding="utf-8") if filling.is_file() and not (folder / MANIFEST).exists() else None


#: The marker in a folder that is being filled in place: it holds the kind of the artifact.
_FILLING = ".filling"

#: Names that count as nothing in a folder: what a process left that was killed at its start, and a file system's own.
_LEFTOVER = re.compile(rf"\.lock|\..+{PART}|lost\+found")


def _in_use(name: str) -> bool:
    """Whether an entry of a folder that is filled in place must stay: a process is writing it, or the file system owns it."""
    match = re.fullmatch(rf"\..+{PART}", name)
    return name == "lost+found" or (match is not None and is_process_alive(int(match[1])))
