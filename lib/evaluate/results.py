"""The results of an evaluation as dataclasses, as `evaluation.json` holds them. docs/evaluation.md explains each number."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lib.artifact.io import read_json
from lib.artifact.record import Count, Positive, RecordError, from_json
from lib.errors import MakegptError, printable
from lib.evaluate.metrics import Lead, Score, StandardErrors, unpaired_lead
from lib.run.folder import EVALUATION_FILE, MODEL_FILE, finished_manifest


@dataclass(frozen=True)
class EvaluatedWeights:
    """Which saved weights of a run were evaluated, and in which number format; by default those it has published."""

    saved: str = "published"
    format: str = "float32"


PUBLISHED = EvaluatedWeights()


@dataclass(frozen=True, kw_only=True)
class BaselineScore(Score):
    """A predictor that the model is compared with. `lead`: paired with the model; None for a compressor (total only)."""

    lead: Lead | None = None


@dataclass(frozen=True, kw_only=True)
class SlidingScore(Score):
    """The model in overlapping windows, one every `stride` tokens."""

    stride: Positive


@dataclass(frozen=True)
class EnsembleMember:
    """A model of an ensemble, and its own loss on the same tokens."""

    run: str
    model_sha256: str
    loss: float


@dataclass(frozen=True, kw_only=True)
class ExtraScore(Score):
    """A predictor that uses more than the model's weights (`lib.evaluate.extras`). `lead`: paired with the plain model.

    `parameters` and `seconds` of training are those of all its models; None for counts, or if the seconds are not known.
    """

    name: str
    label: str
    lead: Lead
    parameters: Count | None = None
    seconds: float | None = None
    members: tuple[EnsembleMember, ...] = ()


@dataclass(frozen=True)
class PositionBand:
    """The mean loss in nats/token at the positions `first` to `last` of a window, from 1 on."""

    first: Positive = field(metadata={"key": "from"})
    last: Positive = field(metadata={"key": "to"})
    loss: float

    def __str__(self) -> str:
        return f"{self.first:,}" if self.first == self.last else f"{self.first:,} to {self.last:,}"


@dataclass(frozen=True)
class Copying:
    """What some texts copy from the training text: the longest run in tokens, and the fraction of n-grams that are novel."""

    tokens: Count
    longest_run: Count
    novel_fraction: dict[str, float | None]  # by n
    passage: str | None = None  # the longest run as text


@dataclass(frozen=True)
class Memorization:
    """Copying in samples, in greedy continuations of training passages, and, for comparison, in a split held out.

    That is the test split in an evaluation of the test split, else the validation split.
    """

    samples: Copying | None = None
    continuations: Copying | None = None
    validation: Copying | None = None
    test: Copying | None = None


@dataclass(frozen=True)
class AnswerSample:
    """The text that a model answered, its greedy answer, and the reference."""

    prompt: str
    answer: str
    reference: str


@dataclass(frozen=True, kw_only=True)
class AnswerScores:
    """Greedy answers to a sample of the split's questions, of at most `max_new_tokens` tokens (`lib.evaluate.answers`).

    `exact_match`: the fraction that equals the reference answer; `finished`: the fraction that came to an end. `answers` and
    `references`: what these copy from the answers of the training split. `samples`: the first few.
    """

    questions: Positive
    max_new_tokens: Positive
    exact_match: float
    standard_error: float | None
    finished: float
    answers: Copying
    references: Copying
    samples: tuple[AnswerSample, ...] = ()

    def __str__(self) -> str:
        """One line for a reader of the scores."""
        error = "" if self.standard_error is None else f" ± {self.standard_error:.1%}"
        return (
            f"exact match {self.exact_match:.1%}{error} of {self.questions:,} greedy answers, {self.finished:.1%} of them "
            f"finished within {self.max_new_tokens:,} tokens; longest run copied from the training answers: "
            f"{self.answers.longest_run:,} tokens (reference answers: {self.references.longest_run:,})"
        )


@dataclass(frozen=True)
class CountedTokens:
    """How many of the `total` training tokens the n-grams were counted on."""

    counted: Count
    total: Count


@dataclass(frozen=True, kw_only=True)
class EvaluationErrors(StandardErrors):
    """Standard errors of the model's scores; None if they cannot be estimated."""

    top_1: float | None
    top_5: float | None


