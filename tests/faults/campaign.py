"""Every stage with every call that writes failing once, killed at every call, and stopped by signals at any moment.

    LD_PRELOAD=shim.so python -m tests.faults.campaign FOLDER [short|long] [NAME...]

A process that has loaded all modules forks a child for each command, so that hundreds of them take minutes. What is held
to be wrong is told on stdout, a line each; the exit code is 1 where there was any.

After each fault: the output is the old one or the new one, whole; what is said is one line with the user's own path and
the reason; the same command then ends well with the bytes of an undisturbed run, and leaves nothing else behind.
"""

import ctypes
import errno
import functools
import gc
import importlib
import os
import random
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

from tests import forks
from tests.faults import cases
from tests.faults.cases import Case

#: What the shim does at a call; the order is that of shim.c.
COUNT, FAIL, FAIL_FROM_HERE, SHORT, SIGNAL_BEFORE, SIGNAL_AFTER = range(6)
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EDQUOT)
_SEED = 13
_PAGES = 9  # of 4,096 bytes left on a small disk: none to eight
_LONGEST = 60  # seconds for one command; the longest takes half of one


@dataclass(frozen=True)
class Fault:
    """What goes wrong: `action` at call `at` of the shim, or a signal after `seconds`, or on a disk with `room` bytes left."""

    action: int = COUNT
    value: int = 0
    at: int = 0
    call: str = ""  # which call that is, for the report
    seconds: float | None = None
    room: int | None = None

    def __str__(self) -> str:
        if self.room is not None:
            return f"a disk with {self.room} bytes left"
        if self.seconds is not None:
            return f"{signal.Signals(self.value).name} after {1000 * self.seconds:.0f} ms"
        if self.action == SHORT:
            what = "half written"
        elif self.action in (FAIL, FAIL_FROM_HERE):
            what = errno.errorcode[self.value] + (" from here on" if self.action == FAIL_FROM_HERE else "")
        else:
            what = f"{signal.Signals(self.value).name} {'before' if self.action == SIGNAL_BEFORE else 'after'}"
        return f"{what}, call {self.at}: {self.call}"

    @property
    def signal(self) -> int | None:
        return self.value if self.seconds is not None or self.action in (SIGNAL_BEFORE, SIGNAL_AFTER) else None


@dataclass(frozen=True)
class Done:
    """How a command ended: `code` is its exit code, or less than 0 the signal that killed it."""

    code: int
    said: str
    calls: list[str]
    seconds: float


def do(
    words: tuple[str, ...], folder: Path, fault: Fault = Fault(), stdin: str | None = None, stdout: str | None = None
) -> Done:
    """Run a command in `folder`, in a forked child, with `fault`."""
    scratch = folder.parent
    began = time.monotonic()
    child = os.fork()
    if not child:
        _be_the_command(words, folder, fault, stdin, stdout, scratch)
    if fault.seconds is not None:
        time.sleep(fault.seconds)
        os.kill(child, fault.value)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() - began > _LONGEST:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    said = (scratch / "stderr").read_text(encoding="utf-8", errors="replace")
    calls = (scratch / "calls").read_text(encoding="utf-8", errors="replace").splitlines()
    return Done(os.waitstatus_to_exitcode(status), said, calls, time.monotonic() - began)


def _be_the_command(
    words: tuple[str, ...], folder: Path, fault: Fault, stdin: str | None, stdout: str | None, scratch: Path
) -> None:
    """In the child: be the command, and end as it ends."""
    code = 99
    try:
        os.chdir(folder)
        writing = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        for number, opened in enumerate(
            (
                os.open(stdin or os.devnull, os.O_RDONLY),
                os.open(stdout or scratch / "stdout", writing),
                os.open(scratch / "stderr", writing),
            )
        ):
            os.dup2(opened, number)
            os.close(opened)
        calls = os.open(scratch / "calls", writing)
        name = words[0].replace("-", "_")
        sys.argv = list(words)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        main = importlib.import_module(f"stages.{name}").main
        watched = os.fsencode(folder.resolve() / "out")
        ctypes.CDLL(None).faults_arm(watched, ctypes.c_long(fault.at), fault.action, fault.value, calls)
        try:
            main([*words[1:], *(() if "--quiet" in words else ("--quiet",))])
        except SystemExit as left:
            code = int(left.code or 0)
        try:
            sys.stdout.flush()
        except OSError:
            code = 120  # as Python itself
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


class _Disk:
    """A file system of a megabyte at `folder`, which holds what lay there, with `room` bytes left until `free`d."""

    _DETACH = 2  # linux/fs.h: MNT_DETACH

    def __init__(self, folder: Path, room: int) -> None:
        held = folder.with_name("held")
        shutil.rmtree(held, ignore_errors=True)
        folder.rename(held)
        folder.mkdir()
        _mount(folder)
        shutil.copytree(held, folder, dirs_exist_ok=True, symlinks=True)
        self._folder, self._filler = folder, folder / ".filler"
        there = os.statvfs(folder)
        with self._filler.open("wb") as file:
            file.write(bytes(max(0, there.f_bavail * there.f_bsize - room)))

    def free(self) -> None:
        self._filler.unlink()

    def remove(self) -> None:
        ctypes.CDLL(None).umount2(os.fsencode(self._folder), self._DETACH)


