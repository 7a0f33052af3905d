"""The model, from scratch: layers, attention, block, GPT. It knows nothing of files.

build(config)          the model of a configuration, its weights not yet filled
count(model)           its trainable parameters
"""

import torch
from torch import nn

from lib.config import ModelConfig
from lib.model.gpt import GPT

__all__ = ["GPT", "KINDS", "build", "count"]

KINDS: dict[str, type[GPT]] = {"gpt": GPT}


def build(config: ModelConfig, device: torch.device | str = "cpu") -> GPT:
    """The model `config` describes, on `device`; fill its weights with `initialise` or a checkpoint."""
    with torch.device(device):
        return KINDS[config.kind](config)


def count(model: nn.Module) -> int:
    """Trainable parameters; a tied matrix counts once."""
    return sum(weight.numel() for weight in model.parameters())
