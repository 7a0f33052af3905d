"""A run's evaluation: the model on a split of a dataset or on any text, beside what it is measured against."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import torch

from lib.artifact.io import read_json
from lib.artifact.json_shape import COUNT, NUMBER, POSITIVE, JsonShape, first_mismatch
from lib.config.schema import EvaluateConfig, GenerateConfig
from lib.data.dataset import Dataset
from lib.data.shards import TokenSource
from lib.errors import MakegptError
from lib.evaluate.compressors import COMPRESSORS, LOOK_BACK, added_bytes
from lib.evaluate.memorization import measure_recall
from lib.evaluate.metrics import BlockSums, difference, fraction_with_se, loss_scores, scores_with_errors
from lib.evaluate.ngrams import MAX_COUNTED_TOKENS, NGrams
from lib.evaluate.span import TokenSpan, is_training_dataset
from lib.evaluate.verdict import verdict_of_two, verdict_sentences
from lib.evaluate.windows import OnTokens, iterate_predictions, predict_batches
from lib.generate.token_scores import score_token
from lib.run.folder import EVALUATION_FILE, MODEL_FILE, TrainedModel, finished_manifest
from lib.tokenizer.base import Tokenizer

#: The weights that a run is known by: those it has published, as they were trained.
PUBLISHED = ("best", "float32")


@dataclass(frozen=True)
class _Read:
    """A model's way through a stretch, in sums by blocks."""

    nats: BlockSums
    best: BlockSums  # 1 for each token that the model found likeliest
    best_5: BlockSums  # or among the five likeliest
    by_position: np.ndarray  # (2, T): the nats at each position of a window, and how many tokens had it


def _read(
    trained: TrainedModel, stretch: TokenSpan, device: torch.device, on_tokens: OnTokens | None, stride: int | None = None
) -> _Read:
    T = trained.config.context_length
    n = stretch.predicted
    found = _Read(BlockSums(n), BlockSums(n), BlockSums(n), np.zeros((2, T)))
    for nats, ranks in predict_batches(trained.model, stretch.tokens, stretch.start, stretch.stop, device, stride):
        positions = (found.nats.count + np.arange(len(nats))) % T
        found.by_position[0] += np.bincount(positions, weights=nats, minlength=T)
        found.by_position[1] += np.bincount(positions, minlength=T)
        found.nats.add(nats.astype(np.float64))
        found.best.add(ranks <= 1)
        found.best_5.add(ranks <= 5)
        if on_tokens:
            on_tokens(len(nats))
    return found


def count_passes(config: EvaluateConfig) -> int:
    """How often `assess` goes through a stretch."""
    return 2 if config.overlap else 1


def evaluate_run(
    folder: Path,
    trained: TrainedModel,
    stretch: TokenSpan,
    config: EvaluateConfig,
    generate: GenerateConfig,
    device: torch.device,
    on_tokens: OnTokens | None = None,
    weights: tuple[str, str] = PUBLISHED,
) -> dict[str, Any]:
    """All that is said of the model of the run in `folder` on a stretch: see docs/evaluation.md for what each number is.

    What it is measured against is nested under `baselines`; n-grams are counted on the training split, and scored on the
    same tokens as the model. What it has copied from its training text is told of a run's own dataset alone. `weights`: which
    of its run's `trained` holds, and in which numbers.
    """
    made = trained.tokenizer
    read = _read(trained, stretch, device, on_tokens)
    n_bytes, total, unknown = _bytes(stretch, made)
    found = _scores(read, n_bytes)
    if config.overlap:
        stride = max(1, round(trained.config.context_length * (1 - config.overlap)))
        found["sliding"] = {"stride": stride} | scores_with_errors(
            _read(trained, stretch, device, on_tokens, stride).nats, n_bytes
        )
    if unknown:
        found["unknown_tokens"] = unknown
    found["baselines"] = _baselines(stretch, made, config.ngram_order, read.nats, n_bytes)
    if training := stretch.training:
        found["counted"] = {"tokens": min(training.train_tokens, MAX_COUNTED_TOKENS), "of": training.train_tokens}
    found["verdict"] = verdict_sentences(found)
    if stretch.split and training and config.passages and is_training_dataset(folder, training):
        splits = (training.split("train"), training.split("val"))
        found["memorization"] = measure_recall(trained, training.tokens, *splits, config, generate, device)
    return {
        **({"split": stretch.split} if stretch.split else {}),
        "tokens": read.nats.count,
        "bytes": total,
        "text_sha256": _sha256(stretch, made),
        **found,
        "model_sha256": trained.sha256,
        "weights": _told(weights),
        **({"dataset": training.identity()} if stretch.split and training else {}),
        "parameters": parameter_count(config, generate),
    }