def _mount(folder: Path) -> None:
    if ctypes.CDLL(None, use_errno=True).mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=1M"):
        raise OSError(ctypes.get_errno(), "no file system can be mounted", str(folder))


@functools.cache
def _has_disks() -> bool:
    """Whether file systems can be mounted, in a namespace of this process and its children."""
    namespace, slave_and_below = 0x00020000, 1 << 19 | 16384  # linux/sched.h: CLONE_NEWNS; linux/fs.h: MS_SLAVE, MS_REC
    system = ctypes.CDLL(None)
    return system.unshare(namespace) == 0 and system.mount(b"none", b"/", None, slave_and_below, None) == 0


class Campaign:
    """All faults of one case after another, in a folder of its own."""

    def __init__(self, base: Path, scratch: Path) -> None:
        self.scratch = scratch
        self.calls = self.faults = 0
        scratch.mkdir()
        (scratch / "base").symlink_to(base)

    def of(self, case: Case, *, long: bool) -> Iterator[str]:
        """Do the faults of `case`, and yield what is wrong."""
        template, self.folder = self.scratch / "template", self.scratch / "case"
        self._prepare(case, template)
        cases.fresh(template, self.folder)
        self.old = cases.seen(case, self.folder)
        done = self._do(case)
        if done.code:
            yield f"{case.name}: undisturbed: exit {done.code}: {done.said}"
            return
        self.new, self.names = cases.seen(case, self.folder), cases.names(self.folder)
        found = _faults(done, random.Random(f"{_SEED} {case.name}"), long=long)
        self.calls, self.faults = len(done.calls), len(found)
        for fault in found:
            cases.fresh(template, self.folder)
            for wrong in self._wrong(case, fault):
                yield f"{case.name}: {fault}: {wrong}"

    def _prepare(self, case: Case, template: Path) -> None:
        shutil.rmtree(template, ignore_errors=True)
        (template / "out").mkdir(parents=True)
        for words in case.before:
            done = do(words, template)
            assert done.code == 0, done.said
        case.prepare(template)

    def _do(self, case: Case, fault: Fault = Fault()) -> Done:
        return do(case.words, self.folder, fault, case.stdin, case.stdout)

    def _wrong(self, case: Case, fault: Fault) -> Iterator[str]:
        disk = _Disk(self.folder / "out", fault.room) if fault.room is not None else None
        try:
            done = self._do(case, fault)
            yield from _wrongly_said(case, fault, done)
            yield from (f"exit {done.code}; {wrong}" for wrong in self._wrongly_left(case, done, disk))
        finally:
            if disk:
                disk.remove()

    def _wrongly_left(self, case: Case, done: Done, disk: _Disk | None) -> Iterator[str]:
        after = cases.seen(case, self.folder)
        if done.code == 0 and after != self.new:
            yield f"but the output is not there: {_short(after)}"
        if case.stdout is None and not self._whole(case, after):
            yield f"what is there is neither the old output nor the new one: {_short(after)}"
        if disk:
            disk.free()
        again = self._do(case)
        if again.code:
            yield f"the same command then ends with {again.code}: {again.said.strip()[-300:]}"
            return
        if cases.seen(case, self.folder) != self.new:
            yield "the same command then gives other bytes than an undisturbed one"
        if more := cases.names(self.folder) - self.names:
            yield f"after the same command there is more: {', '.join(sorted(more))}"

    def _whole(self, case: Case, after: Any) -> bool:
        if case.kind == "files":
            return all(after[path] in (self.old[path], self.new[path]) for path in case.outputs)
        return after in (self.old, self.new) or (case.kind == "training" and after is None)


def _wrongly_said(case: Case, fault: Fault, done: Done) -> Iterator[str]:
    """What is wrong about exit code and words."""
    expected = {0, 1}
    if fault.signal is not None:
        expected = {0, -signal.SIGKILL if fault.signal == signal.SIGKILL else 128 + fault.signal}
    if done.code not in expected:
        yield f"exit {done.code}; it said: {done.said.strip()[-600:]}"
        return
    lines = done.said.splitlines()
    fewest = 0 if done.code <= 0 or (fault.signal and case.kind == "training") else 1  # a quiet training stops without a word
    if not fewest <= len(lines) <= (0 if done.code == 0 else 1):
        yield f"exit {done.code}; {len(lines)} lines were said: {done.said.strip()[-600:]}"
    elif done.code == 1:
        reason = os.strerror(errno.ENOSPC if fault.room is not None else fault.value)
        if reason not in done.said:
            yield f"the reason, {reason}, is not in: {done.said.strip()}"
        if ".part" in done.said or ".tmp" in done.said or "bug in makegpt" in done.said:
            yield f"a passing name: {done.said.strip()}"
        path = case.outputs[0]
        if case.stdout is None and not any(name in done.said for name in (path, case.outputs[-1], "data/play.txt")):
            yield f"{path} is not named: {done.said.strip()}"


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {'none' if each is None else f'{len(each)} bytes'}" for name, each in value.items())
    return str(value)[:300]


