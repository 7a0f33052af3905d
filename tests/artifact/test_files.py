"""What may stand where an output is to go, and what a file system may refuse."""

import errno
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Callable

import pytest

from lib.artifact import folders, lock
from lib.artifact.files import atomic_write, swap_paths
from lib.artifact.folders import check_replaceable, replacing_folder
from lib.artifact.io import write_text
from lib.artifact.jsonl import append_line, flushed_size
from lib.artifact.lock import hold_lock
from lib.artifact.manifest import MANIFEST, describe_files, new_manifest, read_manifest, verify_files, write_manifest
from lib.errors import MakegptError
from lib.run.folder import MODEL_FILE
from tests.conftest import PROJECT, Here

#: Every stage that writes a file, with the ending it needs, at its cheapest, and how the file begins.
WRITERS = {
    "evaluate": ("evaluate RUN --text TEXT", ".json", b"{\n"),
    "per-token": ("evaluate RUN --text TEXT --per-token", ".jsonl", b'{"position"'),
    "generate": ("generate RUN To --max-new-tokens 2 --seed 1 --echo", ".txt", b"To"),
    "plot": ("plot mask --width 2 --height 2 --dpi 20", ".png", b"\x89PNG"),
    "tokens": ("plot tokens RUN --prompt To", ".html", b"<!"),
    "report": ("report RUN", ".html", b"<!"),
}


def link(path: Path, to: str) -> Path:
    path.symlink_to(to)
    return path


def old(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"old")
    return path


#: What stands at the target: made in a folder, with an ending; what -o names, and the file that holds the output afterwards.
STANDING: dict[str, Callable[[Path, str], tuple[Path, Path]]] = {
    "nothing": lambda at, end: (at / f"new/out{end}", at / f"new/out{end}"),
    "a file": lambda at, end: (old(at / f"out{end}"),) * 2,
    "a link": lambda at, end: (link(at / f"out{end}", str(old(at / "real/file"))), at / "real/file"),
    "a relative link": lambda at, end: (link(at / f"out{end}", "real/file"), old(at / "real/file")),
    "a link to a link": lambda at, end: (
        link(at / f"out{end}", "second"),
        old(at / link(at / "second", "real/file").readlink()),
    ),
    "a dangling link": lambda at, end: (link(at / f"out{end}", "file"), at / "file"),
}


@pytest.fixture
def write(here: Here, small: Path, tmp_path: Path) -> Callable[..., Any]:
    """write(writer, output): let a stage write there; stdout and stderr."""
    (tmp_path / "text").write_text("To be, or not to be.")
    places = {"RUN": small / "run", "TEXT": tmp_path / "text"}

    def go(writer: str, output: Path | str, code: int = 0) -> "pytest.CaptureResult[str]":
        return here(*(places.get(word, word) for word in WRITERS[writer][0].split()), "-q", "-o", output, code=code)

    return go


def entries(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("standing", STANDING)
@pytest.mark.parametrize("writer", ["generate", "plot"])
def test_the_file_behind_links_is_replaced_and_the_links_stay(
    write: Callable[..., Any], tmp_path: Path, writer: str, standing: str
) -> None:
    (tmp_path / "at").mkdir()
    output, real = STANDING[standing](tmp_path / "at", WRITERS[writer][1])
    links = {path: path.readlink() for path in (tmp_path / "at").iterdir() if path.is_symlink()}
    before = entries(tmp_path / "at")
    write(writer, output)
    assert real.read_bytes().startswith(WRITERS[writer][2])
    assert real.is_file()
    assert not real.is_symlink()
    assert {path: path.readlink() for path in links} == links
    assert set(entries(tmp_path / "at")) - set(before) <= {"new", "file", str(output.relative_to(tmp_path / "at"))}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_stage_that_writes_a_file_writes_through_a_link_into_a_pipe_and_to_stdout(
    write: Callable[..., Any], tmp_path: Path, writer: str
) -> None:
    _, ending, beginning = WRITERS[writer]
    output = link(tmp_path / f"out{ending}", str(old(tmp_path / "real/file")))
    write(writer, output)
    assert output.is_symlink()
    expected = (tmp_path / "real/file").read_bytes()
    assert expected.startswith(beginning)

    os.mkfifo(tmp_path / f"fifo{ending}")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / f"fifo{ending}").read_bytes()), daemon=True)
    reader.start()
    write(writer, tmp_path / f"fifo{ending}")
    reader.join(10)
    assert got == [expected]
    assert stat.S_ISFIFO(os.stat(tmp_path / f"fifo{ending}").st_mode)

    with open(tmp_path / "there", "ab") as file:  # as a shell passes it to a command: head; evaluate … -o /dev/fd/N
        file.write(b"head\n")
        file.flush()
        write(writer, f"/dev/fd/{file.fileno()}")
        file.write(b"tail\n")
    assert (tmp_path / "there").read_bytes() == b"head\n" + expected + b"tail\n"


