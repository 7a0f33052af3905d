"""Writing files: a regular file is replaced atomically, a pipe or a device gets the bytes as they come.

A regular file is written to a temporary file in the same folder and renamed. Symbolic links are followed and stay; mode and
owner stay if the file system allows it; another hard link of the file keeps the old content. A file that cannot be renamed
over, such as a mount point or a file in a read-only folder, is overwritten at the end.

Modes, owners and fsync are optional: `ignore_unsupported` skips them where the file system has none.
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

_PIECE = 1 << 20  # bytes copied at a time
_LONG = 100  # bytes of a name; the temporary name of a longer one is a hash of it, since a name has 255 at most
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h

_UNSUPPORTED = "ENOSYS ENOTSUP EOPNOTSUPP EINVAL ENOLCK ENOTTY EPERM EACCES EROFS EBADF EMLINK EXDEV"
#: Error numbers of file systems without locks, modes, owners, links or fsync, or without permission for them.
UNSUPPORTED = frozenset(getattr(errno, name) for name in _UNSUPPORTED.split())

#: Error numbers of a rename that fails although the file or folder can be written.
IMMOVABLE = frozenset((errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES, errno.EROFS))

#: The end of a temporary name: the process that writes it, then nothing, .old (the replaced folder) or .scratch.
PART = r"\.(\d+)\.part(\.old|\.scratch)?"

_STANDARD = {str(STDOUT): 1, "/dev/stdout": 1, "/dev/stderr": 2}  # also without /dev
_DESCRIPTORS = re.compile(r"/dev/fd|/proc/(\d+)(/task/\d+)?/fd")


@contextmanager
def ignore_unsupported() -> Iterator[None]:
    """Skip an optional operation that the file system does not support; a full or broken disk is still an error."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


@contextmanager
def naming_path(path: Path, *internal: Path) -> Iterator[None]:
    """Have an OSError without a file name, or about an `internal` path, name `path`, which the user knows."""
    try:
        yield
    except OSError as error:
        named = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else None
        if named is None or any(named == str(hidden) or named.startswith((f"{hidden}/", f"{hidden}.")) for hidden in internal):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from None
        raise


def write_file(path: Path, pieces: Iterable[bytes]) -> None:
    """Write `pieces` to the file `path`, which is replaced atomically, or to a pipe or device one by one."""
    stream = _stream(path)
    if stream is None:
        with atomic_write(path) as part, open(part, "wb") as file:
            file.writelines(pieces)
        return
    with naming_path(Path("stdout") if path == STDOUT else path), stream as file:
        for piece in pieces:
            file.write(piece)
            file.flush()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file to write to; rename it to `path` if the block succeeds, else remove it."""
    path = Path(path)
    real = check_writable(path)
    if real is None or (real.exists() and not may_write_in(real.parent)):
        with tempfile.TemporaryDirectory(prefix="makegpt-") as scratch:
            part = Path(scratch) / "part"
            with naming_path(path, part):
                part.touch()
                yield part
            if real is None:
                write_file(path, _pieces(part))
            else:
                with naming_path(path):
                    _overwrite(real, part)
        return
    part = temporary_path(real)
    try:
        with naming_path(path, part, real):
            real.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(real)
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            mode = stat.S_IMODE(part.stat().st_mode)  # from the umask; some writers create files for the owner alone
            yield part
            copy_mode(part, real, mode)
            fsync_path(part)
            try:
                os.replace(part, real)
            except OSError as error:
                if error.errno not in IMMOVABLE or not real.exists():
                    raise
                _overwrite(real, part)
            fsync_path(real.parent)
    finally:
        with suppress(OSError):
            part.unlink()


def check_writable(path: Path) -> Path | None:
    """The regular file that writing to `path` would replace, links followed; None for a pipe, a device or an open file.

    OSError if it cannot be written: a folder, a circle of links, a read-only file.
    """
    if _descriptor(path) is not None:
        return None
    real = follow_links(path)
    try:
        mode = os.stat(real).st_mode
    except FileNotFoundError:
        if not may_write_in(real.parent):
            raise PermissionError(errno.EACCES, f"no permission to create a file in {real.parent}", str(path)) from None
        return real
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder; use a file name", str(path))
    if not os.access(real, os.W_OK):
        raise PermissionError(errno.EACCES, "no permission to write", str(path))
    return real if stat.S_ISREG(mode) else None


def follow_links(path: Path) -> Path:
    """`path` with all links followed, whether it exists or not.

    OSError if it cannot be created: a circle of links, a link into a folder that does not exist, a file as a parent.
    """
    real = Path(os.path.realpath(path))
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path) and not real.parent.is_dir():
            raise FileNotFoundError(
                errno.ENOENT, f"is a link to {real}, but the folder {real.parent} does not exist", str(path)
            ) from None
        for parent in Path(os.path.abspath(path)).parents:
            if parent.is_dir():
                break
            if os.path.lexists(parent):
                kind = "a link to a folder that does not exist" if parent.is_symlink() else "a file, not a folder"
                raise NotADirectoryError(errno.ENOTDIR, f"{parent} is {kind}", str(path)) from None
    return real


def _stream(path: Path) -> AbstractContextManager[BinaryIO] | None:
    """An open pipe, device, stdout or other open file that `path` names; None for a regular file."""
    if check_writable(path) is not None:
        return None
    number = _descriptor(path)
    with naming_path(path):
        if number is None or number < 0:
            return open(os.open(path, os.O_WRONLY | os.O_APPEND), "wb")
        sys.stdout.flush()
        if path == STDOUT:
            return nullcontext(sys.stdout.buffer)
        return open(os.dup(number), "wb")  # keeps the position; opening it by name would begin at the start


def _descriptor(path: Path) -> int | None:
    """The file descriptor that `path` names, directly or by links, as /dev/stdout does; -1 if it is another process's."""
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