def parameter_count(config: EvaluateConfig, generate: GenerateConfig) -> dict[str, Any]:
    """What an evaluation depends on beside its run, as it tells it itself."""
    return {"evaluate": asdict(config), "generate": asdict(generate)}


def _scores(read: _Read, n_bytes: BlockSums | None) -> dict[str, Any]:
    found = scores_with_errors(read.nats, n_bytes)
    for name, right in (("top_1", read.best), ("top_5", read.best_5)):
        found[name], found["standard_error"][name] = fraction_with_se(right)
    return found | {"blocks": len(read.nats.blocks), "loss_by_position": _by_position(read.by_position)}


def _by_position(sums: np.ndarray) -> list[dict[str, Any]]:
    """The mean loss at positions 1, 2, 3 to 4, 5 to 8 and so on of a window; so far as there are any."""
    nats, counts = sums
    found = []
    first = 1
    while first <= len(counts):
        last = min(max(1, 2 * (first - 1)), len(counts))
        if count := counts[first - 1 : last].sum():
            found.append({"from": first, "to": last, "loss": float(nats[first - 1 : last].sum() / count)})
        first = last + 1
    return found


def _bytes(stretch: TokenSpan, made: Tokenizer) -> tuple[BlockSums | None, int, int]:
    """The bytes of the decoded text as they count for scores, all of them, and how many tokens stand for an unknown word.

    The bytes of an unknown word are not known: they are not among all, and where there is one there are no scores by bytes.
    """
    lengths, n_bytes, unknown = made.byte_lengths(), BlockSums(stretch.predicted), 0
    for block in stretch.tokens.blocks(stretch.start + 1, stretch.stop):
        n_bytes.add(lengths[block])
        unknown += int((block == made.unknown).sum()) if made.unknown is not None else 0
    return None if unknown else n_bytes, round(n_bytes.total), unknown


def _baselines(stretch: TokenSpan, made: Tokenizer, order: int, model: BlockSums, n_bytes: BlockSums | None) -> dict[str, Any]:
    """Guessing, counting and compressing on the same tokens; but for compressing, by how much each is ahead of the model."""
    total = round(n_bytes.total) if n_bytes else 0
    counted = {"uniform": BlockSums(stretch.predicted)}
    for block in stretch.tokens.blocks(stretch.start + 1, stretch.stop):
        counted["uniform"].add(np.full(len(block), np.log(made.vocab_size)))
    if training := stretch.training:
        ngrams = NGrams(training.tokens, *_end(training, MAX_COUNTED_TOKENS), order, made.vocab_size)
        for part in ngrams.nats(stretch.tokens, stretch.start + 1, stretch.stop):
            for name, nats in part.items():
                counted.setdefault(name, BlockSums(stretch.predicted)).add(nats)
    found = {name: scores_with_errors(sums, n_bytes) | {"lead": difference(model, sums)} for name, sums in counted.items()}
    # as much of the training split as a compressor can look back on: a token is a byte at least
    before = _text(training.tokens, *_end(training, LOOK_BACK), made) if training else iter(())
    given = b"".join(before)[-LOOK_BACK:]
    for name in COMPRESSORS:
        bits = 8 * added_bytes(name, given, lambda: _text(stretch.tokens, stretch.start + 1, stretch.stop, made))
        found[name] = loss_scores(bits * float(np.log(2)), stretch.predicted, total)
    return found


def _end(training: Dataset, tokens: int) -> tuple[int, int]:
    """The last `tokens` of the training split, or all where it has no more."""
    start, stop = training.split("train")
    return max(start, stop - tokens), stop


def _text(tokens: TokenSource, start: int, stop: int, made: Tokenizer) -> Iterator[bytes]:
    """The bytes that the ids `start` to `stop` add to what stands before them, in pieces."""
    special = list(made.special_ids())
    before = int(tokens.read(start - 1, start)[0]) if start else None
    for block in tokens.blocks(start, stop):
        ids = block[~np.isin(block, special)].tolist()
        if ids:
            yield made.bytes_after(before, ids[0]) + made.decode_bytes(ids).removeprefix(made.token_bytes(ids[0]))
            before = ids[-1]


def _sha256(stretch: TokenSpan, made: Tokenizer) -> str:
    """SHA-256 of the text that is predicted: scores of other texts are not compared, whatever tokens and models they are of."""
    digest = hashlib.sha256()
    for piece in _text(stretch.tokens, stretch.start + 1, stretch.stop, made):
        digest.update(piece)
    return digest.hexdigest()


def _told(weights: tuple[str, str]) -> dict[str, str]:
    return dict(zip(("saved", "format"), weights, strict=True))


