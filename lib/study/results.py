"""The results of a study: what came of each of its trainings, as results.json holds it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.artifact.io import json_digest, read_json
from lib.artifact.record import Count, Positive, RecordError, from_json
from lib.errors import MakegptError
from lib.evaluate.metrics import Lead
from lib.evaluate.results import EvaluationErrors, Memorization

RESULTS_FILE = "results.json"


@dataclass(frozen=True)
class PairedDifference:
    """By how many nats/token a run is worse than the best of its experiment on the same tokens, and its standard error.

    `significant`: whether that is more than chance; None if the text is too short to tell.
    """

    loss: float
    standard_error: float | None
    blocks: Count = 0  # not written by older versions
    significant: bool | None = None

    def __str__(self) -> str:
        error = None if self.significant is None else self.standard_error
        return str(Lead(self.loss, error, self.blocks, self.significant))


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """What came of one training of a study. The scores are those of the published weights on `split`."""

    experiment: str
    config: str  # its name in params.yaml
    dataset: str
    layers: Count
    width: Positive  # the embedding dimension
    learning_rate: float
    drop_rate: float
    weight_decay: float
    seed: Count
    parameters: Count
    in_blocks: Count  # parameters outside the embeddings
    in_embeddings: Count
    steps: Positive
    tokens: Positive  # trained on, repeats included
    operations: float  # FLOPs of the forward and backward passes, by the model's formula
    best_step: Count
    curve: tuple[tuple[Count, float], ...]  # (step, validation loss)
    loss: float  # nats/token
    bits_per_byte: float | None
    top_1: float
    standard_error: EvaluationErrors
    baselines: dict[str, float]  # name -> loss
    memorization: Memorization | None = None
    seconds: float | None
    threads: Positive
    versions: dict[str, Any]
    date: str
    model_sha256: str
    behind_best: PairedDifference | None = None  # of a paired experiment, but for its best run
    split: str = "val"  # not written by older versions


@dataclass(frozen=True)
class StudyEnvironment:
    """When, where and by which code a study was done."""

    dates: tuple[str, ...]
    commits: tuple[str, ...]
    processors: tuple[str, ...]
    versions: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class StudyResults:
    """The content of results.json: a row per training."""

    about: StudyEnvironment
    runs: tuple[StudyRow, ...]


def read_results(path: Path) -> StudyResults:
    """The results in the file `path`, at least one training; MakegptError if it holds none."""
    try:
        results = from_json(StudyResults, read_json(path))
        if not results.runs:
            raise RecordError("runs", "is empty")
    except RecordError as error:
        raise MakegptError(f"{path} holds no results of a study: {error}; `study -o DIR` writes them") from None
    return results


def results_digest(path: Path) -> str:
    """The SHA-256 of what the file `path` says, however it is laid out: figures name the results that they show by it."""
    return json_digest(read_json(path))
