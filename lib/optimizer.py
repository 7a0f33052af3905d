"""AdamW over a model's parameters (Loshchilov and Hutter 2019)."""

import torch

from lib.config import TrainConfig
from lib.model import GPT


def adamw(model: GPT, config: TrainConfig) -> torch.optim.AdamW:
    """PyTorch's fused AdamW in two groups: parameters that decay, and those that do not (biases, norms)."""
    named = list(model.named_parameters())
    groups = [
        {"params": [weight for name, weight in named if model.decayed(name)], "weight_decay": config.weight_decay},
        {"params": [weight for name, weight in named if not model.decayed(name)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True)