@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}", "/proc/thread-self/fd/{}", "link", "link to a link"])
def test_a_file_that_is_open_already_is_written_where_it_is(tmp_path: Path, name: str) -> None:
    with open(old(tmp_path / "file"), "r+b") as file:
        link(tmp_path / "link", f"/dev/fd/{file.fileno()}")
        link(tmp_path / "link to a link", "link")
        file.seek(1)
        write_text(tmp_path / name.format(file.fileno()), "n")
        with atomic_write(tmp_path / name.format(file.fileno())) as part:
            part.write_bytes(b"e")
    assert (tmp_path / "file").read_bytes() == b"one"


@pytest.mark.parametrize("mode", ["wb", "ab"])
@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_stdout_continues_where_it_is(tmp_path: Path, mode: str, name: str) -> None:
    """With > and with >>, between what a shell writes before and after it."""
    old(tmp_path / "file")
    code = (
        f"import sys; from lib.artifact.io import write_text; from pathlib import Path; write_text(Path({name!r}), ['b', 'c'])"
    )
    with open(tmp_path / "file", mode) as file:
        file.write(b"a")
        file.flush()
        subprocess.run([sys.executable, "-c", f"{code}; print('d', end='')"], cwd=PROJECT, stdout=file, check=True)
        os.lseek(file.fileno(), 0, os.SEEK_END)
        file.write(b"e")
    assert (tmp_path / "file").read_bytes() == {"wb": b"", "ab": b"old"}[mode] + b"abcde"


def test_pieces_arrive_in_a_pipe_as_they_are_made(tmp_path: Path) -> None:
    """A text that is being generated can be read while it grows."""
    out, into = os.pipe()

    def pieces() -> Any:
        for piece in ("one", "two"):
            yield piece
            assert os.read(out, 10) == piece.encode()

    write_text(Path(f"/dev/fd/{into}"), pieces())
    os.close(out)
    with pytest.raises(BrokenPipeError):
        write_text(Path(f"/dev/fd/{into}"), "three")
    os.close(into)


