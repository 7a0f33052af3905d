"""The tasks a model can be trained for, each with its objective."""

import torch

from lib.config.schema import TrainConfig
from lib.data.dataset import Dataset
from lib.device.distributed import ProcessGroup
from lib.model.language_model import LanguageModel
from lib.train.next_token import NextToken
from lib.train.objective import Objective

_OBJECTIVES = {"text": NextToken}


def build_objective(
    model: LanguageModel, dataset: Dataset, config: TrainConfig, device: torch.device, group: ProcessGroup
) -> Objective:
    """What `train.task` minimizes: `model` on `dataset`."""
    return _OBJECTIVES[config.task](model, dataset, config, device, group)
