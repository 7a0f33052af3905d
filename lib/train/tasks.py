"""The tasks a model can be trained for, each with its objective and the data that it learns from."""

from pathlib import Path

import torch

from lib.config.model import ModelConfig
from lib.config.schema import TrainConfig
from lib.data.dataset import Dataset
from lib.device.distributed import ProcessGroup
from lib.errors import UsageError
from lib.model.language_model import LanguageModel
from lib.train.classes import Classes
from lib.train.dpo import DPO
from lib.train.grpo import GRPO
from lib.train.next_token import NextToken
from lib.train.objective import Objective, Start
from lib.train.sequence_to_sequence import SequenceToSequence

_OBJECTIVES: dict[str, type[Objective]] = {
    "text": NextToken,
    "classify": Classes,
    "dpo": DPO,
    "grpo": GRPO,
    "translate": SequenceToSequence,
}


def check_task(config: TrainConfig, model: ModelConfig, dataset: Dataset, init_from: Path | None) -> None:
    """UsageError if `config.task` cannot be learned from the kind of `dataset`, by the `model`, or not from random weights."""
    task = config.task
    if model.has_encoder != (task == "translate"):
        raise UsageError(
            f"--task {task} trains no model.kind={model.kind}; "
            + ("use --task translate" if model.has_encoder else "use model.kind=encoder_decoder, which reads a source first")
        )
    if model.kind == "pointer" and (task != "text" or dataset.packed):
        raise UsageError("model.kind=pointer learns from running text, not from conversations or labels; use model.kind=gpt")
    if config.label_smoothing and (task not in ("text", "translate") or dataset.packed):
        data = "conversations" if dataset.packed else f"--task {task}"
        raise UsageError(f"train.label_smoothing is for running text and parallel texts, not for {data}; set it to 0")
    if dataset.parallel and task != "translate":
        raise UsageError(f"{dataset.folder} has parallel texts, from which --task translate learns, not --task {task}")
    if task == "translate" and not dataset.parallel:
        raise UsageError(f"--task translate needs parallel texts (`tokenize --parallel`), which {dataset.folder} does not have")
    if config.counts_share and task != "text":
        raise UsageError(f"train.counts_share counts running text, which --task {task} does not learn from; set it to 0")
    if dataset.labeled and task != "classify":
        raise UsageError(f"{dataset.folder} has labeled texts, from which --task classify learns, not --task {task}")
    if task == "classify" and not dataset.labeled:
        raise UsageError(f"--task classify needs labeled texts (`tokenize --labels`), which {dataset.folder} does not have")
    if dataset.has_pairs and task != "dpo":
        raise UsageError(f"{dataset.folder} has pairs of answers, from which --task dpo learns, not --task {task}")
    if task == "dpo" and not dataset.has_pairs:
        kind = "conversations" if dataset.packed else "running text"
        raise UsageError(
            f"--task dpo learns from pairs of answers, and {dataset.folder} has {kind}; tokenize a file with "
            '"chosen" and "rejected" answers by `tokenize --chat`'
        )
    if task == "grpo" and not dataset.packed:
        raise UsageError(
            f"--task grpo answers the questions of conversations, and {dataset.folder} has running text; tokenize a file of "
            "questions and right answers by `tokenize --chat`"
        )
    if _OBJECTIVES[task].compares and init_from is None:
        raise UsageError(f"--task {task} changes what a model answers already; name its run with --init-from RUN")


def build_objective(
    model: LanguageModel, dataset: Dataset, config: TrainConfig, device: torch.device, group: ProcessGroup, start: Start
) -> Objective:
    """What `train.task` minimizes: `model` on `dataset`."""
    return _OBJECTIVES[config.task](model, dataset, config, device, group, start)
