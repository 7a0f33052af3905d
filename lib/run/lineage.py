"""What an artifact is, and its way back to the text it came from."""

from pathlib import Path
from typing import Any, NamedTuple

from lib.artifact.manifest import MANIFEST, Manifest, identity_of, read_manifest, verify_files
from lib.artifact.record import to_json
from lib.artifact.tensors import load_tensors
from lib.data.shards import open_shard
from lib.errors import MakegptError, printable
from lib.run.folder import MODEL_FILE, sessions_of
from lib.tokenizer.registry import TOKENIZER_FILE, load_tokenizer


class Lineage(NamedTuple):
    """The way back that led to an artifact: the folders made from it, and in how many ways it may continue so far."""

    folders: tuple[Path, ...] = ()
    branches: int = 1

    def on(self, folder: Path, manifest: Manifest, before: Path) -> "Lineage":
        """The way on from `folder` to `before`, one of its inputs; MakegptError if it goes in a circle, or has no end."""
        folders = (*self.folders, folder.resolve())
        branches = self.branches * sum(entry.identity is not None for entry in manifest.inputs.values())
        if before.resolve() in folders:
            raise MakegptError(f"{before.resolve()} was made from itself, says its {MANIFEST}; it is damaged: make it again")
        if len(folders) > _LONGEST or branches > _WIDEST:
            raise MakegptError(f"{folders[0]} goes back over too many artifacts to follow; the {MANIFEST} of one is damaged")
        return Lineage(folders, branches)


_START = Lineage()
_LONGEST, _WIDEST = 100, 10_000  # artifacts in a row, and side by side


def describe_artifact(path: Path, made_into: Lineage = _START) -> dict[str, Any]:
    """The artifact at `path`, a folder or one of its files, as plain data: what it is, how it was made, from what.

    Raises MakegptError if nothing is there, or nothing of ours. `made_into`: the folders that were made from it.
    """
    if not path.exists():
        raise MakegptError(f"{path} does not exist")
    if path.is_dir():
        manifest = read_manifest(path, None)
        return _headline(path, manifest) | {
            "made_by": _made_by(path, manifest),
            "from": [_origin(path, manifest, name, made_into) for name in manifest.inputs],
        }
    if path.suffix == ".safetensors":
        return _tensors(path)
    if path.suffix == ".npy":
        ids = open_shard(path)
        return {"path": str(path), "is": "token shard", "tokens": len(ids), "dtype": str(ids.dtype), "first": ids[:8].tolist()}
    if path.name == TOKENIZER_FILE:
        tokenizer = load_tokenizer(path)
        return {
            "path": str(path),
            "is": "tokenizer",
            "kind": tokenizer.kind,
            "vocab_size": tokenizer.vocab_size,
            "lossless": tokenizer.lossless,
        }
    raise MakegptError(
        f"{path} is not an artifact: a folder with a {MANIFEST}, a .safetensors, a .npy or a {TOKENIZER_FILE} is expected"
    )


def _headline(path: Path, manifest: Manifest) -> dict[str, Any]:
    kind = manifest.artifact
    state = {}
    if kind == "run":
        state = {"finished": (path / MODEL_FILE).is_file()}
    return {"path": str(path), "is": kind, **state, **manifest.metadata, "files": sorted(manifest.outputs)}


def _made_by(path: Path, manifest: Manifest) -> dict[str, Any]:
    names = ("command", "started", "ended", "parameters", "seed", "device", "threads", "processes", "versions")
    sessions = {"sessions": to_json(sessions_of(path, manifest))} if manifest.sessions else {}
    saved = to_json(manifest)
    return {name: saved[name] for name in names if name in saved} | sessions


def _origin(folder: Path, manifest: Manifest, name: str, made_into: Lineage) -> dict[str, Any]:
    """One input of the artifact in `folder`: an artifact to be described in turn, or a text file."""
    path, entry = folder / name, manifest.inputs[name]
    if entry.identity is None:
        return {"path": name, "is": "text", **to_json(entry)}
    if not (path / MANIFEST).is_file():
        return {"path": str(path), "is": "an artifact that is no longer there", **to_json(entry)}
    changed = identity_of(read_manifest(path, None)) != entry.identity
    return describe_artifact(Path(path.resolve()), made_into.on(folder, manifest, path)) | (
        {"changed_since": True} if changed else {}
    )


def _tensors(path: Path) -> dict[str, Any]:
    tensors, metadata = load_tensors(path)
    numbers = sum(tensor.numel() for tensor in tensors.values())
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    return {"path": str(path), "is": "checkpoint", "numbers": numbers, "metadata": metadata, "tensors": shapes}


def verify_lineage(path: Path, made_into: Lineage = _START) -> tuple[list[Path], list[Path]]:
    """Check every file of the folder `path`, and of those it was made from, against its hash.

    Returns the folders that were checked, and those that are not where a manifest names them.
    """
    manifest = read_manifest(path, None)
    if not manifest.outputs:
        raise MakegptError(f"{path} is not finished: its {MANIFEST} lists no files yet")
    verify_files(path, manifest.outputs)
    checked, missing = [path], []
    for name, entry in manifest.inputs.items():
        if entry.identity is None:
            continue
        before = Path((path / name).resolve())
        if not (before / MANIFEST).is_file():
            missing.append(before)
        else:
            if identity_of(read_manifest(before, None)) != entry.identity:
                raise MakegptError(f"{before} has changed since {path} was made from it; make {path} again")
            also_checked, also_missing = verify_lineage(before, made_into.on(path, manifest, before))
            checked, missing = checked + also_checked, missing + also_missing
    return checked, missing


def lineage_lines(description: dict[str, Any], indent: int = 0) -> list[str]:
    """A description as indented `key: value` lines."""
    lines = []
    pad = "  " * indent
    for key, value in description.items():
        if isinstance(value, dict) and value:
            lines += [printable(f"{pad}{key}:"), *lineage_lines(value, indent + 1)]
        elif isinstance(value, list) and value and all(isinstance(item, dict) and item for item in value):
            lines.append(printable(f"{pad}{key}:"))
            for item in value:
                first, *rest = lineage_lines(item, indent + 2)
                lines += [f"{pad}  - {first.strip()}", *rest]
        else:
            lines.append(printable(f"{pad}{key}: {value}"))
    return lines
