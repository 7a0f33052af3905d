"""Manifests: what an artifact is, and what it was made from.

An artifact is a folder with a `manifest.json`, which names the stage, its parameters, its inputs and outputs with their
SHA-256, the versions and the command: every figure can be traced back to the bytes of its text. `lib.artifact.folders` writes
such folders, `lib.artifact.files` single files.
"""

import os
import re
from pathlib import Path
from typing import Any, Iterable

from lib.artifact.io import json_digest, read_json, sha256_of
from lib.artifact.json_shape import COUNT, JsonShape, first_mismatch
from lib.artifact.provenance import FORMAT
from lib.errors import MakegptError, UsageError

Manifest = dict[str, Any]
MANIFEST = "manifest.json"

#: The command that makes an artifact of each kind, for errors.
MAKERS = {
    "tokens": "tokenize FILE -o",
    "dataset": "build-dataset TOKENS -o",
    "run": "train DATASET -o",
    "export": "export-weights RUN -o",
}

#: Files of an artifact that stages read back, unlike those made from it later (evaluation.json, sample.txt, …).
_PARTS = re.compile(r"manifest\.json|.*\.(safetensors|npy|jsonl)|(config|tokenizer|dataset|state)\.json")


class OtherFormat(MakegptError):
    """An artifact in the format of another version, which this one cannot read."""


def check_output_file(path: Path, sources: Iterable[Path]) -> None:
    """Refuse to overwrite one of the `sources` of the same command, or a part of an artifact."""
    if not path.is_file():
        return
    for source in sources:
        if source.exists() and path.samefile(source):
            raise UsageError(f"{path} is an input of this command; choose another output")
    folder = path.resolve().parent
    for owner in (folder, folder.parent):
        if (owner / MANIFEST).is_file() and _PARTS.fullmatch(path.resolve().name):
            raise UsageError(f"{path} is part of the artifact {owner}; choose another output")


def with_article(kind: str) -> str:
    """The kind of an artifact with its article."""
    return {"tokens": "tokens", "dataset": "a dataset", "run": "a run", "export": "an export"}.get(kind, f"a {kind!r}")


def relative_place(target: Path, folder: Path) -> str:
    """`target` relative to `folder`, as a manifest names an input, so that both can be moved together."""
    return os.path.relpath(target.resolve(), folder.resolve())


def input_folder(folder: Path, manifest: Manifest, advice: str) -> Path:
    """The artifact that the one in `folder` was made from, its first input; MakegptError with the `advice` if that has moved or
    changed.
    """
    if not manifest["inputs"]:
        raise MakegptError(f"{folder} does not say what it was made from; {advice}")
    name, entry = next(iter(manifest["inputs"].items()))
    source = (folder / name).resolve()
    kind = _INPUT_KINDS.get(manifest["artifact"], "artifact")
    if not (source / MANIFEST).is_file():
        raise MakegptError(f"{folder} was made from {with_article(kind)} at {source}, which does not exist; {advice}")
    if identity_of(read_manifest(source, None)) != entry.get("identity"):
        raise MakegptError(f"{source} has changed since {folder} was made from it; {advice}")
    return source


#: A kind of artifact -> the kind of its input.
_INPUT_KINDS = {"dataset": "tokens", "run": "dataset", "export": "run"}


def describe_files(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of the named files in `folder`, as a manifest lists its outputs."""
    return {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in names}


def read_manifest(folder: Path, kind: str | None) -> Manifest:
    """Read `folder`'s manifest and check that it is an artifact of `kind` (None: any)."""
    folder = Path(folder)
    expected = with_article(kind) if kind else "an artifact"
    advice = f"make one with `{MAKERS[kind]} {folder}`" if kind in MAKERS else "see `inspect --help`"
    if not folder.exists():
        raise MakegptError(f"{folder} does not exist; {expected} is expected there: {advice}")
    if not folder.is_dir():
        raise MakegptError(f"{folder} is a file; a folder with {expected} is expected: {advice}")
    if not (folder / MANIFEST).is_file():
        raise MakegptError(f"{folder} has no {MANIFEST}, so it is not {expected}: {advice}")
    manifest = read_json(folder / MANIFEST)
    default = 1 if isinstance(manifest, dict) and "facts" in manifest else FORMAT  # format 1 had no such key
    if isinstance(manifest, dict) and (number := manifest.get("format", default)) != FORMAT:
        what = with_article(manifest["artifact"]) if manifest.get("artifact") in list(MAKERS) else "an artifact"
        raise OtherFormat(
            f"{folder} holds {what} of format {number}, which this version does not read (it writes {FORMAT}); "
            f"remove the folder and make it again"
        )
    if (problem := _problem(manifest)) is not None:
        raise MakegptError(f"{folder / MANIFEST} is damaged: {problem}; make the folder again")
    if kind is not None and manifest["artifact"] != kind:
        if (manifest["artifact"], kind) == ("export", "run"):
            advice = f"make one of it with `import-weights {folder} -o RUN`"
        raise MakegptError(f"{folder} holds {with_article(manifest['artifact'])}, not {expected}: {advice}")
    return manifest


def _problem(manifest: Any) -> str | None:
    """Why `manifest` is not valid; None if it is."""
    if not isinstance(manifest, dict) or manifest.get("artifact") not in list(MAKERS):
        return "it names no kind of artifact"
    if (path := first_mismatch(manifest, _MANIFEST)) is not None:
        return f"{path} is missing or invalid"
    if odd := [name for name in manifest["outputs"] if Path(name).name != name or name in ("", "..") or "\0" in name]:
        return f"it lists {odd[0]!r}, which is not a file of this folder"
    if any("\0" in name for name in manifest["inputs"]) or (manifest["artifact"] == "dataset" and not manifest["inputs"]):
        return "it does not say what it was made from"
    return None


#: What every manifest must have. A name or a command may have bytes that are not UTF-8, as escapes.
_MANIFEST: JsonShape = {
    "parameters": dict,
    "inputs": {"*": dict},
    "outputs": {"*": {"bytes": COUNT, "sha256": str}},
    "metadata": dict,
    "versions?": dict,
    "sessions?": [{"from_step": COUNT, "to_step?": COUNT, "versions?": dict}],
}


def verify_files(folder: Path, listed: dict[str, dict[str, Any]]) -> None:
    """Check the size and SHA-256 of the `listed` files of `folder`; MakegptError names the first that differs."""
    for name, expected in listed.items():
        path = folder / name
        if not path.is_file():
            raise MakegptError(f"{path} is missing, but {MANIFEST} lists it; make the folder {folder} again")
        if (size := path.stat().st_size) != expected["bytes"]:
            raise MakegptError(
                f"{path} is damaged: it has {size} bytes, not {expected['bytes']}; make the folder {folder} again"
            )
        if sha256_of(path) != expected["sha256"]:
            raise MakegptError(f"{path} is damaged: its SHA-256 differs from {MANIFEST}; make the folder {folder} again")


def identity_of(manifest: Manifest) -> str:
    """A hash of an artifact's outputs, independent of where and when it was made."""
    return json_digest({name: file["sha256"] for name, file in manifest["outputs"].items()})
