"""A run's evaluation: the model on a split of a dataset, beside what it is measured against, or on any text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator

import numpy as np
import torch

from lib import artifact, baselines, run
from lib.analysis import analyse
from lib.config import EvaluateConfig
from lib.dataset import Dataset
from lib.errors import MakegptError
from lib.evaluation import each_prediction, scores, total_nats
from lib.run import Trained
from lib.shards import Held, Readable
from lib.tokenizer import Tokenizer, UnknownText


@dataclass(frozen=True)
class Stretch:
    """What a model is to predict: the ids `start` + 1 to `stop`, each from those before it; of a dataset, or of any text."""

    tokens: Readable
    start: int
    stop: int
    dataset: Dataset | None = None

    @property
    def predicted(self) -> int:
        """How many tokens that are."""
        return self.stop - self.start - 1

    def bytes(self, lengths: np.ndarray) -> int:
        """How many bytes they stand for, with `lengths` of each id."""
        return sum(int(lengths[block].sum()) for block in self.tokens.blocks(self.start + 1, self.stop))


def of_dataset(folder: Path, trained: Trained, dataset: Dataset, split: str) -> Stretch:
    """A split of `dataset`; MakegptError where that was made with another tokenizer than the model of the run in `folder`."""
    if dataset.tokenizer_identity != trained.tokenizer.identity():
        raise MakegptError(
            f"{dataset.folder} was made with another tokenizer than the model of {folder}; "
            f"tokenize its text with `--tokenizer {folder}`"
        )
    return Stretch(dataset.tokens, *dataset.split(split), dataset)


def of_text(pieces: Iterable[str], made: Tokenizer, name: str) -> Stretch:
    """A text that comes in `pieces`, its ids in memory; MakegptError where it has too few for one to be predicted."""
    try:
        ids = np.concatenate([np.empty(0, np.uint32), *made.encode_stream(pieces)])
    except UnknownText as error:
        raise UnknownText(f"{name}: {error}") from None
    if len(ids) < 2:
        raise MakegptError(f"{name} has {len(ids)} tokens; the first has nothing to go by, so two are needed at least")
    return Stretch(Held(ids), 0, len(ids))


def assess(
    trained: Trained,
    stretch: Stretch,
    config: EvaluateConfig,
    device: torch.device,
    on_tokens: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Loss, perplexity and bits a byte of the model on a stretch, with uniform guessing and, for a dataset, counts nested.

    The n-grams are counted on the training split and scored on the same tokens as the model.
    """
    count, vocab_size = stretch.predicted, trained.tokenizer.vocab_size
    n_bytes = stretch.bytes(trained.tokenizer.byte_lengths())
    nats = total_nats(trained.model, stretch.tokens, stretch.start, stretch.stop, device, on_tokens)
    compared = {"uniform": baselines.uniform_nats(count, vocab_size)}
    if stretch.dataset is not None:
        compared |= _counted(stretch, stretch.dataset, config.ngram_order, vocab_size)
    return {
        **({} if stretch.dataset is None else {"split": config.split}),
        "tokens": count,
        "bytes": n_bytes,
        **scores(nats, count, n_bytes),
        "baselines": {name: scores(total, count, n_bytes) for name, total in compared.items()},
        "model_sha256": trained.sha256,
        **({} if stretch.dataset is None else {"dataset": stretch.dataset.identity()}),
    }


def _counted(stretch: Stretch, dataset: Dataset, order: int, vocab_size: int) -> dict[str, float]:
    """The nats of n-grams counted on the training split, by name."""
    ngrams = baselines.NGrams(dataset.tokens, 0, dataset.train_tokens, order, vocab_size)
    counted = {baselines.NAMES[n]: total for n, total in enumerate(ngrams.nats(stretch.start + 1, stretch.stop), 1)}
    if order >= 2:
        counted[baselines.ADD_ONE] = ngrams.add_one_bigram_nats(stretch.start + 1, stretch.stop)
    return counted


def each_token(trained: Trained, stretch: Stretch, device: torch.device) -> Iterator[dict[str, Any]]:
    """What the model thought of each token of a stretch: its position, and its analysis."""
    for position, id, logits in each_prediction(trained.model, stretch.tokens, stretch.start, stretch.stop, device):
        yield {"position": position} | vars(analyse(logits, id, trained.tokenizer))


def read(folder: Path) -> dict[str, Any]:
    """The evaluation of the run in `folder`: the content of its evaluation.json."""
    path = folder / run.EVALUATION
    if not path.is_file():
        raise MakegptError(f"{folder} has not been evaluated; do it with `evaluate {folder} -o {path}`")
    found = artifact.read_json(path)
    if not _is_evaluation(found):
        raise MakegptError(f"{path} is damaged: it is no evaluation; make it again with `evaluate {folder} -o {path}`")
    return found


def _is_evaluation(found: Any) -> bool:
    scores = {"loss", "perplexity", "bits_per_byte"}
    return (
        isinstance(found, dict)
        and scores | {"split", "tokens", "bytes", "baselines"} <= found.keys()
        and isinstance(found["baselines"], dict)
        and all(isinstance(baseline, dict) and scores <= baseline.keys() for baseline in found["baselines"].values())
    )
