"""Files and folders that are complete or not there, and that nothing of a user's is lost for them."""

import os
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from lib.artifact.files import atomic_write
from lib.artifact.folders import replacing_folder
from lib.artifact.io import json_digest, write_text
from lib.artifact.manifest import (
    FileDigest,
    describe_files,
    identity_of,
    new_manifest,
    read_manifest,
    verify_files,
    write_manifest,
)
from lib.errors import MakegptError, UsageError


class Broken(Exception):
    """What goes wrong in the middle of a work."""


@pytest.fixture
def dead() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def make_artifact(path: Path, kind: str = "tokens", content: bytes = b"ids") -> Path:
    """A small artifact of `kind` at `path`."""
    with replacing_folder(path, kind) as folder:
        (folder / "a.bin").write_bytes(content)
        files = describe_files(folder, ["a.bin"])
        manifest = new_manifest(kind, "stage", parameters={}, inputs={}, outputs=files, metadata={}, started="")
        write_manifest(folder, manifest)
    return path


def outputs(path: Path) -> dict[str, FileDigest]:
    return read_manifest(path, "tokens").outputs


def fail_writing(path: Path, error: BaseException) -> None:
    with atomic_write(path) as part:
        part.write_bytes(b"half of the n")
        raise error


def fail_filling(path: Path, error: BaseException) -> None:
    with replacing_folder(path, "tokens") as folder:
        (folder / "a.bin").write_bytes(b"half")
        raise error


# Files.


def test_a_file_is_replaced_when_the_work_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    for content in (b"old", b"new"):
        with atomic_write(path) as part:
            assert part.parent == path.parent
            part.write_bytes(content)
        assert path.read_bytes() == content
    assert names(path.parent) == ["file"]


def test_the_old_file_stays_when_the_work_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(Broken):
        fail_writing(path, Broken())
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_the_old_file_stays_until_the_very_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with atomic_write(path) as part:
        part.write_bytes(b"new")
        assert path.read_bytes() == b"old"


def test_no_file_is_there_when_the_first_work_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fail_writing(tmp_path / "file", KeyboardInterrupt())
    assert names(tmp_path) == []


def test_newlines_and_characters_are_written_as_they_are(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "é\r\n\u2028\n")
    assert (tmp_path / "file").read_bytes() == b"\xc3\xa9\r\n\xe2\x80\xa8\n"


# Folders.


def test_a_folder_is_there_when_the_work_ends_well_and_not_before(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "deep" / "out", "tokens") as folder:
        (folder / "a").write_bytes(b"a")
        assert not (tmp_path / "deep" / "out").exists()
    assert names(tmp_path / "deep") == ["out"]
    assert names(tmp_path / "deep" / "out") == ["a"]


def test_a_folder_of_the_same_kind_is_replaced_whole(tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "out", content=b"old")
    (path / "left.npy").write_bytes(b"a shard that the new one has not")
    manifest = read_manifest(path, "tokens")
    write_manifest(path, replace(manifest, outputs=describe_files(path, ["a.bin", "left.npy"])))
    make_artifact(path, content=b"new")
    assert names(path) == ["a.bin", "manifest.json"]
    assert (path / "a.bin").read_bytes() == b"new"
    assert names(tmp_path) == ["out"]


def test_the_old_folder_stays_when_the_work_fails(tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "out")
    with pytest.raises(Broken):
        fail_filling(path, Broken())
    assert names(tmp_path) == ["out"]
    verify_files(path, outputs(path))


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    verify_files(make_artifact(tmp_path / "out"), outputs(tmp_path / "out"))


@pytest.mark.parametrize("file", ["notes.txt", "manifest.json", "sub/notes.txt"])
def test_a_folder_of_someone_elses_is_refused_and_left_alone(tmp_path: Path, file: str) -> None:
    path = tmp_path / "home" / file
    path.parent.mkdir(parents=True)
    path.write_text('{"name": "mine"}', encoding="utf-8")
    with pytest.raises(UsageError, match=r"home is not empty and not made by this program.*; choose another"):
        make_artifact(tmp_path / "home")
    assert path.read_text(encoding="utf-8") == '{"name": "mine"}'
    assert names(tmp_path) == ["home"]


def test_hidden_files_of_someone_elses_are_not_lost(tmp_path: Path) -> None:
    """A fresh repository, say: all that `git init` makes is hidden."""
    config = tmp_path / "repository" / ".git" / "config"
    config.parent.mkdir(parents=True)
    config.write_text("[core]", encoding="utf-8")
    with suppress(UsageError):
        make_artifact(tmp_path / "repository")
    assert config.read_text(encoding="utf-8") == "[core]"


def test_an_artifact_of_another_kind_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "out", "run")
    with pytest.raises(UsageError, match="out holds a run; choose another folder for tokens"):
        make_artifact(path, "tokens")
    assert read_manifest(path, "run").artifact == "run"