@dataclass(frozen=True, kw_only=True)
class Evaluation(Score):
    """A model's scores on a span of tokens, and those of the baselines on the same tokens."""

    split: str | None = None  # None for any other text
    tokens: Positive
    bytes: Count
    text_sha256: str
    top_1: float
    top_5: float
    standard_error: EvaluationErrors
    blocks: Positive
    loss_by_position: tuple[PositionBand, ...]
    sliding: SlidingScore | None = None
    unknown_tokens: int | None = None
    baselines: dict[str, BaselineScore]
    ngram_training_tokens: CountedTokens | None = None
    memorization: Memorization | None = None
    answers: AnswerScores | None = None
    extras: tuple[ExtraScore, ...] = ()
    model_sha256: str
    weights: EvaluatedWeights
    dataset: str | None = None
    parameters: dict[str, Any] | None = None

    def lead(self, name: str) -> Lead:
        """By how many nats/token the baseline `name` is ahead of the model, and whether that is significant."""
        baseline = self.baselines[name]
        return baseline.lead or unpaired_lead(self, baseline, self.blocks)

    def is_of_validation(self, metadata: dict[str, Any]) -> bool:
        """Whether it is about the text of the validation losses of the run whose manifest has these `metadata`."""
        return self.split == "val" and self.dataset == metadata.get("dataset")

    def notes(self) -> list[str]:
        """What a reader of the scores has to know: n-grams of a part of the training text only, unknown words, the answers."""
        notes = []
        if (tokens := self.ngram_training_tokens) and tokens.counted < tokens.total:
            notes.append(f"n-grams are counted on the last {tokens.counted:,} of {tokens.total:,} training tokens")
        if self.unknown_tokens:
            notes.append(f"no bits/byte: {self.unknown_tokens:,} tokens are unknown words, whose bytes are not known")
        if self.answers:
            notes.append(str(self.answers))
            for sample in self.answers.samples:
                notes.append(f"answer {printable(repr(sample.answer))}, reference {printable(repr(sample.reference))}")
        return notes


class _OfWeights(Protocol):
    @property
    def model_sha256(self) -> str: ...


AnyEvaluation = TypeVar("AnyEvaluation", bound=_OfWeights)


def read_evaluation_of(folder: Path, kind: type[AnyEvaluation]) -> AnyEvaluation:
    """The evaluation of the run in `folder`, of this `kind`; MakegptError if it is missing, damaged or of other weights."""
    path = folder / EVALUATION_FILE
    command = f"evaluate {folder} -o {path}"
    if not path.is_file():
        raise MakegptError(f"{folder} has not been evaluated; run `{command}`")
    try:
        evaluation = from_json(kind, read_json(path))
    except RecordError as error:
        raise MakegptError(f"{path} is damaged: {error}; run `{command}` again") from None
    if evaluation.model_sha256 != finished_manifest(folder).outputs[MODEL_FILE].sha256:
        raise MakegptError(f"{path} is of other weights than {folder / MODEL_FILE}; run `{command}` again")
    return evaluation


def read_evaluation(folder: Path) -> Evaluation:
    """The evaluation of the finished run in `folder`; MakegptError if it is missing, damaged or of other weights."""
    published = finished_manifest(folder).outputs[MODEL_FILE].sha256
    path = folder / EVALUATION_FILE
    command = f"evaluate {folder} -o {path}"
    if not path.is_file():
        raise MakegptError(f"{folder} has not been evaluated; run `{command}`")
    data = read_json(path)
    if isinstance(data, dict) and "loss" in data:
        if "text_sha256" not in data:
            raise MakegptError(f"{path} does not say which text it is about; run `{command}` again")
        if "split" not in data:
            raise MakegptError(f"{path} is about a separate text; runs are compared on a split: run `{command}` again")
    try:
        evaluation = from_json(Evaluation, data)
    except RecordError as error:
        raise MakegptError(f"{path} is damaged: {error}; run `{command}` again") from None
    weights = evaluation.weights
    if (evaluation.model_sha256, weights.format) != (published, PUBLISHED.format):
        raise MakegptError(
            f"{path} is of other weights ({evaluation.model_sha256:.8} in {weights.format}) than {folder / MODEL_FILE} "
            f"({published:.8} in {PUBLISHED.format}); run `{command}` again"
        )
    return evaluation
