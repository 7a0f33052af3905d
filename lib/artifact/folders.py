"""Folders that are complete or not there: written beside their place and moved in, an older artifact of their kind replaced.

A folder that cannot be moved, such as a mount point, is filled itself, its manifest last.
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
    """Yield a new folder to fill; move it to `path` when the block ends well, else remove it.

    An older artifact of the same `kind` at `path` is replaced; any other folder with something in it is refused. A folder
    that cannot be moved, such as a mount point, is filled itself, its manifest last.
    """
    path = Path(path)
    check_replaceable(path, kind)
    real = follow_links(path)
    _check_nothing_is_lost(path, real, kind)
    place = _workplace(real)
    beside = temporary_path(real, place)
    try:
        with naming_path(path, beside, real):
            place.mkdir(parents=True, exist_ok=True)
            remove_leftovers(real, place)
            beside.mkdir()
            mode = beside.stat().st_mode & 0o7777
            yield beside
            for file in beside.iterdir():
                fsync_path(file)
            copy_mode(beside, real, mode)
            fsync_path(beside)
            check_replaceable(path, kind)
            if place == real:
                _fill(beside, real, kind)
            else:
                try:
                    _move(beside, real, kind)
                except OSError as error:
                    if error.errno not in IMMOVABLE or not real.is_dir():
                        raise
                    _fill(beside, real, kind)
            fsync_path(place)
    finally:
        remove_path(beside)


def _workplace(folder: Path) -> Path:
    """Where what is to become `folder` is written: beside it, or inside where it cannot be moved."""
    if folder.is_dir() and (os.path.ismount(folder) or not may_write_in(folder.parent)):
        return folder
    return folder.parent


def _move(beside: Path, path: Path, kind: str) -> None:
    """Put the folder `beside` at `path`; what another command of the same kind has put there in the meantime is replaced."""
    old = beside.with_name(beside.name + ".old")
    while not swap_paths(beside, path):  # in one moment; where there is nothing yet, or no such call, in two
        with suppress(FileNotFoundError):
            os.rename(path, old)
        try:
            os.rename(beside, path)
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


def _fill(beside: Path, path: Path, kind: str) -> None:
    """Put what is in `beside` into the folder `path`: the old manifest goes first, then the old files, the new one comes last.

    In between a file says that the folder is being filled, so that the same command can do it again after a kill.
    """
    if beside.parent != path:  # on another file system, it may be: all of it over there before anything is removed
        inside = temporary_path(path, path)
        try:
            inside.mkdir()
            for entry in beside.iterdir():
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
    for entry in sorted(beside.iterdir(), key=lambda entry: entry.name == MANIFEST):
        if entry.name == MANIFEST:
            fsync_path(path)
        fsync_path(entry)
        os.replace(entry, path / entry.name)
    (path / _FILLING).unlink()


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder near `path` that is gone when the block ends; what a kill leaves, the next run removes."""
    real = follow_links(path)
    place = _workplace(real)
    place = next(folder for folder in (place, *place.parents) if folder.is_dir())
    folder = place / (temporary_path(real).name + ".scratch")
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
    if real.is_dir() and not all(_LEFT_BY_US.fullmatch(entry.name) for entry in real.iterdir()):
        found = _kind_of(real)
        if found != kind:
            damaged = f", or its {MANIFEST} is damaged" if (real / MANIFEST).exists() else ""
            what = f"holds {with_article(found)}" if found else f"is not empty and not made by this program{damaged}"
            raise UsageError(f"{path} {what}; choose another folder for {with_article(kind)}")
    elif real.exists() and not real.is_dir():
        what = "a file" if real.is_file() else "no folder"
        raise UsageError(f"{path} is {what}; {with_article(kind)} needs a folder")


def _check_nothing_is_lost(path: Path, real: Path, kind: str) -> None:
    """Refuse to replace an artifact whose folder holds what neither its stage nor a later one has put there."""
    if not (real / MANIFEST).is_file():
        return
    ours = {MANIFEST, _FILLING, *read_manifest(real, kind)["outputs"], *_MADE_LATER.get(kind, ())}
    for entry in sorted(real.iterdir()):
        if entry.name not in ours and not _LEFT_BY_US.fullmatch(entry.name):
            raise UsageError(
                f"{path} holds {entry.name}, which is no part of {with_article(kind)} and would be lost; move it elsewhere, "
                "or choose another folder"
            )


#: What later stages put into a run's folder, by default.
_MADE_LATER = {"run": ("evaluation.json", "sample.txt", "loss.png", "report.html")}


def _kind_of(folder: Path) -> str | None:
    """The kind of the artifact in `folder`, or of the one that it was being filled with; None where there is none."""
    try:
        return str(read_manifest(folder, None)["artifact"])
    except OtherFormat:
        raise
    except MakegptError:
        pass
    filling = folder / _FILLING
    return filling.read_text(encoding="utf-8") if filling.is_file() and not (folder / MANIFEST).exists() else None


#: In a folder that is being filled itself: the kind of what it will hold.
_FILLING = ".filling"

#: What may lie in a folder that holds nothing yet: what a process left that was killed at its very beginning, and a disk's own.
_LEFT_BY_US = re.compile(rf"\.lock|\..+{PART}|lost\+found")


def _in_use(name: str) -> bool:
    """Whether an entry of a folder that is being filled is not ours to remove: what a process is writing, a disk's own."""
    part = re.fullmatch(rf"\..+{PART}", name)
    return name == "lost+found" or (part is not None and is_process_alive(int(part[1])))