def _faults(done: Done, draw: random.Random, *, long: bool) -> list[Fault]:
    """The faults of a case whose undisturbed run was `done`: all calls in the long form, else some that are drawn."""
    points = [(at, call.replace("\t", " ")) for at, call in enumerate(done.calls, 1)]
    writes = [point for point in points if point[1].startswith("write")]
    return _at_all(points, writes, done, draw) if long else _at_some(points, writes, draw)


Points = list[tuple[int, str]]


def _at_some(points: Points, writes: Points, draw: random.Random) -> list[Fault]:
    """Each errno once, a kill at two calls, and two of all else."""
    found = [Fault(FAIL, number, *draw.choice(points)) for number in ERRORS]
    found += [Fault(SIGNAL_BEFORE, signal.SIGKILL, *draw.choice(points)) for _ in range(2)]
    others = [Fault(FAIL_FROM_HERE, number, *draw.choice(points)) for number in (errno.ENOSPC, errno.EROFS)]
    others += [Fault(SIGNAL_BEFORE, number, *draw.choice(points)) for number in (signal.SIGTERM, signal.SIGINT)]
    others += [Fault(SHORT, 0, *draw.choice(writes)), Fault(FAIL, errno.EINTR, *draw.choice(writes))]
    others += [Fault(room=4096 * draw.randrange(_PAGES))] if _has_disks() else []
    return found + draw.sample(others, 2)


def _at_all(points: Points, writes: Points, done: Done, draw: random.Random) -> list[Fault]:
    """At each call ENOSPC, EIO, another errno, a disk that stays full or read-only, a kill, and SIGTERM or SIGINT."""
    found = []
    for number, point in enumerate(points):
        once = (errno.ENOSPC, errno.EIO, (errno.EACCES, errno.EROFS, errno.EDQUOT)[number % 3])
        found += [Fault(FAIL, each, *point) for each in once]
        found += [Fault(FAIL_FROM_HERE, (errno.ENOSPC, errno.EROFS)[number % 2], *point)]
        found += [Fault(SIGNAL_BEFORE, each, *point) for each in (signal.SIGKILL, (signal.SIGTERM, signal.SIGINT)[number % 2])]
    found += [Fault(SIGNAL_AFTER, signal.SIGKILL, *point) for point in points[-1:]]
    found += [Fault(SHORT, 0, *point) for point in writes] + [Fault(FAIL, errno.EINTR, *point) for point in writes]
    found += [Fault(room=4096 * pages) for pages in range(_PAGES)] if _has_disks() else []
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        found += [Fault(value=number, seconds=draw.uniform(0.0, done.seconds)) for _ in range(5)]
    return found


def _warm_up(base: Path) -> None:
    """Make what all cases read, in this process: so it has loaded and asked whatever a child would load and ask again."""
    import torch

    from lib.artifact import provenance
    from lib.artifact.provenance import software_versions

    torch.set_num_threads(1)
    forks.remember_params()
    provenance.versions = functools.cache(software_versions)
    before = signal.getsignal(signal.SIGTERM)
    os.chdir(base)
    for words in cases.BASE:
        sys.argv = list(words)
        code: Any = 0
        try:
            importlib.import_module(f"stages.{words[0].replace('-', '_')}").main([*words[1:], "--quiet"])
        except SystemExit as left:
            code = left.code
        assert not code, words
    signal.signal(signal.SIGTERM, before)
    gc.collect()
    gc.freeze()  # the children share it all the longer


def _of_some(chosen: list[tuple[int, Case]], folder: Path, *, long: bool) -> int:
    """Do some of the cases; how many things were wrong."""
    wrong = 0
    for number, case in chosen:
        began, campaign = time.monotonic(), Campaign(folder / "base", folder / f"{number}")
        for line in campaign.of(case, long=long):
            print(line, flush=True)
            wrong += 1
        print(f"# {case.name}: {campaign.calls} calls, {campaign.faults} faults, {time.monotonic() - began:.1f} s", flush=True)
    return wrong


def main(folder: Path, long: bool, names: list[str]) -> int:
    """Do the campaign below `folder`, which is made; the exit code."""
    base = folder.resolve() / "base"
    cases.prepare_base(base)
    os.environ["DATA_MIRROR"] = str(base)
    os.environ["MAKEGPT_KERNEL"] = "off"
    _warm_up(base)
    if not _has_disks():
        print("# no file system can be mounted here: the small full disks are left out")
    every = [case for case in cases.cases() if (case.name in names if names else long or not case.long_only)]
    jobs = (os.cpu_count() or 1) if long else 1
    children = []
    for job in range(jobs):
        if not (child := os.fork()):
            os._exit(min(_of_some(list(enumerate(every))[job::jobs], base.parent, long=long), 100))
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(f"# {len(every)} cases, {sum(os.times()[:4]):.0f} s of processor time")
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2] == "long", sys.argv[3:]))
