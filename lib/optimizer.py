"""AdamW over a model's parameters (Loshchilov and Hutter 2019)."""

from typing import Any

import torch

from lib.config import TrainConfig
from lib.model import LanguageModel


def adamw(model: LanguageModel, config: TrainConfig) -> torch.optim.AdamW:
    """PyTorch's fused AdamW, in groups by what decays and how fast it learns; see `set_rate`.

    Matrices decay; biases and norms do not. The tables, embeddings and head, decay too and have a rate of their own:
    a row of theirs has a gradient only where its token occurs, so it gets few steps, and its best rate does not
    shrink with the width as a matrix's does (Yang et al. 2022, Tensor Programs V, table 3).
    """
    groups: dict[str, dict[str, Any]] = {
        "tables": {"params": [], "weight_decay": config.weight_decay, "multiple": config.embedding_rate_factor},
        "matrices": {"params": [], "weight_decay": config.weight_decay, "multiple": 1.0},
        "vectors": {"params": [], "weight_decay": 0.0, "multiple": 1.0},
    }
    for name, weight in model.named_parameters():
        kind = "tables" if model.is_table(name) else "matrices" if model.decayed(name) else "vectors"
        groups[kind]["params"].append(weight)
    return torch.optim.AdamW(list(groups.values()), betas=(config.beta1, config.beta2), fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group the learning rate `rate` times its own multiple."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["multiple"]
