"""The tasks a model can be trained for, each with its objective."""

import torch

from lib.config.schema import TrainConfig
from lib.data.dataset import Dataset
from lib.device.distributed import ProcessGroup
from lib.errors import UsageError
from lib.model.language_model import LanguageModel
from lib.train.classes import Classes
from lib.train.next_token import NextToken
from lib.train.objective import Objective

_OBJECTIVES: dict[str, type[NextToken | Classes]] = {"text": NextToken, "classify": Classes}


def build_objective(
    model: LanguageModel, dataset: Dataset, config: TrainConfig, device: torch.device, group: ProcessGroup
) -> Objective:
    """What `train.task` minimizes: `model` on `dataset`."""
    return _OBJECTIVES[config.task](model, dataset, config, device, group)


def check_task(dataset: Dataset, task: str) -> None:
    """UsageError if `dataset` is not for this `train.task`."""
    if (task == "classify") != (dataset.labeled is not None):
        if dataset.labeled:
            raise UsageError(
                f"{dataset.folder} holds labeled texts, which train.task={task} cannot learn from; use --task classify"
            )
        raise UsageError(f"train.task=classify needs labeled texts (`tokenize --labels`), which {dataset.folder} does not hold")
