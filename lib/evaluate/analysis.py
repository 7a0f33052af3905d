"""What a model thinks of a text, token by token: how likely each was, what it expected instead, and what its layers say.

B batch (1 here), T time, C embedding, V vocabulary, L blocks, N alternatives
"""

from dataclasses import dataclass, replace
from typing import Any, Generator, NamedTuple, Sequence

import torch
from torch import Tensor

from lib.errors import MakegptError, UsageError
from lib.evaluate.training_text import MissingText, Passage, TrainingText
from lib.evaluate.windows import logits_in_parts, nats_and_ranks
from lib.generate.sampling import DamagedWeights
from lib.generate.token_scores import token_text
from lib.model.language_model import LanguageModel, check_ids
from lib.model.maps import attention_maps, attentions, block_stack, residual_stream
from lib.tokenizer.base import Tokenizer

#: The most likely tokens of each layer that the lens shows.
LENS_TOP = 3


@dataclass(frozen=True)
class Alternative:
    """A token that may stand in a place, and how probable it is there. `content`: the bytes that it adds to the text."""

    id: int
    text: str
    content: bytes
    probability: float


@dataclass(frozen=True)
class LayerView:
    """What the model would predict if it ended after block `layer`; layer 0 is before the first block (nostalgebraist 2020).

    `surprisal`, in nats, and `rank` are those of the token that follows; None if none follows.
    """

    layer: int
    surprisal: float | None
    rank: int | None
    top: tuple[Alternative, ...]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the model expects in one place: the entropy of its distribution in nats, the most likely tokens, best first, and
    what each layer says, lowest first, if that was asked for.
    """

    entropy: float
    alternatives: tuple[Alternative, ...]
    lens: tuple[LayerView, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class AnalyzedToken:
    """A token of the text, and what was expected in its place. The first has nothing to go by: None.

    `content`: the bytes that it adds to the text. `surprisal`: -ln p in nats. `rank`: 1 is the most likely. `counted`: its
    surprisal by the counts of the training text, if that was asked for.
    """

    id: int
    text: str
    content: bytes
    surprisal: float | None = None
    rank: int | None = None
    prediction: Prediction | None = None
    counted: float | None = None


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """A text as a model sees it. `next`: what it expects after the last token, and `logits`, (V,), those of that place.

    `attention`: the weights of each layer, (H, T, T), a row for each position that looks. `counts_name`: whose counts the
    tokens have. `memorized`: passages that stand in the training text. What was not asked for is None; what was asked for and
    does not exist has the reason in `counts_missing` or `memorized_missing`.
    """

    tokens: tuple[AnalyzedToken, ...]
    next: Prediction
    logits: Tensor | None = None
    attention: tuple[Tensor, ...] | None = None
    counts_name: str | None = None
    counts_missing: str | None = None
    memorized: tuple[Passage, ...] | None = None
    memorized_missing: str | None = None


def analyze(model: LanguageModel, tokenizer: Tokenizer, ids: Sequence[int], device: torch.device, **settings: Any) -> Analysis:
    """The result of `analyze_in_turns`, whose `settings` they are."""
    turns = analyze_in_turns(model, tokenizer, ids, device, **settings)
    while True:
        try:
            next(turns)
        except StopIteration as end:
            analysis: Analysis = end.value
            return analysis


@torch.inference_mode()
def analyze_in_turns(
    model: LanguageModel,
    tokenizer: Tokenizer,
    ids: Sequence[int],
    device: torch.device,
    *,
    alternatives: int = 10,
    lens: bool = False,
    attention: bool = False,
    full: bool = False,
) -> Generator[None, None, Analysis]:
    """What `model` thinks of the text of `ids`, all in one window: at least one, at most the context length. It yields after
    each block and each part of the logits, so that others may compute in between.

    `alternatives`: how many most likely tokens of each place. `lens`: what each layer predicts. `attention`: all weights,
    computed from queries and keys as in the naive path, whichever path the model takes. `full`: the logits after the last
    token.
    """
    _check(model, ids, lens=lens, attention=attention)
    window = torch.tensor([list(ids)], device=device)  # (1, T)
    stack = block_stack(model)
    views: list[_Scores] = []
    if stack is None:
        x = model.features(window)
    else:
        for layer, stream in enumerate(residual_stream(stack, window)):
            x = stack.final_norm(stream)
            if lens and layer < model.config.n_layers:
                views.append((yield from _score(model, x, window, LENS_TOP)))
            yield
    scores = yield from _score(model, x, window, max(alternatives, LENS_TOP))
    yield
    writer = _Writer(tokenizer, ids, [*views, scores] if lens else [])
    *before, last = [writer.prediction(scores, place, alternatives) for place in range(len(ids))]
    first = AnalyzedToken(id=ids[0], text=token_text(tokenizer, ids[0]), content=tokenizer.bytes_after(None, ids[0]))
    others = [
        AnalyzedToken(
            id=id,
            text=token_text(tokenizer, id),
            content=tokenizer.bytes_after(ids[place], id),
            surprisal=scores.nats[place],
            rank=scores.ranks[place],
            prediction=prediction,
        )
        for place, (id, prediction) in enumerate(zip(ids[1:], before, strict=True))
    ]
    return Analysis(
        tokens=(first, *others),
        next=last,
        logits=scores.last.cpu() if full else None,
        attention=tuple(attention_maps(model, window)) if attention else None,
    )


def compare_with_training(
    analysis: Analysis, training: TrainingText, *, counts: bool = True, memorized: bool = True
) -> Analysis:
    """`analysis` with what the counts of the training text say of each token, and with the passages that stand in it."""
    ids = [token.id for token in analysis.tokens]
    if counts:
        try:
            first, *others = analysis.tokens
            counted = [replace(token, counted=nats) for token, nats in zip(others, training.nats(ids), strict=True)]
            analysis = replace(analysis, tokens=(first, *counted), counts_name=training.counts_name)
        except MissingText as error:
            analysis = replace(analysis, counts_missing=str(error))
    if memorized:
        try:
            analysis = replace(analysis, memorized=tuple(training.passages(ids)))
        except MissingText as error:
            analysis = replace(analysis, memorized_missing=str(error))
    return analysis


def _check(model: LanguageModel, ids: Sequence[int], *, lens: bool, attention: bool) -> None:
    T, kind = model.context_length, model.config.kind
    if not ids:
        raise MakegptError("the text has no tokens; give at least one")
    if len(ids) > T:
        raise MakegptError(f"the text has {len(ids):,} tokens, and the model a context of {T:,}; give it the last {T:,}")
    check_ids(ids, model.vocab_size)
    if lens and block_stack(model) is None:
        raise UsageError(f"the model is a {kind}, which has no blocks for a lens to look between; leave the lens out")
    if attention and not attentions(model):
        raise UsageError(f"the model is a {kind}, which has no attention; leave it out")


class _Scores(NamedTuple):
    """What (T, V) logits say: of the tokens that follow, (T - 1,) each, and of their distributions, (T,) and (T, N)."""

    nats: list[float]
    ranks: list[int]
    entropies: list[float]
    best: list[list[int]]
    probabilities: list[list[float]]
    last: Tensor  # the last row, (V,)


def _score(model: LanguageModel, x: Tensor, ids: Tensor, best: int) -> Generator[None, None, _Scores]:
    """What the head says of the features x, (1, T, C), of `ids`, (1, T); it yields between two parts."""
    scores = _Scores([], [], [], [], [], x)
    for logits in logits_in_parts(model, x, ids):
        if not torch.isfinite(logits).all():
            raise DamagedWeights
        if done := len(scores.best):
            yield
        targets = ids[0, done + 1 : done + 1 + len(logits)]
        nats, ranks = nats_and_ranks(logits[: len(targets)], targets)
        p = torch.softmax(logits, dim=-1)
        top = p.topk(min(best, p.shape[-1]))
        scores.nats.extend(nats.clamp_min(0.0).tolist())  # a sure token may have a rounded -0.0
        scores.ranks.extend(ranks.tolist())
        scores.entropies.extend(torch.special.entr(p).sum(dim=-1).tolist())
        scores.best.extend(top.indices.tolist())
        scores.probabilities.extend(top.values.tolist())
    return scores._replace(last=logits[-1])


class _Writer:
    """Writes predictions with the texts and bytes of tokens. `layers`: what the lens sees, lowest first."""

    def __init__(self, tokenizer: Tokenizer, ids: Sequence[int], layers: Sequence[_Scores]) -> None:
        self._tokenizer, self._ids, self._layers = tokenizer, ids, layers

    def prediction(self, scores: _Scores, place: int, alternatives: int) -> Prediction:
        """What is expected after the id at `place`."""
        lens = tuple(self._view(layer, number, place) for number, layer in enumerate(self._layers))
        return Prediction(
            entropy=scores.entropies[place], alternatives=self._best(scores, place, alternatives), lens=lens or None
        )

    def _view(self, scores: _Scores, layer: int, place: int) -> LayerView:
        follows = place < len(scores.nats)
        return LayerView(
            layer,
            scores.nats[place] if follows else None,
            scores.ranks[place] if follows else None,
            self._best(scores, place, LENS_TOP),
        )

    def _best(self, scores: _Scores, place: int, count: int) -> tuple[Alternative, ...]:
        previous, tokenizer = self._ids[place], self._tokenizer
        pairs = zip(scores.best[place][:count], scores.probabilities[place][:count], strict=True)
        return tuple(
            Alternative(id, token_text(tokenizer, id), tokenizer.bytes_after(previous, id), probability)
            for id, probability in pairs
        )