def device(path: Path, minor: int) -> Path:
    """A node like /dev/null (3) or /dev/full (7), where such can be made and used."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        path.open("wb").close()
    except OSError as error:
        pytest.skip(f"no devices can be made here: {error}")
    return path


def test_a_device_stays_a_device(write: Callable[..., Any], tmp_path: Path) -> None:
    null = device(tmp_path / "null", 3)
    before = null.stat()
    for writer in ("evaluate", "generate", "plot"):
        write(writer, null)
    with atomic_write(null) as part:
        part.write_bytes(b"x")
    after = null.stat()
    assert stat.S_ISCHR(after.st_mode)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    full = device(tmp_path / "full", 7)
    assert write("generate", full, code=1).err == (
        f"generate: error: {full}: No space left on device; free some space and run the same command again\n"
    )


def circle(at: Path) -> Path:
    link(at / "other", "circle")
    return link(at / "circle", "other")


IMPOSSIBLE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a folder": (lambda at: at, "{}: is a folder; use a file name"),
    "links in a circle": (circle, "{}: Too many levels of symbolic links"),
    "a link into a missing folder": (
        lambda at: link(at / "out", "none/file"),
        "{}: is a link to {at}/none/file, but the folder",
    ),
    "in a folder that is a file": (lambda at: old(at / "file") / "deep" / "out", "{}: {at}/file is a file, not a folder"),
    "in a folder that is a dangling link": (lambda at: link(at / "d", "none") / "out", "{}: {at}/d is a link to a folder that"),
    "a name that is too long": (lambda at: at / ("n" * 256), "{}: File name too long"),
    "a closed number": (lambda at: Path("/dev/fd/999"), "{}: Bad file descriptor"),
    "a socket": (lambda at: bound(at / "socket"), "{}: No such device or address"),
}


def bound(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as endpoint:
        endpoint.bind(os.path.relpath(path))  # a socket's name is short
    return path


@pytest.mark.parametrize("standing", IMPOSSIBLE)
def test_what_cannot_be_written_is_one_true_line_and_nothing_changes(
    write: Callable[..., Any], tmp_path: Path, standing: str
) -> None:
    (tmp_path / "at").mkdir()
    build, says = IMPOSSIBLE[standing]
    output = build(tmp_path / "at")
    before = entries(tmp_path)
    result = write("generate", output, code=1)
    assert result.err.startswith("generate: error: " + says.format(output, at=tmp_path / "at"))
    assert len(result.err.splitlines()) == 1
    assert result.out == ""
    assert entries(tmp_path) == before


def test_the_mode_of_a_file_stays_and_a_new_one_has_what_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "new", "new")
        old(tmp_path / "own").chmod(0o600)
        write_text(tmp_path / "own", "new")
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("new", "own")] == [0o640, 0o600]


def test_another_name_of_the_same_file_keeps_the_old_content(tmp_path: Path) -> None:
    os.link(old(tmp_path / "one"), tmp_path / "two")
    write_text(tmp_path / "one", "new")
    assert [(tmp_path / name).read_text() for name in ("one", "two")] == ["new", "old"]


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, "a\nb", os.fsdecode(b"\xff.json"), ".part", " "])
def test_odd_names_are_names(tmp_path: Path, name: str) -> None:
    (tmp_path / "at").mkdir()
    for _ in range(2):
        write_text(tmp_path / "at" / name, "new")
    assert (tmp_path / "at" / name).read_text() == "new"
    assert len(entries(tmp_path / "at")) == 1
    make_artifact(tmp_path / "folder" / name)
    make_artifact(tmp_path / "folder" / name)
    assert read_manifest(tmp_path / "folder" / name, "tokens")
    assert len(list((tmp_path / "folder").iterdir())) == 1


# What file systems refuse.


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> list[Any]:
    """Have the call os.`name` fail with the error `number`; return its arguments as they come."""
    calls: list[Any] = []

    def fail(*words: Any, **_: Any) -> None:
        calls.append(words)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, name, fail)
    return calls


def make_artifact(path: Path, content: bytes = b"ids") -> Path:
    """A small artifact at `path`."""
    with replacing_folder(path, "tokens") as folder:
        (folder / "a.bin").write_bytes(content)
        listed = describe_files(folder, ["a.bin"])
        manifest = new_manifest("tokens", "tokenize", parameters={}, inputs={}, outputs=listed, metadata={}, started="")
        write_manifest(folder, manifest)
    return path


def holds(path: Path, content: bytes) -> bool:
    """Whether the artifact is whole, with nothing next to it or in it that does not belong there."""
    verify_files(path, read_manifest(path, "tokens").outputs)
    assert sorted(entry.name for entry in path.iterdir()) == ["a.bin", "manifest.json"]
    assert not [entry for entry in path.parent.iterdir() if ".part" in entry.name]
    return (path / "a.bin").read_bytes() == content


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL, errno.EACCES])
@pytest.mark.parametrize("call", ["chmod", "chown", "fsync"])
def test_modes_owners_and_fsync_are_optional(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: str, number: int) -> None:
    with monkeypatch.context() as refused:
        refuse(refused, call, number)
        for content in ("old", "new"):
            write_text(tmp_path / "file", content)
            make_artifact(tmp_path / "out", content.encode())
        append_line(tmp_path / "lines", 1)
        assert flushed_size(tmp_path / "lines") == 2
    assert (tmp_path / "file").read_text() == "new"
    assert holds(tmp_path / "out", b"new")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_disk_that_could_not_hold_the_bytes_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int) -> None:
    old(tmp_path / "file")
    refuse(monkeypatch, "fsync", number)
    with pytest.raises(OSError, match=rf"{os.strerror(number)}: '{tmp_path / 'file'}'"):
        write_text(tmp_path / "file", "new")
    assert entries(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_without_locks_a_training_continues_and_says_so(
    here: Here, monkeypatch: pytest.MonkeyPatch, small: Path, tmp_path: Path, number: int
) -> None:
    def fail(*_: Any, **__: Any) -> bool:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock, "lock_descriptor", fail)
    if number != errno.ENOSYS:
        with hold_lock(tmp_path / "run") as notice:
            assert notice == (
                f"{tmp_path / 'run'} cannot be locked here ({os.strerror(number)}); "
                "do not start another `train` in it before this one ends"
            )
        return
    words = ["--config", "debug", "--set", "train.max_steps=1", "--set", "train.batch_size=1"]
    message = here("train", small / "dataset", "-o", tmp_path / "run", *words).err
    assert "cannot be locked here (Function not implemented)" in message.splitlines()[0]
    assert (tmp_path / "run" / MODEL_FILE).is_file()


def test_a_lock_names_who_holds_it_and_dies_with_that_process(tmp_path: Path) -> None:
    code = (
        "import time; from pathlib import Path; from lib.artifact.lock import hold_lock\n"
        f"with hold_lock(Path({str(tmp_path)!r})): print(flush=True), time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with (
            pytest.raises(MakegptError, match=rf"is being trained by another `train` \(process {other.pid}\)"),
            hold_lock(tmp_path),
        ):
            pass
        other.kill()
    with hold_lock(tmp_path) as notice:
        assert notice is None


def test_a_finished_run_needs_no_hard_links(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small: Path, here: Here) -> None:
    refuse(monkeypatch, "link", errno.EPERM)
    words = ["--config", "debug", "--set", "train.max_steps=1", "--set", "train.batch_size=1", "-q"]
    here("train", small / "dataset", "-o", tmp_path / "run", *words)
    assert (tmp_path / "run" / MODEL_FILE).stat().st_nlink == 1
    verify_files(tmp_path / "run", read_manifest(tmp_path / "run", "run").outputs)


# What cannot be moved.


@pytest.fixture
def immovable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int], Path]:
    """immovable(number): a place that no rename can move or replace, which fails with that error, as of a mount point."""
    place = tmp_path / "out"
    rename, replace = os.rename, os.replace

    def either(call: Callable[..., None], number: int) -> Callable[..., None]:
        def moved(one: Any, other: Any) -> None:
            if place in (Path(one), Path(other)):
                raise OSError(number, os.strerror(number), str(one), None, str(other))
            call(one, other)

        return moved

    def give(number: int) -> Path:
        monkeypatch.setattr(os, "rename", either(rename, number))
        monkeypatch.setattr(os, "replace", either(replace, number))
        monkeypatch.setattr(folders, "swap_paths", lambda *_: False)
        return place

    return give


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV, errno.EPERM])
def test_a_folder_that_cannot_be_moved_is_filled(immovable: Callable[[int], Path], number: int) -> None:
    place = immovable(number)
    (place / "lost+found").mkdir(parents=True)
    for content in (b"old", b"new"):
        make_artifact(place, content)
    (place / "lost+found").rmdir()  # a disk's own, which nobody removes
    assert holds(place, b"new")


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EPERM])
def test_a_file_that_cannot_be_moved_is_overwritten(immovable: Callable[[int], Path], tmp_path: Path, number: int) -> None:
    place = immovable(number)
    place.write_bytes(b"a longer old one")
    write_text(place, "new")
    assert place.read_bytes() == b"new"
    assert entries(tmp_path) == ["out"]


def test_a_folder_half_filled_is_no_artifact_and_the_same_command_fills_it_again(
    immovable: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = immovable(errno.EBUSY)
    place.mkdir()
    make_artifact(place, b"old")
    replace = os.replace

    def interrupted(one: Any, other: Any) -> None:
        if Path(other).name == MANIFEST and Path(other).parent == place:
            raise KeyboardInterrupt
        replace(one, other)

    with monkeypatch.context() as stopped:
        stopped.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_artifact(place, b"new")
    with pytest.raises(MakegptError, match=r"has no manifest\.json"):
        read_manifest(place, "tokens")
    with pytest.raises(MakegptError, match="holds tokens; choose another folder for a dataset"):
        check_replaceable(place, "dataset")
    assert holds(make_artifact(place, b"third"), b"third")


def test_a_disk_that_is_full_costs_no_folder_that_cannot_be_moved(
    immovable: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = immovable(errno.EBUSY)
    place.mkdir()
    make_artifact(place, b"old")

    def full(one: Path, other: Path) -> None:
        other.write_bytes(b"ne")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(one), None, str(other))

    with monkeypatch.context() as disk:
        disk.setattr(shutil, "copyfile", full)
        with pytest.raises(OSError, match=f"No space left on device: '{place}'"):
            make_artifact(place, b"new")
    assert holds(place, b"old")


MOUNTED = """
mount -t tmpfs none "$1" && cd "$2" && exec "$3" -c '
import sys
from pathlib import Path
from lib.artifact.folders import replacing_folder
from lib.artifact.manifest import describe_files, new_manifest, write_manifest
place = Path(sys.argv[1])
for content in ("old", "new"):
    with replacing_folder(place, "tokens") as folder:
        (folder / content).write_text(content)
        files = describe_files(folder, [content])
        manifest = new_manifest("tokens", "tokenize", parameters={}, inputs={}, outputs=files, metadata={}, started="")
        write_manifest(folder, manifest)
