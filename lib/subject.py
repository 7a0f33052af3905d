"""A run as a report sees it, and what all sections of a report are made with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lib import artifact, assessment, fields, run, samples
from lib.errors import MakegptError
from lib.fields import NUMBER
from lib.inline_svg import inline
from lib.markup import Html, element, visible

SHOWN = 12  # samples, and lines of metrics


#: What the sections rely on in the manifest of a training.
_TRAINING = {
    "facts": {"parameters": int, "best_step": int, "best_val_loss": NUMBER},
    "parameters": {"train": {"max_steps": int}},
}


@dataclass(frozen=True)
class Subject:
    """A finished run, and what has been made of it by now; `number` tells it from the others of its report."""

    folder: Path
    number: int
    manifest: artifact.Manifest
    evaluation: dict[str, Any] | None
    metrics: list[dict[str, Any]] | None
    samples: list[dict[str, Any]]

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def imported(self) -> bool:
        return run.imported(self.manifest)


def read(folder: Path, number: int) -> Subject:
    """The finished run in `folder`; MakegptError where it is none, or damaged."""
    manifest = run.finished_manifest(folder)
    if not run.imported(manifest):
        place = fields.damaged(manifest, _TRAINING)
        if place is not None:
            raise MakegptError(f"{folder / artifact.MANIFEST} is damaged at {place or 'its beginning'}; train the run again")
    evaluation = assessment.read(folder) if (folder / run.EVALUATION).is_file() else None
    metrics = run.read_metrics(folder) if (folder / run.METRICS).is_file() else None
    return Subject(folder, number, manifest, evaluation, metrics, samples.read(folder))


def missing(what: str, *commands: str) -> Html:
    """What is not there, and how to come by it."""
    made = [element("code", command) for command in commands]
    return element("p", f"{what} ", *_joined(made), class_="missing")


def _joined(parts: list[Html]) -> list[str]:
    return [piece for part in parts for piece in (", then ", part)][1:]


def number(value: float | None, form: str, error: float | None = None) -> str:
    """A number, with its standard error where that is known; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:{form}}" + (f" ± {error:{form}}" if error is not None else "")


def chart(figure: Figure, name: str, description: str, caption: str) -> Html:
    """A figure with its caption; `description` is for those who cannot see it."""
    return element("figure", Html(inline(figure, name, visible(description))), element("figcaption", caption))


def thin(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most `SHOWN` of the lines, the first and the last among them, at even distances."""
    if len(lines) <= SHOWN:
        return lines
    return [lines[round(place * (len(lines) - 1) / (SHOWN - 1))] for place in range(SHOWN)]
