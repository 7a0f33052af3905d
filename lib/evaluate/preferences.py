"""What a model prefers: of held-out pairs of answers, how often the chosen one, compared with the run that it started from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import numpy as np
import torch

from lib.artifact.manifest import identity_of, read_manifest
from lib.artifact.record import Positive
from lib.data.dataset import Dataset
from lib.errors import MakegptError
from lib.evaluate.log_probs import measured_log_probs
from lib.evaluate.metrics import Mean
from lib.evaluate.results import PUBLISHED, EvaluatedWeights
from lib.evaluate.span import check_tokenizer
from lib.run.folder import TrainedModel, load_run

_PAIRS_AT_ONCE = 8


@dataclass(frozen=True)
class Preference:
    """What a model prefers by its log-probabilities: `likelier`, the fraction of pairs whose chosen answer is the more likely
    one; `chosen` and `rejected`, ln p of these answers, in nats/answer.
    """

    likelier: Mean
    chosen: Mean
    rejected: Mean


@dataclass(frozen=True)
class Moved:
    """What a training has changed: `accuracy`, the fraction of pairs whose chosen answer gained more than the rejected one;
    `margin`, by how much, times `beta`, in nats.
    """

    beta: float
    accuracy: Mean
    margin: Mean


@dataclass(frozen=True, kw_only=True)
class PreferenceEvaluation:
    """A model on the pairs of a split; `reference` is the run that its training started from, if any."""

    split: str
    pairs: Positive
    model: Preference
    reference: Preference | None = None
    moved: Moved | None = None
    model_sha256: str
    weights: EvaluatedWeights = PUBLISHED
    dataset: str
    parameters: dict[str, Any] | None = None


def evaluate_preferences(
    trained: TrainedModel,
    folder: Path,
    dataset: Dataset,
    split: str,
    device: torch.device,
    on_pairs: Callable[[int], None] = lambda _: None,
) -> PreferenceEvaluation:
    """The model of the run in `folder` on a split of the pairs in `dataset`; `on_pairs` gets the number of pairs of each batch.

    MakegptError if the tokenizers differ, if the split has no pair to compare, or if the run that the training started from is
    no longer there.
    """
    check_tokenizer(folder, trained, dataset)
    reference = reference_folder(folder)
    pairs = dataset.pairs_of(split)
    if not pairs:
        raise MakegptError(f"the {split} split of {dataset.folder} has no pair of different answers; build a larger dataset")

    def measure(model: TrainedModel) -> np.ndarray:
        parts = []
        for start in range(0, len(pairs), _PAIRS_AT_ONCE):
            part = pairs[start : start + _PAIRS_AT_ONCE]
            parts.append(measured_log_probs(model.model, [text for pair in part for text in pair], device))
            on_pairs(len(part))
        return torch.cat(parts).double().numpy().reshape(-1, 2)

    ours = measure(trained)
    evaluation = PreferenceEvaluation(
        split=split,
        pairs=len(pairs),
        model=_preference(ours),
        model_sha256=trained.sha256,
        dataset=dataset.identity(),
        parameters={"evaluate": {"split": split}},
    )
    if reference is None:
        return evaluation
    theirs = measure(load_run(reference, device))
    beta = float(read_manifest(folder, "run").parameters["train"].get("dpo_beta", 1.0))
    margins = beta * ((ours - theirs) @ [1.0, -1.0])
    moved = Moved(beta, Mean.of((margins > 0).astype(float)), Mean.of(margins))
    return PreferenceEvaluation(**vars(evaluation) | {"reference": _preference(theirs), "moved": moved})


def _preference(log_probs: np.ndarray) -> Preference:
    """The preference of a model by (n, 2) log-probabilities, of the chosen and the rejected answers."""
    chosen, rejected = log_probs.T
    return Preference(Mean.of((chosen > rejected).astype(float)), Mean.of(chosen), Mean.of(rejected))


def reference_folder(folder: Path) -> Path | None:
    """The run that the training in `folder` started from; None if from random weights. MakegptError if it has moved."""
    manifest = read_manifest(folder, "run")
    if "init_from" not in manifest.metadata or len(manifest.inputs) < 2:
        return None
    name, entry = list(manifest.inputs.items())[1]
    source = (folder / name).resolve()
    if not source.is_dir() or identity_of(read_manifest(source, "run")) != entry.identity:
        raise MakegptError(
            f"{folder} started from a run at {source}, which is missing or has changed; move it back to compare them"
        )
    return source


def preference_lines(name: str, evaluation: PreferenceEvaluation) -> list[str]:
    """The evaluation as a table: the model called `name`, and the reference."""
    rows = [(name, evaluation.model)] + ([("reference", evaluation.reference)] if evaluation.reference else [])
    width = max(len(row) for row, _ in rows)
    lines = [
        f"{evaluation.split} split, {evaluation.pairs:,} pairs (± standard error)",
        f"{'':{width}}  chosen more likely   ln p(chosen)    ln p(rejected)",
    ]
    lines += [
        f"{row:{width}}  {_percent(model.likelier):<18}   {_nats(model.chosen):<13}   {_nats(model.rejected)}"
        for row, model in rows
    ]
    if moved := evaluation.moved:
        lines.append(f"accuracy {_percent(moved.accuracy)}, margin {_nats(moved.margin)} (beta {moved.beta:g})")
    return lines


def _percent(mean: Mean) -> str:
    return f"{mean.value:.1%}" + ("" if mean.standard_error is None else f" ± {mean.standard_error:.1%}")


def _nats(mean: Mean) -> str:
    return f"{mean.value:.2f}" + ("" if mean.standard_error is None else f" ± {mean.standard_error:.2f}")
