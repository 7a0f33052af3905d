"""A run as a report sees it, and what all sections of a report are made with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lib.artifact.io import canonical_json
from lib.artifact.json_shape import NUMBER, first_mismatch
from lib.artifact.manifest import MANIFEST, Manifest
from lib.artifact.record import to_json
from lib.errors import MakegptError
from lib.evaluate.results import read_evaluation
from lib.report.html import Html, html_element, visible_text
from lib.report.svg import inline_svg
from lib.run.folder import EVALUATION_FILE, METRICS_FILE, finished_manifest, is_imported, read_metrics
from lib.run.samples import read_samples

MAX_SHOWN = 12  # samples, and lines of metrics


#: What the sections rely on in the manifest of a training.
_TRAINING = {
    "metadata": {"parameters": int, "best_step": int, "best_val_loss": NUMBER},
    "parameters": {"train": {"max_steps": int}},
}


@dataclass(frozen=True)
class RunData:
    """A finished run, and what has been made of it by now; `number` tells it from the others of its report."""

    folder: Path
    number: int
    manifest: Manifest
    evaluation: dict[str, Any] | None
    metrics: list[dict[str, Any]] | None
    samples: list[dict[str, Any]]

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def imported(self) -> bool:
        return is_imported(self.manifest)


def read_run_data(folder: Path, number: int) -> RunData:
    """The finished run in `folder`; MakegptError where it is none, or damaged."""
    manifest = finished_manifest(folder)
    if not is_imported(manifest):
        place = first_mismatch(manifest, _TRAINING)
        if place is not None:
            raise MakegptError(f"{folder / MANIFEST} is damaged at {place or 'its beginning'}; train the run again")
    evaluation = to_json(read_evaluation(folder)) if (folder / EVALUATION_FILE).is_file() else None
    metrics = read_metrics(folder) if (folder / METRICS_FILE).is_file() else None
    return RunData(folder, number, manifest, evaluation, metrics, read_samples(folder))


def missing_note(what: str, *commands: str) -> Html:
    """What is not there, and how to come by it."""
    made = [html_element("code", command) for command in commands]
    return html_element("p", f"{what} ", *_joined(made), class_="missing")


def _joined(parts: list[Html]) -> list[str]:
    return [piece for part in parts for piece in (", then ", part)][1:]


def format_number(value: float | None, form: str, error: float | None = None) -> str:
    """A number, with its standard error where that is known; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:{form}}" + (f" ± {error:{form}}" if error is not None else "")


def chart_element(figure: Figure, name: str, description: str, caption: str) -> Html:
    """A figure with its caption; `description` is for those who cannot see it."""
    return html_element(
        "figure", Html(inline_svg(figure, name, visible_text(description))), html_element("figcaption", caption)
    )


def thin_lines(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most `SHOWN` of the lines, the first and the last among them, at even distances."""
    if len(lines) <= MAX_SHOWN:
        return lines
    return [lines[round(place * (len(lines) - 1) / (MAX_SHOWN - 1))] for place in range(MAX_SHOWN)]


def plain_value(value: Any) -> Html:
    """A value of a JSON file as code: numbers with thousands separated, lists and objects as JSON."""
    if isinstance(value, (dict, list)):
        return html_element("code", canonical_json(value))
    return html_element("code", f"{value:,}" if type(value) is int else str(value))