def compare_runs(
    trained: TrainedModel,
    other: TrainedModel,
    stretch: TokenSpan,
    device: torch.device,
    on_tokens: OnTokens | None = None,
    weights: tuple[str, str] = PUBLISHED,
) -> dict[str, Any]:
    """Two models on the same tokens: the scores of both and their paired difference; MakegptError for two tokenizers."""
    if trained.tokenizer.identity() != other.tokenizer.identity():
        raise MakegptError(
            "the two runs have different tokenizers, so they do not predict the same tokens; `compare` shows their bits/byte"
        )
    n_bytes, total, _ = _bytes(stretch, trained.tokenizer)
    mine, theirs = (_read(each, stretch, device, on_tokens).nats for each in (trained, other))
    found = difference(mine, theirs)
    return {
        "tokens": mine.count,
        "bytes": total,
        "runs": [
            scores_with_errors(nats, n_bytes) | {"model_sha256": each.sha256}
            for nats, each in ((mine, trained), (theirs, other))
        ],
        "weights": _told(weights),
        "difference": found,
        "verdict": verdict_of_two(found),
    }


def score_tokens(trained: TrainedModel, stretch: TokenSpan, device: torch.device) -> Iterator[dict[str, Any]]:
    """What the model thought of each token of a stretch: its position, and its analysis."""
    for position, id, logits in iterate_predictions(trained.model, stretch.tokens, stretch.start, stretch.stop, device):
        yield {"position": position} | vars(score_token(logits, id, trained.tokenizer))


def read_evaluation(folder: Path) -> dict[str, Any]:
    """The evaluation of the run in `folder`: the content of its evaluation.json; MakegptError where it is of other weights."""
    path = folder / EVALUATION_FILE
    if not path.is_file():
        raise MakegptError(f"{folder} has not been evaluated; do it with `evaluate {folder} -o {path}`")
    found = read_json(path)
    if isinstance(found, dict) and "loss" in found and "text_sha256" not in found:
        raise MakegptError(f"{path} does not say which text it is about; make it again with `evaluate {folder} -o {path}`")
    if isinstance(found, dict) and "loss" in found and "split" not in found:
        raise MakegptError(
            f"{path} is about a text of its own; runs are compared on a split: make it again with `evaluate {folder} -o {path}`"
        )
    if (place := first_mismatch(found, _EVALUATION)) is not None:
        what = f"it is no evaluation at {place}" if place else "it is no evaluation"
        raise MakegptError(f"{path} is damaged: {what}; make it again with `evaluate {folder} -o {path}`")
    published = finished_manifest(folder)["outputs"][MODEL_FILE]["sha256"]
    sha256, format = found["model_sha256"], found["weights"]["format"]
    if (sha256, format) != (published, PUBLISHED[1]):
        raise MakegptError(
            f"{path} is of other weights ({sha256:.8} in {format}) than {folder / MODEL_FILE} ({published:.8} in float32); "
            f"make it again with `evaluate {folder} -o {path}`"
        )
    return found


def of_own_validation(evaluation: dict[str, Any], metadata: dict[str, Any]) -> bool:
    """Whether an evaluation is about the text of the validation losses of the run whose manifest has these `metadata`."""
    return bool(evaluation["split"] == "val" and evaluation.get("dataset") == metadata.get("dataset"))


_SCORES: dict[str, Any] = {"loss": NUMBER, "perplexity?": NUMBER, "bits_per_byte?": NUMBER}
_ERRORS = {f"{name}?": NUMBER for name in ("loss", "perplexity", "bits_per_byte", "top_1", "top_5")}
_COPIED = {"tokens": COUNT, "longest_run": COUNT, "novel_fraction": {"*": NUMBER | None}, "passage?": str}

_LEAD = {"loss": NUMBER, "standard_error": NUMBER | None, "blocks": int, "significant": bool | None}

#: What is relied on where an evaluation is read back.
_EVALUATION: JsonShape = _SCORES | {
    "model_sha256": str,
    "weights": {"saved": str, "format": str},
    "split": str,
    "tokens": POSITIVE,
    "bytes": COUNT,
    "text_sha256": str,
    "blocks": POSITIVE,
    "top_1": NUMBER,
    "top_5": NUMBER,
    "standard_error": _ERRORS,
    "sliding?": _SCORES | {"stride": POSITIVE, "standard_error": _ERRORS},
    "baselines": {"*": _SCORES | {"lead?": _LEAD}},
    "loss_by_position": [{"from": POSITIVE, "to": POSITIVE, "loss": NUMBER}],
    "memorization?": {"samples?": _COPIED, "continuations?": _COPIED, "validation?": _COPIED},
}
