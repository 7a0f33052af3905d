"""Manifests: what an artifact is, and what it was made from.

An artifact is a folder with a `manifest.json`, which names the stage, its parameters, its inputs and outputs with their
SHA-256, the versions and the command: every figure can be traced back to the bytes of its text. `lib.artifact.folders` writes
such folders, `lib.artifact.files` single files.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, Mapping

from lib.artifact.io import json_digest, read_json, sha256_of, write_json
from lib.artifact.provenance import command_line, software_versions, timestamp
from lib.artifact.record import Count, RecordError, from_json, to_json
from lib.errors import MakegptError, UsageError

MANIFEST = "manifest.json"

#: The format of manifests and of the files they list; it changes when older artifacts can no longer be read.
FORMAT = 3


@dataclass(frozen=True)
class FileDigest:
    """Size and SHA-256 of a file."""

    bytes: Count
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Input:
    """What an artifact was made from: another artifact, by its identity, or a file, of which the spans `read` were read."""

    identity: str | None = None
    kind: str | None = field(default=None, metadata={"key": "is"})
    bytes: Count | None = None
    sha256: str | None = None
    read: list[list[int]] | None = None
    documents: list[int] | None = None  # the numbers of a text that was named several times


@dataclass(frozen=True, kw_only=True)
class Session:
    """One process of a training: which steps it did, when, by which command, on what."""

    from_step: Count
    to_step: Count | None  # None until it ends; the checkpoint of one that was killed tells
    started: str
    ended: str | None
    command: str
    device: str
    threads: int
    processes: int
    precision: str
    host: str
    versions: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """An artifact's manifest.json. `metadata` are results of the stage (counts, sizes); device, threads and processes are
    those of the last session of a training.
    """

    format: int = FORMAT
    artifact: str
    stage: str
    parameters: dict[str, Any]
    inputs: dict[str, Input]
    outputs: dict[str, FileDigest]
    metadata: dict[str, Any]
    seed: int | None = None
    versions: dict[str, Any]
    started: str
    ended: str | None  # None while a training is not finished
    command: str
    device: str | None = None
    threads: int | None = None
    processes: int | None = None
    sessions: tuple[Session, ...] = ()

    @property
    def texts(self) -> list[str]:
        """The SHA-256 of each text that it was made from, in their order."""
        return [source.sha256 for source in self.inputs.values() if source.sha256 is not None]

    @property
    def sources(self) -> list[str]:
        """The identity of each artifact that it was made from, in their order."""
        return [source.identity for source in self.inputs.values() if source.identity is not None]


def new_manifest(
    artifact: str,
    stage: str,
    *,
    parameters: dict[str, Any],
    inputs: dict[str, Input],
    outputs: dict[str, FileDigest],
    metadata: dict[str, Any],
    started: str,
) -> Manifest:
    """The manifest of an artifact that this process has just made."""
    return Manifest(
        artifact=artifact,
        stage=stage,
        parameters=parameters,
        inputs=inputs,
        outputs=outputs,
        metadata=metadata,
        versions=software_versions(),
        started=started,
        ended=timestamp(),
        command=command_line(),
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write or replace the manifest in `folder`."""
    write_json(folder / MANIFEST, to_json(manifest))


#: The command that makes an artifact of each kind, for errors.
MAKERS = {
    "tokenizer": "tokenize --train bpe --vocab-size 1024 FILE -o",
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
    if not manifest.inputs:
        raise MakegptError(f"{folder} does not say what it was made from; {advice}")
    name, entry = next(iter(manifest.inputs.items()))
    source = (folder / name).resolve()
    kind = _INPUT_KINDS.get(manifest.artifact, "artifact")
    if not (source / MANIFEST).is_file():
        raise MakegptError(f"{folder} was made from {with_article(kind)} at {source}, which does not exist; {advice}")
    if identity_of(read_manifest(source, None)) != entry.identity:
        raise MakegptError(f"{source} has changed since {folder} was made from it; {advice}")
    return source


#: A kind of artifact -> the kind of its input.
_INPUT_KINDS = {"dataset": "tokens", "run": "dataset", "export": "run"}


def describe_files(folder: Path, names: Iterable[str]) -> dict[str, FileDigest]:
    """Size and SHA-256 of the named files in `folder`, as a manifest lists its outputs."""
    return {name: FileDigest((folder / name).stat().st_size, sha256_of(folder / name)) for name in names}


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
    saved = read_json(folder / MANIFEST)
    _check_format(folder, saved)
    try:
        manifest = _checked(saved)
    except RecordError as error:
        raise MakegptError(f"{folder / MANIFEST} is damaged: {error}; make the folder again") from None
    if kind is not None and manifest.artifact != kind:
        if (manifest.artifact, kind) == ("export", "run"):
            advice = f"make one of it with `import-weights {folder} -o RUN`"
        raise MakegptError(f"{folder} holds {with_article(manifest.artifact)}, not {expected}: {advice}")
    return manifest


def is_artifact(folder: Path, kind: str) -> bool:
    """Whether `folder` holds an artifact of `kind`."""
    try:
        return read_manifest(folder, None).artifact == kind
    except MakegptError:
        return False


def _check_format(folder: Path, saved: Any) -> None:
    """OtherFormat if what was `saved` as a manifest is of another version's format."""
    if not isinstance(saved, dict):
        return
    number = saved.get("format", 1 if "facts" in saved else FORMAT)  # format 1 had no such key
    if number != FORMAT:
        artifact = saved.get("artifact")
        name = with_article(artifact) if artifact in list(MAKERS) else "an artifact"
        raise OtherFormat(
            f"{folder} holds {name} of format {number}, which this version does not read (it writes {FORMAT}); "
            f"remove the folder and make it again"
        )


def _checked(saved: Any) -> Manifest:
    """The manifest that was `saved` as JSON. A name or a command may have bytes that are not UTF-8, as escapes."""
    if not isinstance(saved, dict) or saved.get("artifact") not in list(MAKERS):
        raise RecordError("", "it names no kind of artifact")
    manifest = from_json(Manifest, saved)
    if odd := [name for name in manifest.outputs if Path(name).name != name or name in ("", "..") or "\0" in name]:
        raise RecordError("", f"it lists {odd[0]!r}, which is not a file of this folder")
    if any("\0" in name for name in manifest.inputs) or (manifest.artifact == "dataset" and not manifest.inputs):
        raise RecordError("", "it does not say what it was made from")
    if manifest.stage == "train" and not manifest.sessions:
        raise RecordError("sessions", "is missing")
    return manifest


def verify_files(folder: Path, listed: Mapping[str, FileDigest]) -> None:
    """Check the size and SHA-256 of the `listed` files of `folder`; MakegptError names the first that differs."""
    for name, expected in listed.items():
        path = folder / name
        if not path.is_file():
            raise MakegptError(f"{path} is missing, but {MANIFEST} lists it; make the folder {folder} again")
        if (size := path.stat().st_size) != expected.bytes:
            raise MakegptError(f"{path} is damaged: it has {size} bytes, not {expected.bytes}; make the folder {folder} again")
        if sha256_of(path) != expected.sha256:
            raise MakegptError(f"{path} is damaged: its SHA-256 differs from {MANIFEST}; make the folder {folder} again")


def identity_of(manifest: Manifest) -> str:
    """A hash of an artifact's outputs, independent of where and when it was made."""
    return json_digest({name: file.sha256 for name, file in manifest.outputs.items()})
