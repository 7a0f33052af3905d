"""A stretch of tokens that a model is to predict: a split of a dataset, or any text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Iterable

import numpy as np

from lib import artifact, run
from lib.dataset import Dataset
from lib.errors import MakegptError
from lib.run import Trained
from lib.shards import Held, Readable
from lib.tokenizer import Tokenizer, UnknownText


@dataclass(frozen=True)
class Stretch:
    """The ids `start` + 1 to `stop`, each from those before it.

    `training`: the dataset whose training split the baselines are counted on; None where there is none. `split`: which part
    of it the stretch is; None for any other text.
    """

    tokens: Readable
    start: int
    stop: int
    training: Dataset | None = None
    split: str | None = None

    @property
    def predicted(self) -> int:
        """How many tokens that are."""
        return self.stop - self.start - 1


def of_dataset(folder: Path, trained: Trained, dataset: Dataset, split: str) -> Stretch:
    """A split of `dataset`; MakegptError where that was made with another tokenizer than the model of the run in `folder`."""
    if dataset.tokenizer_identity != trained.tokenizer.identity():
        raise MakegptError(
            f"{dataset.folder} was made with another tokenizer than the model of {folder}; "
            f"tokenize its text with `--tokenizer {folder}`"
        )
    return Stretch(dataset.tokens, *dataset.split(split), dataset, split)


def of_text(pieces: Iterable[str], made: Tokenizer, name: str, training: Dataset | None = None) -> Stretch:
    """A text that comes in `pieces`, its ids in memory; MakegptError where it has too few for one to be predicted."""
    try:
        ids = np.concatenate([np.empty(0, np.uint32), *made.encode_stream(pieces)])
    except UnknownText as error:
        raise UnknownText(f"{name}: {error}") from None
    if len(ids) < 2:
        raise MakegptError(f"{name} has {len(ids)} tokens; the first has nothing to go by, so two are needed at least")
    return Stretch(Held(ids), 0, len(ids), training)


def own_dataset(folder: Path) -> Dataset | None:
    """The dataset that the run in `folder` was trained on; None for an imported run, or where it is no longer there whole."""
    if run.imported(artifact.read_manifest(folder, "run")):
        return None
    try:
        dataset = Dataset(run.dataset_folder(folder))
    except MakegptError:
        return None
    return dataset if trained_on(folder, dataset) else None


def no_dataset(folder: Path) -> str | None:
    """Why the dataset that the run in `folder` was trained on cannot be opened; None where it can, or for an imported run."""
    if not run.imported(artifact.read_manifest(folder, "run")):
        try:
            Dataset(run.dataset_folder(folder))
        except MakegptError as error:
            return str(error)
    return None


def trained_on(folder: Path, dataset: Dataset) -> bool:
    """Whether `dataset` is the one that the run in `folder` was trained on."""
    return bool(artifact.read_manifest(folder, "run")["facts"].get("dataset") == dataset.identity())
