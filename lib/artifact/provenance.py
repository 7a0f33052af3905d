"""How an artifact was made: when, by which command, with which versions."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from lib import PROJECT, __version__


def timestamp() -> str:
    """The current time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def command_line() -> str:
    """The command line of this process."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def software_versions() -> dict[str, Any]:
    """The machine and the versions that a result may depend on; packages are not imported."""
    versions: dict[str, Any] = {
        "makegpt": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor_name(),
    }
    for package in ("torch", "numpy", "tiktoken", "safetensors"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return versions | _commit(PROJECT)


def processor_name() -> str:
    """The processor's name and the number of cores that this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    try:
        cores = len(os.sched_getaffinity(0))
    except (OSError, AttributeError):  # not Linux, or a sandbox
        cores = os.cpu_count() or 1
    return f"{cores} core{'' if cores == 1 else 's'} of {name}"


def _commit(project: Path) -> dict[str, Any]:
    """The commit of this checkout and whether files differ from it, results of benchmarks aside; None outside of a checkout."""
    if not (project / ".git").exists():
        return {"commit": None, "dirty": None}
    try:
        changes = _git(project, "status", "--porcelain", "--untracked-files=no", "--", ":!bench/results")
        return {"commit": _git(project, "rev-parse", "HEAD"), "dirty": bool(changes)}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


def _git(project: Path, *words: str) -> str:
    command = ["git", "-C", str(project), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
