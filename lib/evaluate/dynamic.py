"""Dynamic evaluation: a model that keeps learning from the text it is scored on (Krause et al. 2018).

Each window is scored before the model learns from it, so no token helps to predict itself or an earlier one. The step is
plain SGD on the mean loss of the window; Krause et al. also scale it and pull the weights back to where they began.
"""

import copy
from typing import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lib.data.shards import TokenSource
from lib.model.language_model import LanguageModel

#: Maximum norm of a window's gradient, that of most trainings here.
MAX_GRADIENT_NORM = 1.0


def dynamic_nats(
    model: LanguageModel, tokens: TokenSource, start: int, stop: int, device: torch.device, lr: float
) -> Iterator[np.ndarray]:
    """The loss in nats of the ids `start` + 1 to `stop`, in parts, in order: (n,) arrays.

    The windows are those of `predict_batches`, one at a time. `lr`: learning rate of the SGD step after each. `model` is not
    changed: a copy of it learns.
    """
    student = copy.deepcopy(model).eval().requires_grad_()
    T = student.context_length
    for at in range(start, stop - 1, T):
        ids = torch.from_numpy(tokens.read(at, min(at + T + 1, stop)).astype("int64")).to(device)
        yield _score_and_learn(student, ids[None, :-1], ids[1:], lr)


@torch.enable_grad()
def _score_and_learn(model: LanguageModel, inputs: Tensor, targets: Tensor, lr: float) -> np.ndarray:
    """The loss of each of `targets` (T,) under the current weights, which then take a step down the gradient of its mean."""
    nats = F.cross_entropy(model(inputs)[0].float(), targets, reduction="none")  # (T,)
    model.zero_grad()
    torch.autograd.backward(nats.mean())
    torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.grad is not None:
                weight.sub_(weight.grad, alpha=lr)
    scores: np.ndarray = nats.detach().cpu().numpy()
    return scores
