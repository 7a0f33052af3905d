"""Tokens that a model is to predict: a split of a dataset, or any text; of conversations, the answers.

A span says which tokens count and what each is predicted from. Models, n-gram counts and compressors are all scored on it.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from lib.artifact.manifest import read_manifest
from lib.data.dataset import Dataset
from lib.data.shards import InMemoryTokens, TokenSource
from lib.errors import MakegptError, UsageError
from lib.evaluate.windows import iterate_predictions, predict_batches, predict_learned, predict_texts
from lib.model.language_model import LanguageModel
from lib.ngrams.smoothing import Smoothing
from lib.run.folder import TrainedModel, dataset_folder, is_imported
from lib.tokenizer.base import Tokenizer, UnknownText


@dataclass(frozen=True)
class TokenSpan:
    """The ids `start` + 1 to `stop`, each from those before it.

    `training`: the dataset whose training split the baselines are counted on; None if there is none. `split`: which part
    of it the stretch is; None for any other text.
    """

    tokens: TokenSource
    start: int
    stop: int
    training: Dataset | None = None
    split: str | None = None

    @property
    def predicted(self) -> int:
        """How many tokens that are."""
        return self.stop - self.start - 1

    def ids(self) -> Iterator[np.ndarray]:
        """The predicted ids, in parts."""
        yield from self.tokens.blocks(self.start + 1, self.stop)

    def text(self, tokenizer: Tokenizer) -> Iterator[bytes]:
        """The bytes that the predicted ids stand for, in pieces."""
        yield from decoded_pieces(self.tokens, self.start + 1, self.stop, tokenizer)

    def predict(self, model: LanguageModel, device: torch.device) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The loss in nats, the rank and the place in its window, from 1, of each predicted id; in parts of (n,)."""
        done = 0
        for nats, ranks in predict_batches(model, self.tokens, self.start, self.stop, device):
            yield nats, ranks, 1 + (done + np.arange(len(nats))) % model.context_length
            done += len(nats)

    def logits(self, model: LanguageModel, device: torch.device) -> Iterator[tuple[int, int, Tensor]]:
        """The predicted ids one by one: where each stands, the id, and the logits (V,) it was predicted by."""
        yield from iterate_predictions(model, self.tokens, self.start, self.stop, device)

    def counted(self, smoothing: Smoothing) -> Iterator[dict[str, np.ndarray]]:
        """The loss of each predicted id from counts of n-grams, by name; in parts, (n,) arrays."""
        yield from smoothing.nats(self.tokens, self.start + 1, self.stop)


