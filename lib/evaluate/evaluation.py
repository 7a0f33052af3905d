"""Scores of a model on a split or on any text, next to baselines on the same tokens."""

import hashlib
from dataclasses import asdict, dataclass, replace
from typing import Any, Iterator, Sequence

import numpy as np
import torch

from lib.config.schema import EvaluateConfig, GenerateConfig
from lib.errors import MakegptError
from lib.evaluate.baselines import Baseline, end_of_training
from lib.evaluate.extras import Extra, ExtraSums
from lib.evaluate.metrics import (
    MIN_BLOCK,
    MIN_BLOCKS,
    BlockSums,
    Lead,
    Score,
    fraction_with_se,
    loss_scores,
    paired_lead,
    scores_with_errors,
)
from lib.evaluate.probes import Probe
from lib.evaluate.results import (
    PUBLISHED,
    BaselineScore,
    CountedTokens,
    EvaluatedWeights,
    Evaluation,
    EvaluationErrors,
    ExtraScore,
    PositionBand,
)
from lib.evaluate.span import TokenSpan
from lib.evaluate.windows import OnTokens
from lib.generate.token_scores import score_token
from lib.ngrams.counts import MAX_COUNTED_TOKENS
from lib.run.folder import TrainedModel
from lib.tokenizer.base import Tokenizer


def evaluate(
    trained: TrainedModel,
    span: TokenSpan,
    device: torch.device,
    *,
    baselines: Sequence[Baseline] = (),
    probes: Sequence[Probe] = (),
    extras: Sequence[Extra] = (),
    on_tokens: OnTokens = lambda _: None,
) -> Evaluation:
    """The scores of the model on a span, those of `baselines` and `extras` on the same tokens, and what `probes` measure.

    `on_tokens` is called with the number of tokens after each batch. See docs/evaluation.md for what each number is.
    """
    tokenizer = trained.tokenizer
    predictions = _predict(trained, span, device, on_tokens)
    n_bytes, total, unknown = count_bytes(span, tokenizer)
    scores = scores_with_errors(predictions.nats, n_bytes)
    top_1, top_1_error = fraction_with_se(predictions.top_1)
    top_5, top_5_error = fraction_with_se(predictions.top_5)
    errors = EvaluationErrors(**vars(scores.standard_error), top_1=top_1_error, top_5=top_5_error)
    evaluation = Evaluation(
        **vars(replace(scores, standard_error=errors)),
        split=span.split,
        tokens=predictions.nats.count,
        bytes=total,
        text_sha256=_text_sha256(span, tokenizer),
        top_1=top_1,
        top_5=top_5,
        blocks=len(predictions.nats.blocks),
        loss_by_position=_position_bands(predictions.by_position),
        unknown_tokens=unknown or None,
        baselines={
            name: _baseline_score(nats, predictions.nats, n_bytes)
            for baseline in baselines
            for name, nats in baseline.nats(span).items()
        },
        ngram_training_tokens=_counted_tokens(span),
        model_sha256=trained.sha256,
        weights=PUBLISHED,
        dataset=span.training.identity() if span.split and span.training else None,
    )
    for probe in probes:
        evaluation = replace(evaluation, **probe.measure(trained, span, n_bytes, device, on_tokens))
    measured = (sums for extra in extras for sums in extra.measure(span, device, on_tokens))
    return replace(evaluation, extras=tuple(_extra_score(sums, predictions.nats, n_bytes) for sums in measured))


def evaluation_parameters(config: EvaluateConfig, generate: GenerateConfig) -> dict[str, Any]:
    """The `parameters` of an evaluation: what it depends on besides its run."""
    return {"evaluate": asdict(config), "generate": asdict(generate)}


@dataclass(frozen=True)
class _Predictions:
    """A model's predictions of a span, summed by blocks."""

    nats: BlockSums
    top_1: BlockSums  # 1 for each token that was the most likely one
    top_5: BlockSums  # or among the five most likely
    by_position: np.ndarray  # (2, T): the nats at each position of a window, and how many tokens had it


def _predict(trained: TrainedModel, span: TokenSpan, device: torch.device, on_tokens: OnTokens) -> _Predictions:
    T, n = trained.config.context_length, span.predicted
    sums = _Predictions(BlockSums(n), BlockSums(n), BlockSums(n), np.zeros((2, T)))
    for nats, ranks, places in span.predict(trained.model, device):
        sums.by_position[0] += np.bincount(places - 1, weights=nats, minlength=T)
        sums.by_position[1] += np.bincount(places - 1, minlength=T)
        sums.nats.add(nats.astype(np.float64))
        sums.top_1.add(ranks <= 1)
        sums.top_5.add(ranks <= 5)
        on_tokens(len(nats))
    return sums


