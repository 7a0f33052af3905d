"""One optimizer step after another: batch, loss, gradients, clipping, AdamW.

Batch, dropout and learning rate of step t follow from (seed, t) alone, so a trainer that is given the
weights and moments of step t goes on exactly as the one that computed them.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib import device as devices
from lib.config import TrainConfig
from lib.dataset import Dataset
from lib.errors import MakegptError
from lib.evaluation import total_nats
from lib.loss import cross_entropy
from lib.model import LanguageModel
from lib.optimizer import build, set_rate
from lib.schedule import learning_rate


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one step did. Losses in nats a token; `step` counts finished steps, `tokens` those trained on so far."""

    step: int
    tokens: int
    train_loss: float | None
    val_loss: float | None
    lr: float | None
    grad_norm: float | None


class Diverged(MakegptError):
    """A loss or gradient that is no finite number, met before it could reach the weights; `facts` tell all about it."""

    def __init__(self, message: str, facts: dict[str, Any]) -> None:
        super().__init__(message)
        self.facts = facts


class Trainer:
    """The state of a training in memory: model, optimizer, finished steps."""

    def __init__(self, model: LanguageModel, dataset: Dataset, config: TrainConfig, device: torch.device) -> None:
        self.model = model.train()
        self.dataset = dataset
        self.config = config
        self.device = device
        self.optimizers = build(model, config)
        self.step = 0

    def train_step(self) -> Record:
        """Do one optimizer step; Diverged, with the weights untouched, where loss or gradient is not finite."""
        config = self.config
        batch = self.dataset.batch(config.seed, self.step, config.batch_size)
        ids = torch.from_numpy(batch.astype("int64")).to(self.device)  # (B, T + 1)
        n_targets = ids[:, 1:].numel()
        loss = 0.0
        for number, piece in enumerate(ids.chunk(config.grad_accum_steps)):
            torch.manual_seed(devices.seed_from(config.seed, self.step, number))  # for dropout alone
            logits = self.model(piece[:, :-1])
            # the sum over all pieces, divided by all tokens: exactly the loss of the whole batch
            piece_loss = cross_entropy(logits.flatten(0, 1), piece[:, 1:].flatten()) / n_targets
            piece_loss.backward()  # type: ignore[no-untyped-call]
            loss += piece_loss.item()
        weights = list(self.model.parameters())
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        rate = learning_rate(self.step, config)
        self._check_finite(loss, norm, rate, batch)
        if config.grad_clip:
            torch.nn.utils.clip_grads_with_norm_(weights, config.grad_clip, norm)
        set_rate(self.optimizers, rate)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)  # the memory is needed again at once
        self.step += 1
        return Record(
            step=self.step,
            tokens=self.step * n_targets,
            train_loss=loss,
            val_loss=None,
            lr=rate,
            grad_norm=norm.item(),
        )

    def validate(self) -> float:
        """The loss on the whole validation split, in nats a token; Diverged where it is not finite."""
        start, stop = self.dataset.split("val")
        nats = total_nats(self.model, self.dataset.tokens, start, stop, self.device)
        if not math.isfinite(nats):
            raise Diverged(
                f"step {self.step}: the validation loss is {nats:.6g}, not finite; nothing of this step is kept. "
                f"Try a lower train.learning_rate (it was {self.config.learning_rate:.3g}) or a longer train.warmup_steps",
                {"step": self.step, "validation_loss": str(nats)},
            )
        return nats / self.dataset.predicted("val")

    def _check_finite(self, loss: float, norm: Tensor, rate: float, batch: np.ndarray) -> None:
        if torch.isfinite(norm) and math.isfinite(loss):
            return
        wrong = [name for name, w in self.model.named_parameters() if w.grad is not None and not torch.isfinite(w.grad).all()]
        where = f", first in the gradient of {wrong[0]}" if wrong else ""
        raise Diverged(
            f"step {self.step + 1}: the loss is {loss:.6g} and the gradient norm {norm.item():.6g}, not finite{where}; "
            f"the weights of step {self.step} were not changed. Try a lower train.learning_rate (it was {rate:.3g}) "
            "or a longer train.warmup_steps",
            {
                "step": self.step + 1,
                "loss": str(loss),
                "grad_norm": str(norm.item()),
                "not_finite": wrong,
                "rate": rate,
                "batch": batch.tolist(),
            },
        )

    def moments(self) -> dict[str, Tensor]:
        """The optimizers' state, as kind/parameter."""
        return {
            f"{kind}/{name}": value
            for optimizer in self.optimizers
            for name, weight in self.model.named_parameters()
            for kind, value in optimizer.state.get(weight, {}).items()
        }

    def restore(self, step: int, moments: dict[str, Tensor]) -> None:
        """Go on after `step`, with the moments saved then; the model's weights are the caller's to fill."""
        self.step = step
        weights = dict(self.model.named_parameters())
        owner = {
            weight: optimizer for optimizer in self.optimizers for group in optimizer.param_groups for weight in group["params"]
        }
        for key, value in moments.items():
            kind, _, name = key.partition("/")
            weight = weights[name]
            # AdamW counts its steps in a number that stays where it was; all else lies beside the weight, laid out like it
            held = value.clone() if kind == "step" else torch.empty_like(weight).copy_(value)
            owner[weight].state[weight][kind] = held