@dataclass(frozen=True)
class AnswerSpan(TokenSpan):
    """The learned tokens of the conversations of a split, each from those before it in its own conversation."""

    @cached_property
    def texts(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The ids of each conversation, and which of them are learned; cut to the dataset's T + 1."""
        assert self.training is not None
        assert self.split is not None
        return list(self.training.texts_of(self.split))

    @property
    def predicted(self) -> int:
        return sum(int(learned[1:].sum()) for _, learned in self.texts)

    def ids(self) -> Iterator[np.ndarray]:
        yield from (ids[learned] for ids, learned in self.texts)

    def text(self, tokenizer: Tokenizer) -> Iterator[bytes]:
        for ids, learned in self.texts:
            for start, stop in runs_of(learned):
                yield from decoded_pieces(InMemoryTokens(ids), start, stop, tokenizer)

    def predict(self, model: LanguageModel, device: torch.device) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        yield from predict_learned(model, self.texts, device)

    def logits(self, model: LanguageModel, device: torch.device) -> Iterator[tuple[int, int, Tensor]]:
        assert self.training is not None
        assert self.split is not None
        starts = (start for start, _ in self.training.text_ranges(self.split))
        for text, start in zip(self.texts, starts, strict=True):
            for places, rows, ids in predict_texts(model, [text], device):
                for place, id, row in zip(places.tolist(), ids.tolist(), rows.float().cpu(), strict=True):
                    yield start + place, id, row

    def counted(self, smoothing: Smoothing) -> Iterator[dict[str, np.ndarray]]:
        ids, learned = joined(self.texts)
        at = 0
        for losses in smoothing.nats(InMemoryTokens(ids), 0, len(ids)):
            count = len(next(iter(losses.values())))
            yield {name: nats[learned[at : at + count]] for name, nats in losses.items()}
            at += count


def joined(texts: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The ids of all `texts` after one another, with -1 after each, and which of them are learned: (n,) int64 and bool."""
    texts = list(texts)
    ids = [np.append(ids.astype(np.int64), -1) for ids, _ in texts]
    learned = [np.append(learned, False) for _, learned in texts]
    return np.concatenate([np.empty(0, np.int64), *ids]), np.concatenate([np.empty(0, bool), *learned])


def runs_of(learned: np.ndarray) -> list[tuple[int, int]]:
    """Where each run of true values in `learned`, (n,), begins and ends."""
    edges = np.flatnonzero(np.diff(learned.astype(np.int8), prepend=0, append=0))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def dataset_span(folder: Path, trained: TrainedModel, dataset: Dataset, split: str) -> TokenSpan:
    """A split of `dataset`, of conversations the answers.

    MakegptError if it was made with another tokenizer than the model of the run in `folder`, if a conversation is longer than
    the model's context, or if none has an answer; UsageError for labeled and parallel texts.
    """
    if dataset.labeled or dataset.parallel:
        kind, reader = ("labeled texts", "a classifier") if dataset.labeled else ("parallel texts", "an encoder-decoder")
        raise UsageError(
            f"{dataset.folder} has {kind}, which {reader} reads, and {folder} continues texts; name another dataset"
        )
    check_tokenizer(folder, trained, dataset)
    if not dataset.packed:
        return TokenSpan(dataset.tokens, *dataset.split(split), dataset, split)
    span = AnswerSpan(dataset.tokens, *dataset.split(split), dataset, split)
    if not span.predicted:
        raise MakegptError(
            f"no conversation of the {split} split of {dataset.folder} has an answer within {dataset.context_length + 1} "
            "tokens; build the dataset with a longer context length"
        )
    if (longest := max(len(ids) for ids, _ in span.texts)) > trained.config.context_length + 1:
        raise MakegptError(
            f"{dataset.folder} has conversations of {longest} tokens, and the model of {folder} a context of "
            f"{trained.config.context_length}; build the dataset with --context-length {trained.config.context_length}"
        )
    return span


def check_tokenizer(folder: Path, trained: TrainedModel, dataset: Dataset) -> None:
    """MakegptError if `dataset` was made with another tokenizer than the model of the run in `folder`."""
    if dataset.tokenizer_identity != trained.tokenizer.identity():
        raise MakegptError(
            f"{dataset.folder} was made with another tokenizer than the model of {folder}; "
            f"tokenize its text with `--tokenizer {folder}`"
        )
    dataset.tokens.check_ids(trained.tokenizer.vocab_size)


def text_span(pieces: Iterable[str], tokenizer: Tokenizer, name: str, training: Dataset | None = None) -> TokenSpan:
    """A text that comes in `pieces`, its ids in memory; MakegptError if it has too few for one to be predicted."""
    try:
        ids = np.concatenate([np.empty(0, np.uint32), *tokenizer.encode_stream(pieces)])
    except UnknownText as error:
        raise UnknownText(f"{name}: {error}") from None
    if len(ids) < 2:
        raise MakegptError(f"{name} has {len(ids)} tokens; the first has nothing to go by, so two are needed at least")
    return TokenSpan(InMemoryTokens(ids), 0, len(ids), training)


def own_dataset(folder: Path) -> Dataset | None:
    """The dataset that the run in `folder` was trained on; None for an imported run, or where it is no longer there whole."""
    if is_imported(read_manifest(folder, "run")):
        return None
    try:
        dataset = Dataset(dataset_folder(folder))
    except MakegptError:
        return None
    return dataset if is_training_dataset(folder, dataset) else None


def why_no_dataset(folder: Path) -> str | None:
    """Why the dataset that the run in `folder` was trained on cannot be opened; None if it can, or for an imported run."""
    if not is_imported(read_manifest(folder, "run")):
        try:
            Dataset(dataset_folder(folder))
        except MakegptError as error:
            return str(error)
    return None


def is_training_dataset(folder: Path, dataset: Dataset) -> bool:
    """Whether `dataset` is the one that the run in `folder` was trained on."""
    return bool(read_manifest(folder, "run").metadata.get("dataset") == dataset.identity())


def seen_in_training(folder: Path, span: TokenSpan) -> str | None:
    """A notice if `span` is held out in its own dataset, but the run in `folder` was trained on tokens of it; else None."""
    if span.training is None or span.split == "train" or is_training_dataset(folder, span.training):
        return None
    own = own_dataset(folder)
    if own and own.manifest.sources == span.training.manifest.sources:
        seen = min(span.stop, own.train_tokens) - span.start
        return f"{folder} was trained on {seen:,} of the {span.stop - span.start:,} tokens of this split" if seen > 0 else None
    texts = read_manifest(folder, "run").metadata.get("texts") or []
    if not set(texts).isdisjoint(span.training.texts()):
        return f"{folder} was trained on another dataset of the same text, which may hold tokens of this split"
    return None


def decoded_pieces(tokens: TokenSource, start: int, stop: int, tokenizer: Tokenizer) -> Iterator[bytes]:
    """The bytes that the ids `start` to `stop` add to the text before them, in pieces."""
    special = list(tokenizer.special_ids())
    previous = int(tokens.read(start - 1, start)[0]) if start else None
    for block in tokens.blocks(start, stop):
        ids = block[~np.isin(block, special)].tolist()
        if ids:
            rest = tokenizer.decode_bytes(ids).removeprefix(tokenizer.token_bytes(ids[0]))
            yield tokenizer.bytes_after(previous, ids[0]) + rest
            previous = ids[-1]
