"""How anything is written: a file is replaced whole, a pipe or a device gets the bytes as they come.

A plain file is written beside its place and moved in, through links to the file behind them; the links stay, and so do
its mode and its owner where that can be had. Another name of the same file (a hard link) keeps the old content. A file
that cannot be moved in, since it is a mount point or lies in a folder that may not be written, is overwritten at the end.

What a file system may refuse without harm, such as modes, owners, hard links and syncing, is asked for in `courtesy`.
"""

import ctypes
import errno
import os
import re
import shutil
import stat
import sys
import tempfile
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Iterable, Iterator

#: stdout, as the name of an output.
STDOUT = Path("-")

_PIECE = 1 << 20  # bytes copied at once
_LONG = 100  # bytes of a name; what is written beside a longer one is called by a hash of it, since 255 are the most
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h

_REFUSED = "ENOSYS ENOTSUP EOPNOTSUPP EINVAL ENOLCK ENOTTY EPERM EACCES EROFS EBADF EMLINK EXDEV"
#: What file systems answer when they have no locks, modes, owners, links or syncing, or none for this user.
REFUSALS = frozenset(getattr(errno, name) for name in _REFUSED.split())

#: Why a file or a folder cannot be moved, or moved over, though it can be written.
IMMOVABLE = frozenset((errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES, errno.EROFS))

#: How a name beside its place ends: the process that writes it, and what it is besides the thing itself.
PART = r"\.(\d+)\.part(\.old|\.scratch)?"

_STANDARD = {str(STDOUT): 1, "/dev/stdout": 1, "/dev/stderr": 2}  # known where there is no /dev, too
_DESCRIPTORS = re.compile(r"/dev/fd|/proc/(\d+)(/task/\d+)?/fd")


@contextmanager
def tolerating_refusal() -> Iterator[None]:
    """Do without what the file system refuses; a disk that is full or broken is still an error."""
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS:
            raise


@contextmanager
def naming_path(path: Path, *places: Path) -> Iterator[None]:
    """Have an OSError that names no file, or one in `places`, name `path`, the name that the user knows."""
    try:
        yield
    except OSError as error:
        named = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else None
        if named is None or any(named == str(place) or named.startswith((f"{place}/", f"{place}.")) for place in places):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from None
        raise


def write_file(path: Path, pieces: Iterable[bytes]) -> None:
    """Write `pieces` to the file `path`, which is replaced when all of them are there, or to a pipe or device one by one."""
    stream = _stream(path)
    if stream is None:
        with atomic_write(path) as beside, open(beside, "wb") as file:
            file.writelines(pieces)
        return
    with naming_path(Path("stdout") if path == STDOUT else path), stream as file:
        for piece in pieces:
            file.write(piece)
            file.flush()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield an empty file to write to; move it to `path` when the block ends well, else remove it."""
    path = Path(path)
    real = check_writable(path)
    if real is None or (real.exists() and not may_write_in(real.parent)):
        with tempfile.TemporaryDirectory(prefix="makegpt-") as scratch:
            beside = Path(scratch) / "part"
            with naming_path(path, beside):
                beside.touch()
                yield beside
            if real is None:
                write_file(path, _pieces(beside))
            else:
                with naming_path(path):
                    _overwrite(real, beside)
        return
    beside = temporary_path(real)
    try:
        with naming_path(path, beside, real):
            real.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(real)
            os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            mode = stat.S_IMODE(beside.stat().st_mode)  # what the umask leaves; some writers make files for their owner alone
            yield beside
            copy_mode(beside, real, mode)
            fsync_path(beside)
            try:
                os.replace(beside, real)
            except OSError as error:
                if error.errno not in IMMOVABLE or not real.exists():
                    raise
                _overwrite(real, beside)
            fsync_path(real.parent)
    finally:
        with suppress(OSError):
            beside.unlink()


def check_writable(path: Path) -> Path | None:
    """The plain file behind `path` that would be written, through all links; None for a pipe, a device or an open file.

    OSError where nothing can be written: a folder, links in a circle, a read-only file.
    """
    if _descriptor(path) is not None:
        return None
    real = follow_links(path)
    try:
        mode = os.stat(real).st_mode
    except FileNotFoundError:
        if not may_write_in(real.parent):
            raise PermissionError(errno.EACCES, f"no file may be made in {real.parent}", str(path)) from None
        return real
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder; name a file", str(path))
    if not os.access(real, os.W_OK):
        raise PermissionError(errno.EACCES, "may not be written", str(path))
    return real if stat.S_ISREG(mode) else None


def follow_links(path: Path) -> Path:
    """What `path` is in the end, all links followed, whether it is there or not.

    OSError where it can never be there: links in a circle, a link into a folder that does not exist, a file where a folder
    is needed.
    """
    real = Path(os.path.realpath(path))
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path) and not real.parent.is_dir():
            raise FileNotFoundError(
                errno.ENOENT, f"is a link to {real}, and there is no folder {real.parent}", str(path)
            ) from None
        for parent in Path(os.path.abspath(path)).parents:
            if parent.is_dir():
                break
            if os.path.lexists(parent):
                what = "a link to a folder that does not exist" if parent.is_symlink() else "a file, not a folder"
                raise NotADirectoryError(errno.ENOTDIR, f"{parent} is {what}", str(path)) from None
    return real


def _stream(path: Path) -> AbstractContextManager[BinaryIO] | None:
    """What takes bytes as they come, open: a pipe, a device, stdout or another file that is open already; None for a file."""
    if check_writable(path) is not None:
        return None
    number = _descriptor(path)
    with naming_path(path):
        if number is None or number < 0:
            return open(os.open(path, os.O_WRONLY | os.O_APPEND), "wb")
        sys.stdout.flush()
        if path == STDOUT:
            return nullcontext(sys.stdout.buffer)
        return open(os.dup(number), "wb")  # at the place in the file where it is; opening it by name would begin at its start


def _descriptor(path: Path) -> int | None:
    """The number of our open file that `path` names, itself or by links, as /dev/stdout does; -1: another process's."""
    if str(path) in _STANDARD:
        return _STANDARD[str(path)]
    for _ in range(40):  # as many links as Linux follows
        folder = os.path.realpath(path.parent)
        if (match := _DESCRIPTORS.fullmatch(folder)) and path.name.isdecimal():
            ours = match[1] is None or folder.startswith(os.path.realpath("/proc/self") + "/")
            return int(path.name) if ours else -1
        if not path.is_symlink():
            break
        path = Path(folder, os.readlink(path))
    return None