assert sorted(path.name for path in place.iterdir()) == ["manifest.json", "new"]
' "$1"
"""


def test_a_mount_point_is_filled(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    (tmp_path / "out").mkdir()
    words = ["unshare", "-rm", "sh", "-c", MOUNTED, "sh", tmp_path / "out", PROJECT, sys.executable]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert entries(tmp_path) == ["out"]


# Two at once.


@pytest.mark.parametrize("atomic", [True, False])
def test_two_commands_that_end_in_the_same_moment_both_end_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, atomic: bool
) -> None:
    """The second puts its folder there just as the first has found the place empty."""
    if not atomic:
        monkeypatch.setattr(folders, "swap_paths", lambda *_: False)
    rename = os.rename
    others = [b"second", b"third"]

    def late(one: Any, other: Any) -> None:
        if Path(other) == tmp_path / "out" and others:
            folder = Path(one).with_name("other")
            content = others.pop()
            with monkeypatch.context() as quick:
                quick.setattr(os, "rename", rename)
                rename(make_artifact(folder, content), other)
        rename(one, other)

    monkeypatch.setattr(os, "rename", late)
    make_artifact(tmp_path / "out", b"first")
    assert holds(tmp_path / "out", b"first")
    assert entries(tmp_path) == ["out", "out/a.bin", "out/manifest.json"]


def test_a_folder_is_there_at_any_moment_while_it_is_replaced(tmp_path: Path) -> None:
    if not swap_paths(old(tmp_path / "one"), old(tmp_path / "two")):
        pytest.skip("this system cannot exchange two folders in one moment")
    make_artifact(tmp_path / "out", b"old")
    seen: list[bool] = []
    going = threading.Event()

    def look() -> None:
        while not going.is_set():
            seen.append((tmp_path / "out").is_dir())

    watcher = threading.Thread(target=look)
    watcher.start()
    for number in range(20):
        make_artifact(tmp_path / "out", b"%d" % number)
    going.set()
    watcher.join()
    assert seen
    assert all(seen)
