"""What changes the weights: AdamW (Loshchilov and Hutter 2019), with Muon for the matrices if asked for."""

from typing import Any

import torch
from torch import Tensor

from lib.config.schema import TrainConfig
from lib.model.language_model import LanguageModel
from lib.train.muon import Muon

EPS = 1e-8  # keeps a weight that never had a gradient from dividing by zero


def naive_adamw(
    weight: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    step: int,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float = EPS,
    weight_decay: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of AdamW written out: the new weight, and the running means of the gradient and of its square.

    `step` counts from 1. The means begin at 0 and are too small at first, by 1 - betaᵗ, which is made good. The
    decay shrinks the weight itself and does not pass through the means (Loshchilov and Hutter 2019, algorithm 2).
    """
    mean = beta1 * mean + (1 - beta1) * gradient
    square = beta2 * square + (1 - beta2) * gradient**2
    m = mean / (1 - beta1**step)
    v = square / (1 - beta2**step)
    return weight - lr * weight_decay * weight - lr * m / (v.sqrt() + eps), mean, square


def parameter_groups(model: LanguageModel, config: TrainConfig) -> dict[str, dict[str, Any]]:
    """The weights that are trained, by what decays and how fast it learns: tables, matrices, vectors.

    Matrices decay; biases and norms do not. The tables, embeddings and head, decay too and have their own learning rate:
    a row of the embedding has a gradient only where its token occurs, and a row of the head a large one only there,
    so they get few steps that count, and their best learning rate does not shrink with the width as a matrix's does (Yang et
    al. 2022, Tensor Programs V, table 3).
    """
    groups: dict[str, dict[str, Any]] = {
        "tables": {"params": [], "weight_decay": config.weight_decay, "lr_mult": config.embedding_lr_mult},
        "matrices": {"params": [], "weight_decay": config.weight_decay, "lr_mult": 1.0},
        "vectors": {"params": [], "weight_decay": 0.0, "lr_mult": 1.0},
    }
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        kind = "tables" if model.is_embedding(name) else "matrices" if model.uses_weight_decay(name) else "vectors"
        groups[kind]["params"].append(weight)
    return groups


def build_optimizers(model: LanguageModel, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """The optimizers of a training, each weight that is trained in one of them.

    Matrices may go by Muon, the others never: AdamW is PyTorch's fused equivalent of `naive_adamw`.
    """
    by_kind = parameter_groups(model, config)
    muon: list[torch.optim.Optimizer] = []
    if config.optimizer == "muon" and by_kind["matrices"]["params"]:
        muon = [Muon([by_kind.pop("matrices")])]
    adamw = torch.optim.AdamW(list(by_kind.values()), betas=(config.beta1, config.beta2), eps=EPS, fused=True)
    return [adamw, *muon]


def set_lr(optimizers: list[torch.optim.Optimizer], lr: float) -> None:
    """Give every group the learning rate `lr` times its own `lr_mult`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_mult"]