def _pieces(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        yield from iter(partial(file.read, _PIECE), b"")


def _overwrite(real: Path, beside: Path) -> None:
    """Give the file `real` the content of `beside` where it stands."""
    with open(real, "r+b") as file:
        file.writelines(_pieces(beside))
        file.truncate()
    fsync_path(real)


def temporary_path(path: Path, folder: Path | None = None) -> Path:
    """Where this process writes what is to become `path`: beside it, or in `folder`."""
    return (folder or path.parent) / f".{_stem(path)}.{os.getpid()}.part"


def _stem(path: Path) -> str:
    name = os.fsencode(path.name)
    return path.name if len(name) <= _LONG else sha256(name).hexdigest()[:32]


def remove_leftovers(path: Path, folder: Path | None = None) -> None:
    """Remove what killed processes left beside `path`, or of it in `folder`, as far as they can be seen and removed."""
    ours = re.compile(re.escape(f".{_stem(path)}") + PART)
    with suppress(OSError):
        for entry in (folder or path.parent).iterdir():
            left = ours.fullmatch(entry.name)
            if left and (not is_process_alive(int(left[1])) or (int(left[1]) == os.getpid() and left[2] != ".scratch")):
                remove_path(entry)


def remove_path(path: Path) -> None:
    """Remove a file or a folder, as far as it can be."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def is_process_alive(pid: int) -> bool:
    """Whether a process with this number is running here."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    return True


def may_write_in(folder: Path) -> bool:
    """Whether files can be made in `folder`, or in the first folder above it that is there."""
    there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    return os.access(there, os.W_OK | os.X_OK)


def copy_mode(beside: Path, path: Path, mode: int) -> None:
    """Give `beside` the mode and the owner of what is at `path`, or `mode` where there is nothing."""
    there = path.stat() if path.exists() else None
    written = beside.stat()
    if there and (there.st_uid, there.st_gid) != (written.st_uid, written.st_gid) and hasattr(os, "chown"):
        with tolerating_refusal():
            os.chown(beside, there.st_uid, there.st_gid)
    with tolerating_refusal():
        os.chmod(beside, stat.S_IMODE(there.st_mode) if there else mode)


def fsync_path(path: Path) -> None:
    """Have the disk hold what was written, so that a power cut cannot leave a moved but empty file."""
    with tolerating_refusal():
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def swap_paths(one: Path, other: Path) -> bool:
    """Have two files or folders change places in one moment; False where that cannot be done here."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError, TypeError):  # not Linux, or an old one
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)
