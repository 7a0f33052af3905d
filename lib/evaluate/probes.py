"""Further measurements of a model on a span: each adds fields to its `Evaluation`.

A new probe is a class with the method `measure`, a field of `Evaluation`, and a line in `default_probes`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Protocol

import torch

from lib.config.schema import Config, EvaluateConfig, GenerateConfig
from lib.data.dataset import Dataset
from lib.evaluate.answers import GreedyAnswers
from lib.evaluate.memorization import measure_recall
from lib.evaluate.metrics import BlockSums, scores_with_errors
from lib.evaluate.results import SlidingScore
from lib.evaluate.span import AnswerSpan, TokenSpan, is_training_dataset
from lib.evaluate.windows import OnTokens, predict_batches
from lib.run.folder import TrainedModel


class Probe(Protocol):
    """A measurement that is not needed for the scores themselves. `passes`: how often it predicts the whole span."""

    passes: int

    def measure(
        self, trained: TrainedModel, span: TokenSpan, n_bytes: BlockSums | None, device: torch.device, on_tokens: OnTokens
    ) -> Mapping[str, Any]:
        """Fields of `Evaluation`. `n_bytes`: the bytes of each token, by blocks; None if they are not known."""


@dataclass(frozen=True)
class SlidingWindows:
    """The scores in windows of which a fraction `overlap` was read before: what a short context costs."""

    overlap: float
    passes = 1

    def measure(
        self, trained: TrainedModel, span: TokenSpan, n_bytes: BlockSums | None, device: torch.device, on_tokens: OnTokens
    ) -> Mapping[str, Any]:
        stride = max(1, round(trained.config.context_length * (1 - self.overlap)))
        sums = BlockSums(span.predicted)
        for nats, _ in predict_batches(trained.model, span.tokens, span.start, span.stop, device, stride):
            sums.add(nats.astype("float64"))
            on_tokens(len(nats))
        return {"sliding": SlidingScore(stride=stride, **vars(scores_with_errors(sums, n_bytes)))}


@dataclass(frozen=True)
class CopiedText:
    """What the model copies from its training text, in samples and greedy continuations, compared with text held out."""

    training: Dataset
    config: EvaluateConfig
    generate: GenerateConfig
    passes = 0

    def measure(
        self, trained: TrainedModel, span: TokenSpan, n_bytes: BlockSums | None, device: torch.device, on_tokens: OnTokens
    ) -> Mapping[str, Any]:
        held_out, reference = ("test", "test") if span.split == "test" else ("val", "validation")
        splits = (self.training.split("train"), self.training.split(held_out))
        measured = measure_recall(
            trained, self.training.tokens, *splits, self.config, self.generate, device, reference=reference
        )
        return {"memorization": measured}


def default_probes(folder: Path, span: TokenSpan, config: Config) -> list[Probe]:
    """The probes that `config` asks for; copies are looked for only in the dataset that the run in `folder` was trained on.

    Of conversations, which no window cuts, the greedy answers; a base model's too, to compare.
    """
    if isinstance(span, AnswerSpan):
        assert span.training is not None
        return [GreedyAnswers(span.training, config.evaluate, config.generate)] if config.evaluate.passages else []
    probes: list[Probe] = [SlidingWindows(config.evaluate.overlap)] if config.evaluate.overlap else []
    if span.split and span.training and config.evaluate.passages and is_training_dataset(folder, span.training):
        probes.append(CopiedText(span.training, config.evaluate, config.generate))
    return probes
