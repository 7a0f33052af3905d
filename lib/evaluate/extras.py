"""Predictors that use more than one model's weights: several models, counts, or the text that was read already.

They are reported next to the plain model, with a label, and never ranked with plain models. A new extra is a class with the
method `measure` and a line in `default_extras`. Each predicts with a distribution over the whole vocabulary, and scores a
token before it learns from it. See docs/ensembles.md.
"""

from dataclasses import dataclass
from typing import Iterator, NamedTuple, Protocol, Sequence

import numpy as np
import torch

from lib.config.schema import EvaluateConfig
from lib.data.dataset import Dataset
from lib.errors import MakegptError
from lib.evaluate.baselines import count_training
from lib.evaluate.dynamic import dynamic_nats
from lib.evaluate.metrics import BlockSums, loss_scores
from lib.evaluate.results import EnsembleMember
from lib.evaluate.span import TokenSpan
from lib.evaluate.windows import OnTokens
from lib.model.registry import build_model, count_parameters
from lib.ngrams.cache import UnigramCache
from lib.ngrams.counts import NGRAM_NAMES
from lib.ngrams.kneser_ney import KneserNey
from lib.ngrams.smoothing import Smoothing
from lib.run.folder import TrainedModel


class LoadedRun(NamedTuple):
    """A run's name, its model, and how many seconds that was trained; None if it is not known."""

    name: str
    trained: TrainedModel
    seconds: float | None

    @property
    def parameters(self) -> int:
        """Those it was trained with, whatever the format of its weights here."""
        return count_parameters(build_model(self.trained.config, "meta"))


class ExtraSums(NamedTuple):
    """The nats of an extra, summed by blocks. `parameters` and `seconds` of training are those of all its models."""

    name: str
    label: str
    nats: BlockSums
    parameters: int | None = None  # None for counts alone
    seconds: float | None = None
    members: tuple[EnsembleMember, ...] = ()


class Extra(Protocol):
    """A predictor, or a family of them. `passes`: how often a model predicts the whole span."""

    @property
    def passes(self) -> int: ...

    def measure(self, span: TokenSpan, device: torch.device, on_tokens: OnTokens) -> Iterator[ExtraSums]:
        """The nats that a span costs. `on_tokens` is called with the number of tokens after each batch."""


@dataclass(frozen=True)
class Ensemble:
    """The mean of the probabilities of several models (Hansen and Salamon 1990)."""

    runs: Sequence[LoadedRun]

    @property
    def passes(self) -> int:
        return len(self.runs)

    def measure(self, span: TokenSpan, device: torch.device, on_tokens: OnTokens) -> Iterator[ExtraSums]:
        sums, *singles = (BlockSums(span.predicted) for _ in range(1 + len(self.runs)))
        for nats in aligned([_model_nats(run.trained, span, device, on_tokens) for run in self.runs]):
            sums.add(mixed_nats(nats))
            for single, losses in zip(singles, nats, strict=True):
                single.add(losses)
        members = tuple(
            EnsembleMember(run.name, run.trained.sha256, loss_scores(single.total, single.count, 0).loss)
            for run, single in zip(self.runs, singles, strict=True)
        )
        seconds = [run.seconds for run in self.runs if run.seconds is not None]
        yield ExtraSums(
            "ensemble",
            f"{len(self.runs)} models",
            sums,
            sum(run.parameters for run in self.runs),
            sum(seconds) if len(seconds) == len(self.runs) else None,
            members,
        )


@dataclass(frozen=True)
class WithCounts:
    """Half the model, half the highest order of the n-gram counts (Neubig and Dyer 2016)."""

    run: LoadedRun
    counts: KneserNey
    passes = 1

    def measure(self, span: TokenSpan, device: torch.device, on_tokens: OnTokens) -> Iterator[ExtraSums]:
        sums = BlockSums(span.predicted)
        for nats in aligned([_model_nats(self.run.trained, span, device, on_tokens), _count_nats(self.counts, span)]):
            sums.add(mixed_nats(nats))
        yield ExtraSums("with_counts", "GPT + counts", sums, self.run.parameters, self.run.seconds)


@dataclass(frozen=True)
class ReadsOn:
    """The model with dynamic evaluation; and, if there are `counts`, those with a cache, which adapt as well."""

    run: LoadedRun
    counts: KneserNey | None
    lr: float
    passes = 1

    def measure(self, span: TokenSpan, device: torch.device, on_tokens: OnTokens) -> Iterator[ExtraSums]:
        model, sums = self.run.trained.model, BlockSums(span.predicted)
        for nats in dynamic_nats(model, span.tokens, span.start, span.stop, device, self.lr):
            sums.add(nats.astype(np.float64))
            on_tokens(len(nats))
        yield ExtraSums("dynamic", "reads on", sums, self.run.parameters, self.run.seconds)
        if self.counts:
            sums = BlockSums(span.predicted)
            for nats in _count_nats(UnigramCache(self.counts), span):
                sums.add(nats)
            order = NGRAM_NAMES[len(self.counts.raw)]
            yield ExtraSums("counts_with_cache", f"{order} (counts), reads on", sums)


def default_extras(
    runs: Sequence[LoadedRun],
    training: Dataset | None,
    config: EvaluateConfig,
    *,
    ensemble: bool = False,
    with_counts: bool = False,
    dynamic: bool = False,
) -> list[Extra]:
    """The extras that are asked for: the ensemble of all runs, the others with the first run alone.

    MakegptError if the runs have different vocabularies, or if `with_counts` lacks a training text.
    """
    run = runs[0]
    tokenizer = run.trained.tokenizer
    for other in runs[1:]:
        if other.trained.tokenizer.identity() != tokenizer.identity():
            raise MakegptError(
                f"{other.name} has another tokenizer than {run.name}; the models of an ensemble must share a vocabulary"
            )
    counts = (
        KneserNey(count_training(training, config.ngram_order, tokenizer.vocab_size))
        if training and (with_counts or dynamic)
        else None
    )
    extras: list[Extra] = [Ensemble(runs)] if ensemble else []
    if with_counts:
        if counts is None:
            raise MakegptError(f"there is no training text to count for {run.name}; name a dataset: `evaluate RUN DATASET`")
        extras.append(WithCounts(run, counts))
    if dynamic:
        extras.append(ReadsOn(run, counts, config.dynamic_lr))
    return extras


def mixed_nats(nats: np.ndarray) -> np.ndarray:
    """The nats of the mean of the probabilities of k predictors: (k, n) -> (n,)."""
    lowest = nats.min(axis=0)
    mixed: np.ndarray = lowest - np.log(np.exp(lowest - nats).mean(axis=0))
    return mixed


def aligned(streams: Sequence[Iterator[np.ndarray]]) -> Iterator[np.ndarray]:
    """The values of several streams of parts of any size, together: (k, n) arrays, as long as all have some left."""
    parts = [np.empty(0)] * len(streams)
    while True:
        parts = [part if len(part) else next(filter(len, stream), part) for part, stream in zip(parts, streams, strict=True)]
        if not (n := min(map(len, parts))):
            return
        yield np.stack([part[:n] for part in parts])
        parts = [part[n:] for part in parts]


def _model_nats(trained: TrainedModel, span: TokenSpan, device: torch.device, on_tokens: OnTokens) -> Iterator[np.ndarray]:
    for nats, *_ in span.predict(trained.model, device):
        on_tokens(len(nats))
        yield nats.astype(np.float64)


def _count_nats(smoothing: Smoothing, span: TokenSpan) -> Iterator[np.ndarray]:
    """The nats of the highest order."""
    for losses in span.counted(smoothing):
        yield list(losses.values())[-1]
