"""One optimizer step after another: batch, loss, gradients, clipping, AdamW.

Batch, dropout and learning rate of step t depend on (seed, t) alone, so a trainer that is given the weights and the
optimizer state of step t continues exactly like the one that computed them.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lib.device.compile import should_compile
from lib.device.distributed import GradientSum, shard_range
from lib.device.hardware import derive_seed, thread_count
from lib.device.precision import LossScale, autocast, choose_precision
from lib.errors import MakegptError, UsageError
from lib.model.language_model import LanguageModel
from lib.run.metrics import StepMetrics
from lib.run.state import SavedState
from lib.train.objective import Objective, Validation
from lib.train.optimizer import build_optimizers, set_lr
from lib.train.schedule import learning_rate


@dataclass
class TrainState:
    """How far a training is: finished steps, and the step whose weights would be published, with its loss (nats/token)."""

    step: int = 0
    published_step: int | None = None
    published_val_loss: float | None = None

    def keep(self, metrics: StepMetrics, publish: str) -> None:
        """Note a validated step, if `publish` is "last", or "best" and its validation loss the lowest so far."""
        if metrics.val_loss is None:
            return
        if publish == "last" or self.published_val_loss is None or metrics.val_loss < self.published_val_loss:
            self.published_step, self.published_val_loss = metrics.step, metrics.val_loss


class Diverged(MakegptError):
    """A loss or gradient that is not finite, met before it could reach the weights; `details` are for a JSON file."""

    def __init__(self, message: str, details: dict[str, Any]) -> None:
        super().__init__(message)
        self.details = details


class Trainer:
    """A training in memory: objective, optimizers, state. In a group each process has one, and all do the same steps."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.config = config = objective.config
        self.device = objective.device
        self.group = group = objective.group
        self.trained = objective.trained
        self.precision = choose_precision(config.precision, self.device)
        self.loss_scale = LossScale() if self.precision == torch.float16 else None
        self.optimizers = build_optimizers(self.trained, config)
        self.state = TrainState()
        self._gradients = GradientSum(self.trained, group)
        self._pieces = config.grad_accum_steps * group.size
        if self._pieces > config.batch_size:
            raise UsageError(
                f"train.batch_size={config.batch_size} cannot be shared by {group.size} processes with "
                f"train.grad_accum_steps={config.grad_accum_steps}; {self._pieces} windows or more are needed"
            )

    @property
    def model(self) -> LanguageModel:
        """The whole model, with the weights of this step."""
        return self.objective.model

    def compile(self) -> str | None:
        """Compile the training step if the config asks for it; None, or the reason why it runs without compilation."""
        if not should_compile(self.config.compile, self.device):
            return None
        sizes = {len(shard_range(self.config.batch_size, piece, self._pieces)) for piece in range(self._pieces)}
        return self.objective.compile(sorted(sizes))

    def train_step(self) -> StepMetrics:
        """Do one optimizer step; Diverged, with the weights untouched, if loss or gradient is not finite."""
        config = self.config
        lr = learning_rate(self.state.step, config)
        weights = list(self.trained.parameters())
        while True:
            loss, values = self._loss_and_gradients()
            norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
            finite = bool(torch.isfinite(norm)) and math.isfinite(loss)
            if finite or self.loss_scale is None or self.loss_scale.value == 1.0:
                break
            self.loss_scale = self.loss_scale.lower(self.state.step)  # float16's range was left: the same batch again
            self._forget_gradients()
        if not finite:
            raise self._diverged(loss, norm, lr)
        if config.grad_clip:
            torch.nn.utils.clip_grads_with_norm_(weights, config.grad_clip, norm)
        set_lr(self.optimizers, lr)
        for optimizer in self.optimizers:
            optimizer.step()
        self._forget_gradients()
        self.objective.after_step()
        self.state.step += 1
        if self.loss_scale:
            self.loss_scale = self.loss_scale.after(self.state.step)
        return StepMetrics(
            step=self.state.step,
            tokens=self.state.step * self.objective.tokens_per_step,
            train_loss=loss,
            val_loss=None,
            lr=lr,
            grad_norm=norm.item(),
            values=values,
        )

    def _loss_and_gradients(self) -> tuple[float, dict[str, float]]:
        """The loss of this step's batch, other means over it, and its gradients in the weights: over all pieces and processes.

        The batch is cut into pieces, as many as processes times accumulation steps, and each process takes its own. A
        piece is the same whoever computes it, so k processes do what k accumulation steps do.
        """
        config = self.config
        mine = self.group.share(self._pieces)
        terms = self.objective.terms(self.state.step)
        scale = self.loss_scale.value if self.loss_scale else 1.0
        loss, values = 0.0, Counter[str]()
        for piece in mine:
            rows = shard_range(config.batch_size, piece, self._pieces)
            torch.manual_seed(derive_seed(config.seed, self.state.step, piece))  # for dropout alone
            with autocast(self.precision, self.device):
                batch = self.objective.loss(self.state.step, rows)
                # the sum over all pieces, divided by the terms of all: exactly the loss of the whole batch
                piece_loss = batch.loss / terms
            with self._gradients.of(last_piece=piece == mine[-1]):
                (piece_loss * scale).backward()  # type: ignore[no-untyped-call]
            loss += piece_loss.item()
            values.update(batch.values)
        if scale != 1.0:
            for weight in self.trained.parameters():
                if weight.grad is not None:
                    weight.grad.mul_(1 / scale)
        self.objective.finish_gradient()
        means = {name: self.group.total(value, self.device) / terms for name, value in values.items()}
        return self.group.total(loss, self.device), means

    def _forget_gradients(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=False)  # the memory is needed again at once

    def validate(self) -> Validation:
        """The loss on the whole validation split, and other means over it; Diverged if the loss is not finite."""
        validation = self.objective.validate()
        if not math.isfinite(validation.loss):
            raise Diverged(
                f"step {self.state.step}: the validation loss is {validation.loss:.6g}, not finite; nothing of this step "
                f"is kept. Try a lower train.learning_rate (it was {self.config.learning_rate:.3g}) or a longer "
                "train.warmup_steps",
                {"step": self.state.step, "validation_loss": str(validation.loss)},
            )
        return validation

    def _diverged(self, loss: float, norm: Tensor, lr: float) -> Diverged:
        """The error about a loss or gradient that is not finite."""
        wrong = [name for name, w in self.trained.named_parameters() if w.grad is not None and not torch.isfinite(w.grad).all()]
        where = f", first in the gradient of {wrong[0]}" if wrong else ""
        return Diverged(
            f"step {self.state.step + 1}: the loss is {loss:.6g} and the gradient norm {norm.item():.6g}, not finite{where}; "
            f"the weights of step {self.state.step} were not changed. Try a lower train.learning_rate (it was {lr:.3g}) "
            "or a longer train.warmup_steps",
            {
                "step": self.state.step + 1,
                "loss": str(loss),
                "grad_norm": str(norm.item()),
                "not_finite": wrong,
                "rate": lr,
                "batch": self.objective.describe_batch(self.state.step),
            },
        )

    def saved_state(self) -> SavedState:
        """What a checkpoint says of this step, its files not yet listed."""
        return SavedState(
            step=self.state.step,
            published_step=self.state.published_step,
            published_val_loss=self.state.published_val_loss,
            threads=thread_count(),
            device=self.device.type,
            processes=self.group.size,
            precision=str(self.precision),
            loss_scale=(self.loss_scale.value, self.loss_scale.since) if self.loss_scale else None,
        )

    def optimizer_state(self) -> dict[str, Tensor]:
        """The optimizers' state, as kind/parameter."""
        return {
            f"{kind}/{name}": value
            for optimizer in self.optimizers
            for name, weight in self.trained.named_parameters()
            for kind, value in optimizer.state.get(weight, {}).items()
        }

    def restore(self, saved: SavedState, optimizer_state: dict[str, Tensor]) -> None:
        """Continue after the checkpoint `saved`; the model's weights are the caller's to fill."""
        self.state = TrainState(saved.step, saved.published_step, saved.published_val_loss)
        if self.loss_scale and saved.loss_scale:
            self.loss_scale = LossScale(*saved.loss_scale)
        weights = dict(self.trained.named_parameters())
        optimizer_of = {
            weight: optimizer for optimizer in self.optimizers for group in optimizer.param_groups for weight in group["params"]
        }
        for key, value in optimizer_state.items():
            kind, _, name = key.partition("/")
            weight = weights[name]
            # AdamW counts its steps in a number of its own; all else is laid out like the weight
            tensor = value.to(weight.device, copy=True) if kind == "step" else torch.empty_like(weight).copy_(value)
            optimizer_of[weight].state[weight][kind] = tensor