def test_a_file_where_a_folder_is_to_be_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(UsageError, match="out is a file; choose a folder for tokens"):
        make_artifact(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"mine"


def test_a_folder_behind_a_link_is_replaced(tmp_path: Path) -> None:
    make_artifact(tmp_path / "disk", content=b"old")
    os.symlink(tmp_path / "disk", tmp_path / "link")
    make_artifact(tmp_path / "link", content=b"new")
    assert (tmp_path / "link" / "a.bin").read_bytes() == b"new"
    assert set(names(tmp_path)) <= {"disk", "link"}


# What killed processes leave.


def test_what_dead_processes_left_is_removed(tmp_path: Path, dead: int) -> None:
    (tmp_path / f".out.{dead}.part").mkdir()
    (tmp_path / f".out.{dead}.part" / "half").write_bytes(b"half")
    (tmp_path / f".out.{dead}.part.old").mkdir()
    make_artifact(tmp_path / "out")
    assert names(tmp_path) == ["out"]
    (tmp_path / f".file.{dead}.part").write_bytes(b"half")
    write_text(tmp_path / "file", "")
    assert names(tmp_path) == ["file", "out"]


def test_what_living_processes_write_is_left_alone(tmp_path: Path, dead: int) -> None:
    others = [f".out.{os.getppid()}.part", f".other.{dead}.part", f".out.{dead}.txt", ".out.part", ".out.x.part"]
    for name in others:
        (tmp_path / name).mkdir()
    make_artifact(tmp_path / "out")
    assert names(tmp_path) == sorted([*others, "out"])


def test_what_a_living_process_writes_beside_is_left_alone_though_its_name_ends_in_a_number(tmp_path: Path, dead: int) -> None:
    """Such names are ours: a dataset's folder ends in its context length."""
    (tmp_path / f".hamlet.{dead}.{os.getppid()}.part").mkdir()
    make_artifact(tmp_path / "hamlet")
    assert names(tmp_path) == [f".hamlet.{dead}.{os.getppid()}.part", "hamlet"]


def test_what_a_dead_process_of_our_own_number_left_is_no_hindrance(tmp_path: Path) -> None:
    """In a container a command has the same process number each time."""
    (tmp_path / f".out.{os.getpid()}.part").mkdir()
    (tmp_path / f".out.{os.getpid()}.part" / "half").write_bytes(b"half")
    make_artifact(tmp_path / "out")
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["a.bin", "manifest.json"]


# What is read back.


def test_verify_accepts_what_was_written(tmp_path: Path) -> None:
    verify_files(make_artifact(tmp_path / "out"), outputs(tmp_path / "out"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"id", r"a\.bin is damaged: it has 2 bytes, not 3"),
        (b"", r"a\.bin is damaged: it has 0 bytes, not 3"),
        (b"idss", r"a\.bin is damaged: it has 4 bytes, not 3"),
        (b"idr", r"a\.bin is damaged: its SHA-256"),
        (None, r"a\.bin is missing"),
    ],
)
def test_verify_names_what_is_damaged_and_what_to_make_again(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = make_artifact(tmp_path / "out")
    listed = outputs(path)
    (path / "a.bin").unlink()
    if content is not None:
        (path / "a.bin").write_bytes(content)
    with pytest.raises(MakegptError, match=rf"{says}.*make the folder .*out again"):
        verify_files(path, listed)


def test_a_manifest_of_another_kind_is_refused_with_what_makes_the_right_one(tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "out", "tokens")
    with pytest.raises(MakegptError, match=r"out holds tokens, not a dataset: make one with `build-dataset TOKENS -o .*out`"):
        read_manifest(path, "dataset")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"artifact": "tokens"}', "\x00"])
def test_a_damaged_manifest_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = make_artifact(tmp_path / "out")
    (path / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(MakegptError, match=r"manifest\.json is damaged"):
        read_manifest(path, "tokens")


def test_the_error_for_a_missing_artifact_says_what_exists(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for name, says in {"none": "does not exist", "file": "is a file", "folder": r"has no manifest\.json"}.items():
        with pytest.raises(MakegptError, match=f"{name} {says}"):
            read_manifest(tmp_path / name, "run")


def test_the_identity_follows_from_the_content_alone(tmp_path: Path) -> None:
    one, two, other = (
        make_artifact(tmp_path / "one"),
        make_artifact(tmp_path / "deep" / "two"),
        make_artifact(tmp_path / "other", content=b"idz"),
    )
    first, second, third = (identity_of(read_manifest(path, None)) for path in (one, two, other))
    assert first == second != third


def test_the_digest_of_data_does_not_depend_on_the_order_of_keys() -> None:
    assert json_digest({"a": 1, "b": [1, 2]}) == json_digest({"b": [1, 2], "a": 1})
    assert json_digest({"a": 1, "b": [1, 2]}) != json_digest({"a": 1, "b": [2, 1]})


def test_a_manifest_has_versions_times_and_the_command(tmp_path: Path) -> None:
    manifest = read_manifest(make_artifact(tmp_path / "out"), "tokens")
    assert manifest.versions["numpy"]
    assert manifest.versions.keys() >= {"python", "torch", "commit", "dirty"}
    assert manifest.ended is not None
    assert manifest.ended >= "2024"
    assert manifest.command


@pytest.mark.parametrize("name", ["notes.txt", "dataset", ".hidden"])
def test_what_a_user_has_put_into_an_artifact_is_not_lost_when_it_is_replaced(tmp_path: Path, name: str) -> None:
    place = tmp_path / "tokens"
    for content in ("old", "new"):
        with replacing_folder(place, "tokens") as folder:
            (folder / "a.npy").write_text(content)
            files = describe_files(folder, ["a.npy"])
            write_manifest(
                folder, new_manifest("tokens", "tokenize", parameters={}, inputs={}, outputs=files, metadata={}, started="")
            )
    (place / name).mkdir()
    with pytest.raises(UsageError, match=f"holds {name}, which is not part of tokens and would be lost; move it elsewhere"):
        replacing_folder(place, "tokens").__enter__()
    assert (place / "a.npy").read_text() == "new"
