"""The section of a report that leads from the run back to the bytes of its text."""

import shlex
from pathlib import Path
from typing import Any

from lib.artifact.io import canonical_json
from lib.errors import MakegptError
from lib.report.run_data import Missing, RunData
from lib.run.lineage import describe_artifact

#: What the description of an artifact holds besides its own facts.
_NOT_FACTS = ("path", "is", "made_by", "from", "files", "finished")


def provenance(run: RunData) -> dict[str, Any] | Missing:
    """The artifacts that the run was made from, down to the text."""
    command = f"inspect {shlex.quote(str(run.folder))}"
    try:
        description = describe_artifact(run.folder)
    except MakegptError as error:  # the run itself is good
        return Missing(f"What the run was made from cannot be read: {error}.", command)
    return {"run": _artifact(description), "command": f"{command} --verify"}


def _artifact(description: dict[str, Any]) -> dict[str, Any]:
    """One artifact or text, and what it was made from."""
    origin = description.get("made_by", {})
    entries = [_fact(key, code=_plain(value)) for key, value in description.items() if key not in _NOT_FACTS]
    if "command" in origin:
        entries.append(_fact("command", code=str(origin["command"])))
    if "started" in origin:
        entries.append(_fact("time", f"{origin['started']} to {origin.get('ended') or '–'}"))
    if len(sessions := origin.get("sessions", [])) > 1:
        entries.append(_fact("sessions", str(len(sessions))))
        entries += [_session(session) for session in sessions]
    elif versions := origin.get("versions", {}):
        entries.append(_fact("software", _software(versions)))
    inputs = [_artifact(origin_of) for origin_of in description.get("from", [])]
    return {"name": Path(str(description["path"])).name, "kind": description["is"], "facts": entries, "inputs": inputs}


def _fact(name: str, text: str = "", code: str | None = None) -> dict[str, str | None]:
    return {"name": name, "text": text, "code": code}


def _plain(value: Any) -> str:
    """A value of a JSON file: lists and objects as JSON, integers with thousands separators."""
    if isinstance(value, (dict, list)):
        return canonical_json(value)
    return f"{value:,}" if type(value) is int else str(value)


def _session(session: dict[str, Any]) -> dict[str, str | None]:
    """One session of a training: software, hardware, time and command."""
    hardware = []
    if "processes" in session:
        hardware = [f"on {session['device']}", f"{session['processes']} × {session['threads']} threads"]
    time = f"{session.get('started', '–')} to {session.get('ended') or 'a kill'}"
    return _fact(
        f"steps {session['from_step'] + 1:,} to {session['to_step']:,}",
        "; ".join([_software(session.get("versions", {})), *hardware, time]),
        str(session.get("command", "–")),
    )


def _software(versions: dict[str, Any]) -> str:
    commit = f"commit {str(versions.get('commit'))[:10]}{', with changes' if versions.get('dirty') else ''}"
    return f"makegpt {versions.get('makegpt')}, {commit}, Python {versions.get('python')}, torch {versions.get('torch', '–')}"
