"""A run's evaluation: the model on a split of a dataset, beside what it is measured against."""

from pathlib import Path
from typing import Any, Callable

import torch

from lib import artifact, baselines, run
from lib.config import EvaluateConfig
from lib.dataset import Dataset
from lib.errors import MakegptError
from lib.evaluation import scores, total_nats
from lib.run import Trained


def assess(
    folder: Path,
    trained: Trained,
    dataset: Dataset,
    config: EvaluateConfig,
    device: torch.device,
    on_tokens: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Loss, perplexity and bits a byte of the run in `folder` on a split, with uniform and counted baselines nested.

    The n-grams are counted on the training split and scored on the same tokens as the model.
    Raises MakegptError where the dataset was made with another tokenizer than the model's.
    """
    if dataset.tokenizer_identity != trained.tokenizer.identity():
        raise MakegptError(
            f"{dataset.folder} was made with another tokenizer than the model of {folder}; "
            f"tokenize its text with `--tokenizer {folder}`"
        )
    start, stop = dataset.split(config.split)
    count = dataset.predicted(config.split)
    lengths = trained.tokenizer.byte_lengths()
    n_bytes = sum(int(lengths[block].sum()) for block in dataset.tokens.blocks(start + 1, stop))
    nats = total_nats(trained.model, dataset.tokens, start, stop, device, on_tokens)
    vocab_size = trained.tokenizer.vocab_size
    ngrams = baselines.NGrams(dataset.tokens, 0, dataset.train_tokens, config.ngram_order, vocab_size)
    counted = {baselines.NAMES[n]: total for n, total in enumerate(ngrams.nats(start + 1, stop), 1)}
    if config.ngram_order >= 2:
        counted[baselines.ADD_ONE] = ngrams.add_one_bigram_nats(start + 1, stop)
    return {
        "split": config.split,
        "tokens": count,
        "bytes": n_bytes,
        **scores(nats, count, n_bytes),
        "baselines": {
            "uniform": scores(baselines.uniform_nats(count, vocab_size), count, n_bytes),
            **{name: scores(total, count, n_bytes) for name, total in counted.items()},
        },
        "model_sha256": trained.sha256,
        "dataset": dataset.identity(),
    }


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
