"""Artifacts: files and folders that are complete or not there, and know where they came from.

A folder is written beside its place and moved in, with its `manifest.json` inside (files: `lib.files`). The
manifest tells the stage, its parameters, its inputs and outputs with their SHA-256, the versions and
the command, so that from any figure one can walk back to the bytes of the text.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterable, Iterator

from lib import files
from lib.errors import MakegptError, UsageError
from lib.files import replacing as replacing

Manifest = dict[str, Any]
MANIFEST = "manifest.json"

#: What makes an artifact of each kind, for errors that say what to run.
MAKERS = {
    "tokens": "tokenize FILE -o",
    "dataset": "build-dataset TOKENS -o",
    "run": "train DATASET -o",
    "export": "export-weights RUN -o",
}


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical(data: Any) -> str:
    """`data` as JSON, the same text for the same content: keys sorted, no spaces."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(data: Any) -> str:
    """SHA-256 of plain data's canonical JSON."""
    return hashlib.sha256(canonical(data).encode()).hexdigest()


@contextmanager
def replacing_folder(path: Path, kind: str) -> Iterator[Path]:
    """Yield a new folder to fill; move it to `path` when the block ends well, else remove it.

    An older artifact of the same `kind` at `path` is replaced; any other folder with something in it is refused. A folder
    that cannot be moved, such as a mount point, is filled itself, its manifest last.
    """
    path = Path(path)
    check_replaceable(path, kind)
    real = files.behind(path)
    place = _workplace(real)
    beside = files.beside_of(real, place)
    try:
        with files.about(path, beside, real):
            place.mkdir(parents=True, exist_ok=True)
            files.remove_leftovers(real, place)
            beside.mkdir()
            mode = beside.stat().st_mode & 0o7777
            yield beside
            for file in beside.iterdir():
                files.sync(file)
            files.make_like(beside, real, mode)
            files.sync(beside)
            check_replaceable(path, kind)
            if place == real:
                _fill(beside, real, kind)
            else:
                try:
                    _move(beside, real, kind)
                except OSError as error:
                    if error.errno not in files.IMMOVABLE or not real.is_dir():
                        raise
                    _fill(beside, real, kind)
            files.sync(place)
    finally:
        files.remove(beside)


def _workplace(folder: Path) -> Path:
    """Where what is to become `folder` is written: beside it, or inside where it cannot be moved."""
    if folder.is_dir() and (os.path.ismount(folder) or not files.may_write_in(folder.parent)):
        return folder
    return folder.parent


def _move(beside: Path, path: Path, kind: str) -> None:
    """Put the folder `beside` at `path`; what another command of the same kind has put there in the meantime is replaced."""
    old = beside.with_name(beside.name + ".old")
    while not files.exchange(beside, path):  # in one moment; where there is nothing yet, or no such call, in two
        with suppress(FileNotFoundError):
            os.rename(path, old)
        try:
            os.rename(beside, path)
        except BaseException as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                files.remove(old)
                check_replaceable(path, kind)
                continue
            with suppress(OSError):
                os.rename(old, path)
            raise
        files.remove(old)
        return


def _fill(beside: Path, path: Path, kind: str) -> None:
    """Put what is in `beside` into the folder `path`: the old manifest goes first, then the old files, the new one comes last.

    In between a file says that the folder is being filled, so that the same command can do it again after a kill.
    """
    if beside.parent != path:  # on another file system, it may be: all of it over there before anything is removed
        inside = files.beside_of(path, path)
        try:
            inside.mkdir()
            for entry in beside.iterdir():
                shutil.copyfile(entry, inside / entry.name)
            _fill(inside, path, kind)
        finally:
            files.remove(inside)
        return
    write_text(path / _FILLING, kind)
    (path / MANIFEST).unlink(missing_ok=True)
    files.sync(path)
    for entry in path.iterdir():
        if entry.name != _FILLING and not _in_use(entry.name):
            files.remove(entry)
    for entry in sorted(beside.iterdir(), key=lambda entry: entry.name == MANIFEST):
        if entry.name == MANIFEST:
            files.sync(path)
        files.sync(entry)
        os.replace(entry, path / entry.name)
    (path / _FILLING).unlink()


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder near `path` that is gone when the block ends; what a kill leaves, the next run removes."""
    real = files.behind(path)
    place = _workplace(real)
    place = next(folder for folder in (place, *place.parents) if folder.is_dir())
    folder = place / (files.beside_of(real).name + ".scratch")
    try:
        with files.about(path, folder):
            files.remove(folder)
            folder.mkdir()
            yield folder
    finally:
        files.remove(folder)


def check_replaceable(path: Path, kind: str) -> None:
    """Refuse to write an artifact over a file, or over a folder that is not an artifact of this `kind`."""
    real = files.behind(path)
    if real.is_dir() and not all(_LEFT_BY_US.fullmatch(entry.name) for entry in real.iterdir()):
        found = _kind_of(real)
        if found != kind:
            damaged = f", or its {MANIFEST} is damaged" if (real / MANIFEST).exists() else ""
            what = f"holds {_article(found)}" if found else f"is not empty and not made by this program{damaged}"
            raise UsageError(f"{path} {what}; choose another folder for {_article(kind)}")
    elif real.exists() and not real.is_dir():
        what = "a file" if real.is_file() else "no folder"
        raise UsageError(f"{path} is {what}; {_article(kind)} needs a folder")


def _kind_of(folder: Path) -> str | None:
    """The kind of the artifact in `folder`, or of the one that it was being filled with; None where there is none."""
    with suppress(MakegptError):
        return str(read_manifest(folder, None)["artifact"])
    filling = folder / _FILLING
    return filling.read_text(encoding="utf-8") if filling.is_file() and not (folder / MANIFEST).exists() else None


#: In a folder that is being filled itself: the kind of what it will hold.
_FILLING = ".filling"

#: What may lie in a folder that holds nothing yet: what a process left that was killed at its very beginning, and a disk's own.
_LEFT_BY_US = re.compile(rf"\.lock|\..+{files.PART}|lost\+found")


def _in_use(name: str) -> bool:
    """Whether an entry of a folder that is being filled is not ours to remove: what a process is writing, a disk's own."""
    part = re.fullmatch(rf"\..+{files.PART}", name)
    return name == "lost+found" or (part is not None and files.alive(int(part[1])))


