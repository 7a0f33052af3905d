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


_SCORES = {"loss": NUMBER, "perplexity?": NUMBER, "bits_per_byte?": NUMBER}
_ERRORS = {f"{name}?": NUMBER for name in ("loss", "perplexity", "bits_per_byte", "top_1", "top_5")}
_COPIED = {"tokens": int, "longest_run": int, "share_new": {"*": NUMBER | None}, "passage?": str}

#: What the sections rely on in an evaluation; an older one may have less.
_EVALUATION: dict[str, Any] = _SCORES | {
    "split": str,
    "tokens": int,
    "bytes": int,
    "top_1?": NUMBER,
    "top_5?": NUMBER,
    "standard_error?": _ERRORS,
    "sliding?": _SCORES | {"stride": int, "standard_error?": _ERRORS},
    "baselines": {"*": _SCORES | {"ahead_of_model?": {"loss": NUMBER, "standard_error": NUMBER | None}}},
    "loss_by_position?": [{"from": int, "to": int, "loss": NUMBER}],
    "memorisation?": {"samples?": _COPIED, "continuations?": _COPIED, "validation?": _COPIED},
}

#: And in the manifest of a training.
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
        _check(folder / artifact.MANIFEST, manifest, _TRAINING, "train the run again")
    evaluation = None
    if (folder / run.EVALUATION).is_file():
        evaluation = assessment.read(folder)
        _check(folder / run.EVALUATION, evaluation, _EVALUATION, "make it again with `evaluate`")
    metrics = run.read_metrics(folder) if (folder / run.METRICS).is_file() else None
    return Subject(folder, number, manifest, evaluation, metrics, samples.read(folder))


def _check(file: Path, found: Any, wanted: fields.Fields, advice: str) -> None:
    if (place := fields.damaged(found, wanted)) is not None:
        raise MakegptError(f"{file} is damaged: it does not hold what a report shows at {place}; {advice}")


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
