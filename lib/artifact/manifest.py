"""Artifacts: files and folders that are complete or not there, and know where they came from.

A folder holds a `manifest.json` (how folders are written: `lib.artifact.folders`, files: `lib.artifact.files`). The
manifest tells the stage, its parameters, its inputs and outputs with their SHA-256, the versions and
the command, so that from any figure one can walk back to the bytes of the text.
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

#: What makes an artifact of each kind, for errors that say what to run.
MAKERS = {
    "tokens": "tokenize FILE -o",
    "dataset": "build-dataset TOKENS -o",
    "run": "train DATASET -o",
    "export": "export-weights RUN -o",
}


#: Files of an artifact's folder that stages read back; those made from it later (evaluation.json, sample.txt, …) are not.
_PARTS = re.compile(r"manifest\.json|.*\.(safetensors|npy|jsonl)|(config|tokenizer|dataset|state)\.json")


class OtherFormat(MakegptError):
    """An artifact that another version of this program has written, which this one cannot read."""


def check_output_file(path: Path, sources: Iterable[Path]) -> None:
    """Refuse to write the file `path` over one of the `sources` of the same command, or over a part of an artifact."""
    if not path.is_file():
        return
    for source in sources:
        if source.exists() and path.samefile(source):
            raise UsageError(f"{path} is what this command reads; choose another output")
    folder = path.resolve().parent
    for owner in (folder, folder.parent):
        if (owner / MANIFEST).is_file() and _PARTS.fullmatch(path.resolve().name):
            raise UsageError(f"{path} is a part of what {owner} holds; choose another output")


def with_article(kind: str) -> str:
    """The kind of an artifact in a sentence."""
    return {"tokens": "tokens", "dataset": "a dataset", "run": "a run", "export": "an export"}.get(kind, f"a {kind!r}")


def relative_place(target: Path, folder: Path) -> str:
    """Where `target` is as seen from `folder`, as a manifest names an input: both may be moved together."""
    return os.path.relpath(target.resolve(), folder.resolve())


def input_folder(folder: Path, manifest: Manifest, advice: str) -> Path:
    """The artifact that the one in `folder` was made from, its first input; MakegptError with the `advice` where it has moved
    or is another now.
    """
    if not manifest["inputs"]:
        raise MakegptError(f"{folder} does not say what it was made from; {advice}")
    name, metadata = next(iter(manifest["inputs"].items()))
    found = (folder / name).resolve()
    kind = next((kind for kind, needs in _MADE_OF.items() if needs == manifest["artifact"]), "artifact")
    if not (found / MANIFEST).is_file():
        raise MakegptError(f"{folder} was made from {with_article(kind)} at {found}, which does not exist; {advice}")
    if identity_of(read_manifest(found, None)) != metadata.get("identity"):
        raise MakegptError(f"{found} has changed since {folder} was made from it; {advice}")
    return found


#: A kind of artifact -> what is made of it.
_MADE_OF = {"tokens": "dataset", "dataset": "run", "run": "export"}


def describe_files(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of the named files in `folder`, as a manifest lists its outputs."""
    return {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in names}


def read_manifest(folder: Path, kind: str | None) -> Manifest:
    """Read `folder`'s manifest and check that it is an artifact of `kind` (None: any)."""
    folder = Path(folder)
    needed = with_article(kind) if kind else "an artifact"
    again = f"make one with `{MAKERS[kind]} {folder}`" if kind in MAKERS else "see `inspect --help`"
    if not folder.exists():
        raise MakegptError(f"{folder} does not exist; {needed} is expected there: {again}")
    if not folder.is_dir():
        raise MakegptError(f"{folder} is a file; a folder with {needed} is expected: {again}")
    if not (folder / MANIFEST).is_file():
        raise MakegptError(f"{folder} has no {MANIFEST}, so it is not {needed}: {again}")
    found = read_json(folder / MANIFEST)
    first = 1 if isinstance(found, dict) and "facts" in found else FORMAT  # the first format did not say so
    if isinstance(found, dict) and (written := found.get("format", first)) != FORMAT:
        what = with_article(found["artifact"]) if found.get("artifact") in list(MAKERS) else "an artifact"
        raise OtherFormat(
            f"{folder} holds {what} of format {written}, which this version does not read (it writes {FORMAT}); "
            f"remove the folder and make it again"
        )
    if (problem := _problem(found)) is not None:
        raise MakegptError(f"{folder / MANIFEST} is damaged: {problem}; make the folder again")
    if kind is not None and found["artifact"] != kind:
        if (found["artifact"], kind) == ("export", "run"):
            again = f"make one of it with `import-weights {folder} -o RUN`"
        raise MakegptError(f"{folder} holds {with_article(found['artifact'])}, not {needed}: {again}")
    return found


def _problem(found: Any) -> str | None:
    """Why `found` is no manifest that its readers can rely on; None where it is one."""
    if not isinstance(found, dict) or found.get("artifact") not in list(MAKERS):
        return "it names no artifact"
    if (place := first_mismatch(found, _MANIFEST)) is not None:
        return f"{place} is missing or not as it was written"
    if odd := [name for name in found["outputs"] if Path(name).name != name or name in ("", "..") or "\0" in name]:
        return f"it lists {odd[0]!r}, which is no file of this folder"
    if any("\0" in name for name in found["inputs"]) or (found["artifact"] == "dataset" and not found["inputs"]):
        return "it does not say what it was made from"
    return None


#: What is relied on in every manifest. A name or a command may hold bytes that are no UTF-8, as escapes.
_MANIFEST: JsonShape = {
    "parameters": dict,
    "inputs": {"*": dict},
    "outputs": {"*": {"bytes": COUNT, "sha256": str}},
    "metadata": dict,
    "versions?": dict,
    "sessions?": [{"from_step": COUNT, "to_step?": COUNT, "versions?": dict}],
}


def verify_files(folder: Path, listed: dict[str, dict[str, Any]]) -> None:
    """Check that the `listed` files of `folder` have the size and SHA-256 their manifest gives; name the first that has not."""
    for name, expected in listed.items():
        path = folder / name
        if not path.is_file():
            raise MakegptError(f"{path} is missing, though {MANIFEST} lists it; make the folder {folder} again")
        if (size := path.stat().st_size) != expected["bytes"]:
            raise MakegptError(
                f"{path} is damaged: {size} bytes, {expected['bytes']} were written; make the folder {folder} again"
            )
        if sha256_of(path) != expected["sha256"]:
            raise MakegptError(f"{path} is damaged: its SHA-256 is not the one in {MANIFEST}; make the folder {folder} again")


def identity_of(found: Manifest) -> str:
    """A hash of what an artifact holds (its outputs), the same wherever and whenever it was made."""
    return json_digest({name: file["sha256"] for name, file in found["outputs"].items()})
