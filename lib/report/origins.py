"""The section of a report that leads from the run back to the bytes of its text."""

import shlex
from pathlib import Path
from typing import Any

from lib.errors import MakegptError
from lib.report.html import Html, html_element, html_terms
from lib.report.run_data import RunData, missing_note, plain_value
from lib.run.lineage import describe_artifact


def origins(subject: RunData) -> Html:
    """The way back from the run to the bytes of the text."""
    try:
        described = describe_artifact(subject.folder)
    except MakegptError as error:  # the run is good without what it was made from
        return missing_note(f"The way back is broken: {error}.", f"inspect {shlex.quote(str(subject.folder))}")
    check = html_element(
        "p", "Every file can be checked: ", html_element("code", f"inspect {shlex.quote(str(subject.folder))} --verify")
    )
    return Html(html_element("ol", _origin(described), class_="origins") + check)


def _origin(described: dict[str, Any]) -> Html:
    """One artifact or text, and below it what it was made from."""
    name = Path(str(described["path"])).name
    made, versions = described.get("made_by", {}), described.get("made_by", {}).get("versions", {})
    facts = [
        (key, value) for key, value in described.items() if key not in ("path", "is", "made_by", "from", "files", "finished")
    ]
    told: list[tuple[str, str]] = [(key, plain_value(value)) for key, value in facts]
    if "command" in made:
        told.append(("made by", html_element("code", str(made["command"]))))
    if "started" in made:
        told.append(("when", f"{made['started']} to {made.get('ended') or '–'}"))
    if len(sessions := made.get("sessions", [])) > 1:
        told.append(("trained in", f"{len(sessions)} sessions"))
        told += [(f"steps {each['from_step'] + 1:,} to {each['to_step']:,}", _session(each)) for each in sessions]
    elif versions:
        told.append(("with", _with(versions)))
    below = [_origin(one) for one in described.get("from", [])]
    title = html_element("p", html_element("strong", html_element("bdi", name)), f": {described['is']}")
    return html_element("li", title, html_terms(told, class_="facts"), html_element("ol", *below) if below else "")


def _session(session: dict[str, Any]) -> Html:
    """One session of a training: with what, when, by which command."""
    means = (
        [f"on {session['device']}", f"{session['processes']} × {session['threads']} threads"] if "processes" in session else []
    )
    when = f"{session.get('started', '–')} to {session.get('ended') or 'a kill'}"
    return html_element("span", "; ".join([_with(session.get("versions", {})), *means, when]), ": ",
                   html_element("code", str(session.get("command", "–"))))  # fmt: skip


def _with(versions: dict[str, Any]) -> str:
    commit = f"commit {str(versions.get('commit'))[:10]}{', changed' if versions.get('dirty') else ''}"
    return f"makegpt {versions.get('makegpt')}, {commit}, Python {versions.get('python')}, torch {versions.get('torch', '–')}"