def _overwrite(real: Path, part: Path) -> None:
    """Copy the content of `part` into the existing file `real`."""
    with open(real, "r+b") as file:
        file.writelines(_pieces(part))
        file.truncate()
    fsync_path(real)


def temporary_path(path: Path, folder: Path | None = None) -> Path:
    """Where this process writes the future `path`: in its folder, or in `folder`."""
    return (folder or path.parent) / f".{_stem(path)}.{os.getpid()}.part"


def _stem(path: Path) -> str:
    name = os.fsencode(path.name)
    return path.name if len(name) <= _LONG else sha256(name).hexdigest()[:32]


def remove_leftovers(path: Path, folder: Path | None = None) -> None:
    """Remove the temporary files of `path` that killed processes left, in its folder or in `folder`, if possible."""
    pattern = re.compile(re.escape(f".{_stem(path)}") + PART)
    with suppress(OSError):
        for entry in (folder or path.parent).iterdir():
            match = pattern.fullmatch(entry.name)
            if match and (not is_process_alive(int(match[1])) or (int(match[1]) == os.getpid() and match[2] != ".scratch")):
                remove_path(entry)


def remove_path(path: Path) -> None:
    """Remove a file or a folder, if possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def is_process_alive(pid: int) -> bool:
    """Whether a process with this id is running on this machine."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    return True


def may_write_in(folder: Path) -> bool:
    """Whether files can be created in `folder`, or in its nearest parent that exists."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    return os.access(existing, os.W_OK | os.X_OK)


def copy_mode(part: Path, path: Path, mode: int) -> None:
    """Give `part` the mode and the owner of `path`, or `mode` if that does not exist."""
    old = path.stat() if path.exists() else None
    new = part.stat()
    if old and (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid) and hasattr(os, "chown"):
        with ignore_unsupported():
            os.chown(part, old.st_uid, old.st_gid)
    with ignore_unsupported():
        os.chmod(part, stat.S_IMODE(old.st_mode) if old else mode)


def fsync_path(path: Path) -> None:
    """Flush a file or folder to the disk, so that a power cut cannot leave a renamed but empty file."""
    with ignore_unsupported():
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def swap_paths(a: Path, b: Path) -> bool:
    """Exchange two files or folders atomically; False if the system cannot."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError, TypeError):  # not Linux, or an old one
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0)
