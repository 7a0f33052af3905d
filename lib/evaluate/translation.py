"""How well a model turns sources into targets: loss, word error rate and token error rate, next to counts of graphones.

The output of a source is greedy: at each position the most probable token, up to <|endoftext|>. It is right if it is one of the
targets that the split lists for the source. So the word error rate of a pronunciation dictionary is the fraction of its words
whose output is none of the pronunciations listed (Yao and Zweig 2015). The pair error rate counts a word once for each of them,
as g2p-seq2seq counts the lines of a dictionary. The token error rate, there of phonemes, is the edit distance to the nearest
target, summed over all sources, divided by the tokens of these targets.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Sequence

import numpy as np
import torch

from lib.artifact.record import Count, Positive
from lib.data.dataset import Dataset
from lib.data.parallel import ParallelBatch, ParallelTexts, pad
from lib.errors import MakegptError, UsageError, printable
from lib.evaluate.classification import mcnemar_p, wilson_interval
from lib.evaluate.edit_distance import edit_distance
from lib.evaluate.metrics import SIGNIFICANCE_LEVEL, BlockSums, ratio_with_se
from lib.evaluate.results import PUBLISHED, EvaluatedWeights, read_evaluation_of
from lib.evaluate.span import check_tokenizer
from lib.generate.translations import translations
from lib.model.encoder_decoder import EncoderDecoder
from lib.ngrams.alignment import Pair
from lib.ngrams.graphones import ORDER, GraphoneModel
from lib.run.folder import TrainedModel

#: Sources, or pairs, that go through the model at once.
AT_ONCE = 128

#: The baseline's name in tables.
GRAPHONES = f"{ORDER}-gram of graphones (counts)"

_EXAMPLES = 12  # wrong outputs that are listed


@dataclass(frozen=True)
class ErrorRates:
    """Of the outputs of all sources: `word_error_rate`, with its 95% interval, and `token_error_rate`.

    `pair_error_rate`: the fraction of pairs, each a source and one target, whose source has a wrong output.
    """

    word_error_rate: float
    interval: tuple[float, float]
    token_error_rate: float
    pair_error_rate: float


@dataclass(frozen=True)
class BaselineErrors:
    """A baseline: its errors, how many sources it alone has right, and how many the model alone.

    `significant`: whether these two differ by more than chance (McNemar's test, exact).
    """

    errors: ErrorRates
    right_alone: Count
    model_right_alone: Count
    significant: bool


@dataclass(frozen=True)
class WrongOutput:
    """An output that is wrong, and the targets of its source."""

    source: str
    output: str
    targets: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TranslationEvaluation:
    """A model on a split of parallel texts. `loss`, in nats/token, is that of all targets and of the end of each."""

    split: str
    sources: Positive
    pairs: Positive
    tokens: Positive
    loss: float
    loss_standard_error: float | None
    errors: ErrorRates
    baselines: dict[str, BaselineErrors]
    wrong: tuple[WrongOutput, ...]
    model_sha256: str
    weights: EvaluatedWeights = PUBLISHED
    dataset: str
    parameters: dict[str, Any] | None = None


class References:
    """The different sources of a split, each with its targets, in order: lists of ids."""

    def __init__(self, texts: ParallelTexts, split: str) -> None:
        self.split = split
        by_source: dict[tuple[int, ...], list[list[int]]] = {}
        for number in texts.numbers(split):
            by_source.setdefault(tuple(texts.source(number).tolist()), []).append(texts.target(number).tolist())
        self.sources = [list(source) for source in by_source]
        self.targets = list(by_source.values())

    def right(self, outputs: Sequence[list[int]]) -> np.ndarray:
        """Whether each output is one of the targets of its source: (sources,) bool."""
        return np.array([output in targets for output, targets in zip(outputs, self.targets, strict=True)])

    def errors(self, outputs: Sequence[list[int]]) -> ErrorRates:
        """The error rates of an output for each source."""
        right = self.right(outputs)
        nearest = [
            min((edit_distance(output, target), len(target)) for target in targets)
            for output, targets in zip(outputs, self.targets, strict=True)
        ]
        distance, length = np.array(nearest).sum(axis=0)
        low, high = wilson_interval(int((~right).sum()), len(right))
        lines = np.array([len(targets) for targets in self.targets])
        pair_error_rate = float(lines[~right].sum() / lines.sum())
        return ErrorRates(float(1 - right.mean()), (low, high), float(distance / length), pair_error_rate)


def evaluate_translation(
    trained: TrainedModel,
    folder: Path,
    dataset: Dataset,
    references: References,
    device: torch.device,
    on_sources: Callable[[int], None] = lambda _: None,
) -> TranslationEvaluation:
    """The encoder-decoder of the run in `folder` on the split of `references`, next to counts of the others.

    `on_sources` is called with the number of sources after each batch. MakegptError if the tokenizers differ or the split is
    missing.
    """
    texts, model = parallel_texts(folder, dataset), trained.model
    assert isinstance(model, EncoderDecoder)
    check_tokenizer(folder, trained, dataset)
    if dataset.context_length > model.context_length:
        raise UsageError(
            f"{dataset.folder} has texts of up to {dataset.context_length} tokens, more than the context of {folder}, "
            f"{model.context_length}; build one with `build-dataset --context-length {model.context_length}`"
        )
    split = references.split
    numbers = texts.numbers(split)
    if not len(numbers):
        raise MakegptError(f"{dataset.folder} has no {split} split; build one with --{split}-fraction 0.1, and train on it")
    nats = BlockSums(texts.target_tokens(numbers))
    for at in range(0, len(numbers), AT_ONCE):
        nats.add(target_nats(model, texts.batch(numbers[at : at + AT_ONCE]), device))
    outputs: list[list[int]] = []
    for at in range(0, len(references.sources), AT_ONCE):
        part = references.sources[at : at + AT_ONCE]
        source, lengths = map(torch.from_numpy, pad([np.array(ids, np.int64) for ids in part], texts.end))
        outputs += translations(model, source.to(device), lengths.to(device), texts.end, model.context_length)
        on_sources(len(part))
    right = references.right(outputs)
    loss, error = ratio_with_se(nats.blocks, nats.sizes)
    training = [Pair(texts.source(number).tolist(), texts.target(number).tolist()) for number in texts.numbers("train")]
    decode = trained.tokenizer.decode
    return TranslationEvaluation(
        split=split,
        sources=len(references.sources),
        pairs=len(numbers),
        tokens=nats.tokens,
        loss=loss,
        loss_standard_error=error,
        errors=references.errors(outputs),
        baselines={GRAPHONES: _baseline(GraphoneModel(training).predict(references.sources), references, right)},
        wrong=tuple(
            WrongOutput(
                decode(references.sources[row]),
                decode(outputs[row]).strip(),
                tuple(decode(target).strip() for target in references.targets[row]),
            )
            for row in _spread(np.flatnonzero(~right))
        ),
        model_sha256=trained.sha256,
        dataset=dataset.identity(),
    )


@torch.inference_mode()
def target_nats(model: EncoderDecoder, batch: ParallelBatch, device: torch.device) -> np.ndarray:
    """The loss of each token of the targets of `batch` and of the end of each, row after row: (n,) in nats."""
    source, source_lengths, target, target_lengths = (torch.from_numpy(part).to(device) for part in batch)
    features = model.decode(target[:, :-1], [model.encode(source, source_lengths)])
    log_probs = model.out_head(features).float().log_softmax(dim=-1)  # (B, T, V)
    nats = -log_probs.gather(2, target[:, 1:, None]).squeeze(2)
    predicted = torch.arange(nats.shape[1], device=device) < target_lengths[:, None]
    return np.asarray(nats[predicted].double().cpu())


def _baseline(outputs: Sequence[list[int]], references: References, model_right: np.ndarray) -> BaselineErrors:
    right = references.right(outputs)
    alone, model_alone = int((right & ~model_right).sum()), int((model_right & ~right).sum())
    return BaselineErrors(
        errors=references.errors(outputs),
        right_alone=alone,
        model_right_alone=model_alone,
        significant=mcnemar_p(alone, model_alone) < SIGNIFICANCE_LEVEL,
    )


def _spread(rows: np.ndarray) -> np.ndarray:
    """At most `_EXAMPLES` of `rows`, from all over them."""
    return rows[np.arange(min(len(rows), _EXAMPLES)) * len(rows) // max(1, min(len(rows), _EXAMPLES))]


def parallel_texts(folder: Path, dataset: Dataset) -> ParallelTexts:
    """The parallel texts of `dataset`; UsageError, about the run in `folder`, if it has none."""
    if dataset.parallel is None:
        raise UsageError(
            f"{folder} translates sources to targets, and {dataset.folder} has no parallel texts; use `tokenize --parallel`"
        )
    return dataset.parallel


def translation_table(name: str, evaluation: TranslationEvaluation) -> list[str]:
    """The evaluation as lines: the model called `name` and the baselines, and some outputs that are wrong."""
    rows = [(name, evaluation.errors, "")]
    for baseline, score in evaluation.baselines.items():
        remark = f"+{score.right_alone} -{score.model_right_alone}" + ("" if score.significant else " (n.s.)")
        rows.append((baseline, score.errors, remark))
    rows.sort(key=lambda row: row[1].word_error_rate)
    width = max(len(row[0]) for row in rows)
    error = "" if evaluation.loss_standard_error is None else f" ± {evaluation.loss_standard_error:.3f}"
    lines = [
        f"{evaluation.split} split, {evaluation.sources:,} sources with {evaluation.pairs:,} targets; "
        f"{name}: {evaluation.loss:.3f}{error} nats/token",
        "",
        f"{'':{width}}  word errors  95% interval       token errors  sources right that {name} has wrong, and the reverse",
    ]
    for row, errors, remark in rows:
        low, high = errors.interval
        cells = f"{errors.word_error_rate:11.2%}  {low:6.2%} to {high:6.2%}  {errors.token_error_rate:12.2%}  {remark}"
        lines.append(f"{row:{width}}  {cells}".rstrip())
    wrong = [
        f"{printable(example.source)}: {printable(example.output) or '(nothing)'}, not {printable(' / '.join(example.targets))}"
        for example in evaluation.wrong
    ]
    return [*lines, *(["", "some that are wrong:"] if wrong else []), *wrong]


def read_translation_evaluation(folder: Path) -> TranslationEvaluation:
    """As `read_evaluation_of`, of the encoder-decoder in `folder`."""
    return read_evaluation_of(folder, TranslationEvaluation)
