"""The sessions of a training: which process trained which of its steps, when, by which command, with what.

A run's manifest lists them, oldest first: what may change between the start of a training and its end stands there.
"""

import platform
from dataclasses import replace
from typing import Any

from lib.artifact.manifest import Manifest, Session
from lib.artifact.provenance import command_line, software_versions


def begin_session(step: int, started: str, *, device: str, threads: int, processes: int, precision: str) -> Session:
    """A session of this process that trains from `step` on."""
    return Session(
        from_step=step,
        to_step=None,
        started=started,
        ended=None,
        command=command_line(),
        device=device,
        threads=threads,
        processes=processes,
        precision=precision,
        host=platform.node(),
        versions=software_versions(),
    )


def end_session(sessions: tuple[Session, ...], step: int, ended: str | None = None) -> tuple[Session, ...]:
    """The `sessions` where the last one's steps are kept up to `step`; one of which no step is kept is left out."""
    *before, last = sessions
    if last.to_step is None:
        last = replace(last, to_step=step, ended=ended)
    return tuple(before) if last.to_step == last.from_step else (*before, last)


def with_sessions(manifest: Manifest, sessions: tuple[Session, ...]) -> Manifest:
    """The manifest of a training with these sessions, of which the last has just begun."""
    last = sessions[-1]
    return replace(
        manifest,
        sessions=sessions,
        ended=None,
        command=last.command,
        device=last.device,
        threads=last.threads,
        processes=last.processes,
        versions=last.versions,
    )


def all_versions(manifest: Manifest) -> dict[str, Any]:
    """The versions that an artifact was made with: each one's value, or where sessions differ all of them, `2.12 or 2.13`."""
    versions = [session.versions for session in manifest.sessions] or [manifest.versions]
    names = {name: None for session_versions in versions for name in session_versions}
    return {name: _either([session_versions.get(name) for session_versions in versions]) for name in names}


def _either(values: list[Any]) -> Any:
    distinct = list(dict.fromkeys(values))
    if len(distinct) == 1:
        return distinct[0]
    return any(values) if all(value in (True, False, None) for value in values) else " or ".join(map(str, distinct))


def session_differences(before: Session, now: Session) -> str | None:
    """In words, in what two sessions differ that the last bits of a step depend on besides the inputs; None if in nothing.

    What one of them does not tell is no difference.
    """
    pairs = [(old, new) for old, new in zip(_conditions(before), _conditions(now), strict=True) if old and new and old != new]
    return ", ".join(f"{old}, not {new}" for old, new in pairs) or None


def _conditions(session: Session) -> list[str | None]:
    """The conditions of a session in words; None for what it does not tell."""
    versions = session.versions
    commit = (
        versions.get("commit") and f"with commit {versions['commit'][:10]}{' and changes' if versions.get('dirty') else ''}"
    )
    processor = str(versions.get("processor", "")).partition(" of ")[2]
    return [
        f"on {session.device}",
        f"by {session.processes} process{'es' if session.processes > 1 else ''}",
        f"with {session.threads} thread{'s' if session.threads > 1 else ''}",
        f"in {session.precision}",
        versions.get("torch") and f"with torch {versions['torch']}",
        commit,
        processor and f"on {processor}",
    ]