def _position_bands(sums: np.ndarray) -> tuple[PositionBand, ...]:
    """The mean loss at positions 1, 2, 3 to 4, 5 to 8 and so on of a window, as far as there are any."""
    nats, counts = sums
    bands = []
    first = 1
    while first <= len(counts):
        last = min(max(1, 2 * (first - 1)), len(counts))
        if count := counts[first - 1 : last].sum():
            bands.append(PositionBand(first, last, float(nats[first - 1 : last].sum() / count)))
        first = last + 1
    return tuple(bands)


def count_bytes(span: TokenSpan, tokenizer: Tokenizer) -> tuple[BlockSums | None, int, int]:
    """The bytes of the decoded text by blocks and in total, and how many tokens stand for an unknown word.

    The bytes of an unknown word are not known: they are not in the total, and the blocks are None then.
    """
    lengths, n_bytes, unknown = tokenizer.byte_lengths(), BlockSums(span.predicted), 0
    for block in span.ids():
        n_bytes.add(lengths[block])
        unknown += int((block == tokenizer.unknown).sum()) if tokenizer.unknown is not None else 0
    return None if unknown else n_bytes, round(n_bytes.total), unknown


def _baseline_score(nats: BlockSums | float, model: BlockSums, n_bytes: BlockSums | None) -> BaselineScore:
    if isinstance(nats, BlockSums):
        return BaselineScore(**vars(scores_with_errors(nats, n_bytes)), lead=paired_lead(model, nats))
    return BaselineScore(**vars(loss_scores(nats, model.count, round(n_bytes.total) if n_bytes else 0)))


def _extra_score(extra: ExtraSums, model: BlockSums, n_bytes: BlockSums | None) -> ExtraScore:
    return ExtraScore(
        **vars(scores_with_errors(extra.nats, n_bytes)),
        name=extra.name,
        label=extra.label,
        lead=paired_lead(model, extra.nats),
        parameters=extra.parameters,
        seconds=extra.seconds,
        members=extra.members,
    )


def _counted_tokens(span: TokenSpan) -> CountedTokens | None:
    if span.training is None:
        return None
    start, stop = end_of_training(span.training, MAX_COUNTED_TOKENS)
    if not span.training.packed:
        return CountedTokens(stop - start, span.training.train_tokens)
    learned = span.training.tokens.trained(0, span.training.train_tokens)
    return CountedTokens(int(learned[start:].sum()), int(learned.sum()))


def _text_sha256(span: TokenSpan, tokenizer: Tokenizer) -> str:
    """SHA-256 of the predicted text: scores of different texts are never compared, whatever their tokens."""
    digest = hashlib.sha256()
    for piece in span.text(tokenizer):
        digest.update(piece)
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class ComparedModel(Score):
    """One of two models that were compared."""

    model_sha256: str


@dataclass(frozen=True)
class PairedComparison:
    """Two models on the same tokens. `difference`: the first loss minus the second, so above 0 the second is better."""

    tokens: int
    bytes: int
    runs: tuple[ComparedModel, ComparedModel]
    weights: EvaluatedWeights
    difference: Lead
    verdict: str


#: The verdict on a comparison without an error.
TOO_SHORT = f"too short to tell: at least {MIN_BLOCKS * MIN_BLOCK} tokens are needed"


def compare_models(
    trained: TrainedModel, other: TrainedModel, span: TokenSpan, device: torch.device, on_tokens: OnTokens = lambda _: None
) -> PairedComparison:
    """Two models with the same tokenizer on the same tokens: the scores of both and their paired difference."""
    if trained.tokenizer.identity() != other.tokenizer.identity():
        raise MakegptError(
            "the two runs have different tokenizers, so they do not predict the same tokens; `compare` shows their bits/byte"
        )
    n_bytes, total, _ = count_bytes(span, trained.tokenizer)
    first, second = (_predict(model, span, device, on_tokens).nats for model in (trained, other))
    difference = paired_lead(first, second)
    verdicts = {None: TOO_SHORT, False: "no significant difference"}
    better = f"the {'second' if difference.loss > 0 else 'first'} is better"
    return PairedComparison(
        first.count,
        total,
        (
            ComparedModel(**vars(scores_with_errors(first, n_bytes)), model_sha256=trained.sha256),
            ComparedModel(**vars(scores_with_errors(second, n_bytes)), model_sha256=other.sha256),
        ),
        PUBLISHED,
        difference,
        verdicts.get(difference.significant, better),
    )


def score_tokens(trained: TrainedModel, span: TokenSpan, device: torch.device) -> Iterator[dict[str, Any]]:
    """The score of each token of a span, and its position."""
    for position, id, logits in span.logits(trained.model, device):
        yield {"position": position} | vars(score_token(logits, id, trained.tokenizer))
