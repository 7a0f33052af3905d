"""The sessions of a training: which process trained which of its steps, when, by which command, with what.

A run's manifest lists them, oldest first: what may change between the start of a training and its end stands there.
"""

import platform
from typing import Any

from lib.artifact.provenance import command_line, software_versions

Session = dict[str, Any]


def begin_session(step: int, started: str, **run: Any) -> Session:
    """A session that trains from `step` on: when, by which command, and with what: `run` is device, threads and such."""
    return {
        "from_step": step,
        "to_step": None,  # known when it ends, or from the state that it leaves
        "started": started,
        "ended": None,
        "command": command_line(),
        **run,
        "host": platform.node(),
        "versions": software_versions(),
    }


#: What a session and the manifest of a run both tell; an older manifest has no sessions.
_OF_A_SESSION = ("started", "ended", "command", "device", "threads", "processes", "precision", "host", "versions")


def sessions_in(manifest: dict[str, Any]) -> list[Session]:
    """The sessions of a training, oldest first; of an older manifest the one that it describes."""
    listed: list[Session] | None = manifest.get("sessions")
    if listed:
        return [{"to_step": None} | session for session in listed]
    return [{"from_step": 0, "to_step": None} | {name: manifest[name] for name in _OF_A_SESSION if name in manifest}]


def end_session(every: list[Session], step: int, ended: str | None = None) -> list[Session]:
    """The sessions `every` where the last one's steps are kept up to `step`; one of which no step is kept is left out."""
    *before, last = every
    if last["to_step"] is None:
        last = last | {"to_step": step, "ended": ended}
    return before if last["to_step"] == last["from_step"] else [*before, last]


def all_versions(manifest: dict[str, Any]) -> dict[str, Any]:
    """The versions that an artifact was made with: each one's value, or where sessions differ all of them, `2.12 or 2.13`."""
    every = [session.get("versions", {}) for session in sessions_in(manifest)]
    names = {name: None for session in every for name in session}
    return {name: _either([session.get(name) for session in every]) for name in names}


def _either(values: list[Any]) -> Any:
    distinct = list(dict.fromkeys(values))
    if len(distinct) == 1:
        return distinct[0]
    return any(values) if all(value in (True, False, None) for value in values) else " or ".join(map(str, distinct))


def latest_session(session: Session) -> dict[str, Any]:
    """The last session's entries at the top level of the manifest."""
    return {name: session[name] for name in ("command", "device", "threads", "processes", "versions")}


def session_differences(before: Session, now: Session) -> str | None:
    """In words, in what two sessions differ that the last bits of a step depend on besides the inputs; None if in nothing.

    What one of them does not tell is no difference.
    """
    pairs = [(old, new) for old, new in zip(_means(before), _means(now), strict=True) if old and new and old != new]
    return ", ".join(f"{old}, not {new}" for old, new in pairs) or None


def _means(session: Session) -> list[str | None]:
    processes, threads, versions = session["processes"], session["threads"], session.get("versions", {})
    commit = (
        versions.get("commit") and f"with commit {versions['commit'][:10]}{' and changes' if versions.get('dirty') else ''}"
    )
    processor = str(versions.get("processor", "")).partition(" of ")[2]
    return [
        f"on {session['device']}",
        f"by {processes} process{'es' if processes > 1 else ''}",
        f"with {threads} thread{'s' if threads > 1 else ''}",
        f"in {session['precision']}",
        versions.get("torch") and f"with torch {versions['torch']}",
        commit,
        processor and f"on {processor}",
    ]
