"""Artifacts: files and folders that are complete or not there, and know where they came from.

A file is written beside its place and moved in; so is a folder, with its `manifest.json` inside. The
manifest tells the stage, its parameters, its inputs and outputs with their SHA-256, the versions and
the command, so that from any figure one can walk back to the bytes of the text.
"""

import hashlib
import json
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterable, Iterator

from lib import fields, json_reader
from lib.errors import MakegptError, UsageError

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
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; move it there when the block ends well, else remove it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    beside = _beside(path)
    try:
        yield beside
        beside.chmod(0o666 & ~_umask())  # some writers make files for their owner alone
        _sync(beside)
        os.replace(beside, path)
        _sync(path.parent)
    except OSError as error:
        raise _about(error, beside, path) from None
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path, kind: str) -> Iterator[Path]:
    """Yield a new folder beside `path` to fill; move it to `path` when the block ends well, else remove it.

    An older artifact of the same `kind` at `path` is replaced; any other folder with something in it is refused.
    """
    path = Path(path).resolve()
    check_replaceable(path, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    beside = _beside(path)
    beside.mkdir()
    try:
        yield beside
        for file in beside.iterdir():
            _sync(file)
        _sync(beside)
        if path.exists():
            old = path.with_name(beside.name + ".old")
            os.rename(path, old)
            os.rename(beside, path)
            shutil.rmtree(old)
        else:
            os.rename(beside, path)
        _sync(path.parent)
    except OSError as error:
        raise _about(error, beside, path) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` that is gone when the block ends; what a kill leaves, the next run removes."""
    parent = next(parent for parent in path.absolute().parents if parent.is_dir())
    folder = parent / (_beside(path).name + ".scratch")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _about(error: OSError, beside: Path, path: Path) -> OSError:
    """`error` as one about `path`, where it is about what was being written beside it."""
    if error.filename is None or str(error.filename).startswith(str(beside)):
        return OSError(error.errno, error.strerror or str(error), str(path))
    return error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_replaceable(path: Path, kind: str) -> None:
    """Refuse to write an artifact over a file, or over a folder that is not an artifact of this `kind`."""
    if path.is_dir() and not all(_LEFT_BY_US.fullmatch(entry.name) for entry in path.iterdir()):
        try:
            found = read_manifest(path, None)["artifact"]
        except MakegptError:
            found = None
        if found != kind:
            damaged = f", or its {MANIFEST} is damaged" if (path / MANIFEST).exists() else ""
            what = f"holds {_article(found)}" if found else f"is not empty and not made by this program{damaged}"
            raise UsageError(f"{path} {what}; choose another folder for {_article(kind)}")
    elif path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file; {_article(kind)} needs a folder")


#: How a name beside its place ends: the process that writes it, and what it is besides the thing itself.
_PART = r"\.(\d+)\.part(\.old|\.scratch)?"

#: What a process killed at its very beginning may leave in a folder.
_LEFT_BY_US = re.compile(rf"\.lock|\..+{_PART}")


def _article(kind: str) -> str:
    return {"tokens": "tokens", "dataset": "a dataset", "run": "a run", "export": "an export"}.get(kind, f"a {kind!r}")


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes left beside `path`."""
    ours = re.compile(rf"\.{re.escape(path.name)}{_PART}")
    for entry in path.parent.iterdir():
        left = ours.fullmatch(entry.name)
        if left and (not _alive(int(left[1])) or (int(left[1]) == os.getpid() and left[2] != ".scratch")):
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _sync(path: Path) -> None:
    """Have the disk hold what was written, so that a power cut cannot leave a moved but empty file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str | Iterable[str]) -> None:
    """Write `text`, whole or in pieces, as UTF-8 and with its newlines as they are; the file is there when all of it is.

    What no Unicode is (a part of a file's name, say) is written as an escape, which JSON reads back.
    """
    with replacing(path) as beside, beside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        file.writelines([text] if isinstance(text, str) else text)


def write_json(path: Path, data: Any) -> None:
    """Write `data` whole, as indented JSON."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; MakegptError where it is missing or damaged."""
    try:
        return json_reader.load(path)
    except FileNotFoundError:
        raise MakegptError(f"{path} is missing") from None
    except ValueError as error:
        raise MakegptError(f"{path} is damaged: {error}; make the folder {path.parent} again") from None


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
    if (problem := _problem(found)) is not None:
        raise MakegptError(f"{folder / MANIFEST} is damaged: {problem}; make the folder again")
    if kind is not None and found["artifact"] != kind:
        if (found["artifact"], kind) == ("export", "run"):
            again = f"make one of it with `import-weights {folder} -o RUN`"
        raise MakegptError(f"{folder} holds {_article(found['artifact'])}, not {needed}: {again}")
    return found


def _problem(found: Any) -> str | None:
    """Why `found` is no manifest that its readers can rely on; None where it is one."""
    if not isinstance(found, dict) or found.get("artifact") not in list(MAKERS):
        return "it names no artifact"
    if (place := fields.damaged(found, _MANIFEST)) is not None:
        return f"{place} is missing or not as it was written"
    if odd := [name for name in found["outputs"] if Path(name).name != name or name in ("", "..") or "\0" in name]:
        return f"it lists {odd[0]!r}, which is no file of this folder"
    if any("\0" in name for name in found["inputs"]) or (found["artifact"] == "dataset" and not found["inputs"]):
        return "it does not say what it was made from"
    return None


#: What is relied on in every manifest. A name or a command may hold bytes that are no UTF-8, as escapes.
_MANIFEST: fields.Fields = {
    "parameters": dict,
    "inputs": {"*": dict},
    "outputs": {"*": {"bytes": fields.COUNT, "sha256": str}},
    "facts": dict,
    "versions?": dict,
    "sessions?": [dict],
}


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
