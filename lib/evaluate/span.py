"""A stretch of tokens that a model is to predict: a split of a dataset, or any text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Iterator

import numpy as np

from lib.artifact.manifest import read_manifest
from lib.data.dataset import Dataset
from lib.data.shards import InMemoryTokens, TokenSource
from lib.errors import MakegptError, UsageError
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


def dataset_span(folder: Path, trained: TrainedModel, dataset: Dataset, split: str) -> TokenSpan:
    """A split of `dataset`; MakegptError if that was made with another tokenizer than the model of the run in `folder`."""
    if dataset.tokenizer_identity != trained.tokenizer.identity():
        raise MakegptError(
            f"{dataset.folder} was made with another tokenizer than the model of {folder}; "
            f"tokenize its text with `--tokenizer {folder}`"
        )
    if dataset.packed:
        raise UsageError(
            f"{dataset.folder} holds conversations, and evaluate reads running text: the loss of their answers on the "
            "validation split is in metrics.jsonl; `evaluate RUN --text FILE` scores any text"
        )
    dataset.tokens.check_ids(trained.tokenizer.vocab_size)
    return TokenSpan(dataset.tokens, *dataset.split(split), dataset, split)


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
