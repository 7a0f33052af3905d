"""The tasks a model can be trained for, each with its objective and the data that it learns from."""

from pathlib import Path

import torch

from lib.config.schema import TrainConfig
from lib.data.dataset import Dataset
from lib.device.distributed import ProcessGroup
from lib.errors import UsageError
from lib.model.language_model import LanguageModel
from lib.train.dpo import DPO
from lib.train.next_token import NextToken
from lib.train.objective import Objective, Start


def check_task(task: str, dataset: Dataset, init_from: Path | None) -> None:
    """UsageError if `task` cannot be learned from the kind of `dataset`, or not from random weights."""
    if dataset.has_pairs and task != "dpo":
        raise UsageError(f"{dataset.folder} has pairs of answers, from which --task dpo learns, not --task {task}")
    if task == "dpo" and not dataset.has_pairs:
        kind = "conversations" if dataset.packed else "running text"
        raise UsageError(
            f"--task dpo learns from pairs of answers, and {dataset.folder} has {kind}; tokenize a file with "
            '"chosen" and "rejected" answers by `tokenize --chat`'
        )
    if task in ("dpo", "grpo") and init_from is None:
        raise UsageError(f"--task {task} changes what a model answers already; name its run with --init-from RUN")


def build_objective(
    model: LanguageModel, dataset: Dataset, config: TrainConfig, device: torch.device, group: ProcessGroup, start: Start
) -> Objective:
    """What `train.task` minimizes: `model` on `dataset`."""
    if config.task == "dpo":
        return DPO(model, dataset, config, device, group, start)
    return NextToken(model, dataset, config, device, group)