def _article(kind: str) -> str:
    return {"tokens": "tokens", "dataset": "a dataset", "run": "a run", "export": "an export"}.get(kind, f"a {kind!r}")


def write_text(path: Path, text: str | Iterable[str]) -> None:
    """Write `text`, whole or in pieces, as UTF-8 and with its newlines as they are; see `files.write`.

    What no Unicode is (a part of a file's name, say) is written as an escape, which JSON reads back.
    """
    pieces = [text] if isinstance(text, str) else text
    files.write(path, (piece.encode("utf-8", "backslashreplace") for piece in pieces))


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content`; see `files.write`."""
    files.write(path, [content])


def write_json(path: Path, data: Any) -> None:
    """Write `data` whole, as indented JSON."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; MakegptError where it is missing or damaged."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise MakegptError(f"{path} is missing") from None
    except ValueError:
        raise MakegptError(f"{path} is damaged: not valid JSON; make the folder {path.parent} again") from None


def files_of(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of the named files in `folder`, as a manifest lists its outputs."""
    return {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in names}


def read_manifest(folder: Path, kind: str | None) -> Manifest:
    """Read `folder`'s manifest and check that it is an artifact of `kind` (None: any)."""
    folder = Path(folder)
    needed = _article(kind) if kind else "an artifact"
    again = f"make one with `{MAKERS[kind]} {folder}`" if kind in MAKERS else "see `inspect --help`"
    if not folder.exists():
        raise MakegptError(f"{folder} does not exist; {needed} is expected there: {again}")
    if not folder.is_dir():
        raise MakegptError(f"{folder} is a file; a folder with {needed} is expected: {again}")
    if not (folder / MANIFEST).is_file():
        raise MakegptError(f"{folder} has no {MANIFEST}, so it is not {needed}: {again}")
    found = read_json(folder / MANIFEST)
    if not _is_manifest(found):
        raise MakegptError(f"{folder / MANIFEST} is damaged: it names no artifact; make the folder again")
    if kind is not None and found["artifact"] != kind:
        if (found["artifact"], kind) == ("export", "run"):
            again = f"make one of it with `import-weights {folder} -o RUN`"
        raise MakegptError(f"{folder} holds {_article(found['artifact'])}, not {needed}: {again}")
    return found


def _is_manifest(found: Any) -> bool:
    if not isinstance(found, dict) or found.get("artifact") not in list(MAKERS):
        return False
    return all(isinstance(found.get(key), dict) for key in ("parameters", "inputs", "outputs", "facts"))


def verify(folder: Path, listed: dict[str, dict[str, Any]]) -> None:
    """Check that the `listed` files of `folder` have the size and SHA-256 their manifest gives; name the first that has not."""
    for name, expected in listed.items():
        path = folder / name
        if not path.is_file():
            raise MakegptError(f"{path} is missing, though {MANIFEST} lists it; make the folder {folder} again")
        if (size := path.stat().st_size) != expected["bytes"]:
            raise MakegptError(
                f"{path} is damaged: {size} bytes, {expected['bytes']} were written; make the folder {folder} again"
            )
        if sha256(path) != expected["sha256"]:
            raise MakegptError(f"{path} is damaged: its SHA-256 is not the one in {MANIFEST}; make the folder {folder} again")


def identity(found: Manifest) -> str:
    """A hash of what an artifact holds (its outputs), the same wherever and whenever it was made."""
    return digest({name: file["sha256"] for name, file in found["outputs"].items()})
