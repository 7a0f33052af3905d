"""Direct preference optimization: learn from pairs of answers which one people chose (Rafailov et al. 2023).

Of a pair, let h be by how much more the model likes the chosen answer than the rejected one, and h_ref the same of the model
that the training starts from, the reference. The loss is small where h has grown:

    reward(answer)  =  β · (ln p(answer) - ln p_ref(answer))
    margin          =  reward(chosen) - reward(rejected)  =  β · (h - h_ref)
    loss            =  -ln σ(margin)

Before the first step model and reference are equal: the margin is 0 and the loss ln 2. Only the reference's log-probabilities
are needed. They do not change, so they are computed once and kept.

B pairs
"""

from collections import Counter
from typing import Any, Iterable, NamedTuple, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lib.data.pairs import Pair, Text, packed_pairs
from lib.device.precision import autocast, choose_precision
from lib.errors import UsageError
from lib.evaluate.log_probs import answer_log_probs, measured_log_probs
from lib.train.objective import BatchLoss, Objective, Start, Validation


class PairLogProbs(NamedTuple):
    """ln p of the answers of B pairs, each as a whole: (B,) each."""

    chosen: Tensor
    rejected: Tensor


def rewards(policy: PairLogProbs, reference: PairLogProbs, beta: float) -> PairLogProbs:
    """How much more likely than for the reference the answers are, times `beta`: (B,) each."""
    return PairLogProbs(*(beta * (ours - theirs) for ours, theirs in zip(policy, reference, strict=True)))


def dpo_loss(policy: PairLogProbs, reference: PairLogProbs, beta: float) -> Tensor:
    """-ln σ(margin) of each pair, (B,). Equation 7 of the paper."""
    chosen, rejected = rewards(policy, reference, beta)
    return -F.logsigmoid(chosen - rejected)


#: What is reported of pairs besides their loss, by the names that TRL gives it.
VALUES = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected")


def pair_values(policy: PairLogProbs, reference: PairLogProbs, beta: float) -> dict[str, float]:
    """`VALUES` of some pairs, summed over them."""
    chosen, rejected = rewards(policy, reference, beta)
    columns = (chosen, rejected, chosen > rejected, chosen - rejected, *policy)
    return {name: column.detach().double().sum().item() for name, column in zip(VALUES, columns, strict=True)}


class DPO(Objective):
    """The mean loss of pairs of answers, in nats/pair. The model that the training starts from is the reference."""

    compares = True

    def _prepare(self, start: Start | None) -> None:
        assert start is not None
        self._held_out = self.dataset.pairs_of("val")
        if not self._held_out:
            raise UsageError(
                f"no pair for validation in {self.dataset.folder} has two different answers; build a larger dataset"
            )
        self._reference = start.reference or self.group.broadcast_from_main(self._compute_reference)
        self._rows = {number: row for row, number in enumerate(self._reference["numbers"].tolist())}

    def _compute_reference(self) -> dict[str, Tensor]:
        """Log-probabilities of the pairs that the training will see, `train` with their `numbers`, and of those held out."""
        config, numbers = self.config, list(range(self.dataset.windows))
        if config.max_steps * config.batch_size < len(numbers):
            numbers = sorted({number for step in range(config.max_steps) for number in self._numbers(step)})
        with autocast(choose_precision(config.precision, self.device), self.device):
            train = self._measure(self._pairs(numbers))
        val = self._measure(self._held_out)  # in float32, as every validation
        return {"numbers": torch.tensor(numbers), "train": torch.stack(train, dim=1), "val": torch.stack(val, dim=1)}

    def reference(self) -> dict[str, Tensor]:
        return self._reference

    @property
    def tokens_per_step(self) -> int:
        """Those of pairs of mean length."""
        assert self.dataset.packed is not None
        return self.config.batch_size * self.dataset.packed.used // self.dataset.windows

    def terms(self, step: int) -> int:
        return self.config.batch_size

    def _numbers(self, step: int, rows: range | None = None) -> list[int]:
        return self.dataset.window_numbers(self.config.seed, step, self.config.batch_size, rows)

    def _pairs(self, numbers: Iterable[int]) -> list[Pair]:
        assert self.dataset.packed is not None
        return packed_pairs(self.dataset.tokens, self.dataset.packed, numbers)

    def loss(self, step: int, rows: range) -> BatchLoss:
        numbers = self._numbers(step, rows)
        policy = PairLogProbs(*answer_log_probs(self._model, _texts(self._pairs(numbers)), self.device).chunk(2))
        return self._loss(policy, self._reference["train"][[self._rows[number] for number in numbers]])

    def _loss(self, policy: PairLogProbs, reference: Tensor) -> BatchLoss:
        """The summed loss and values of some pairs; reference: (B, 2)."""
        theirs = PairLogProbs(*reference.to(self.device).unbind(dim=1))
        beta = self.config.dpo_beta
        return BatchLoss(dpo_loss(policy, theirs, beta).sum(), pair_values(policy, theirs, beta))

    def validate(self) -> Validation:
        mine = self.group.share(len(self._held_out))
        sums: Counter[str] = Counter()
        if mine:
            policy = PairLogProbs(*(part.to(self.device) for part in self._measure(self._held_out[mine.start : mine.stop])))
            batch = self._loss(policy, self._reference["val"][mine.start : mine.stop])
            sums = Counter({"loss": batch.loss.item(), **batch.values})
        means = self._means({name: sums[name] for name in ("loss", *VALUES)}, len(self._held_out))
        return Validation(means.pop("loss"), means)

    def _measure(self, pairs: Sequence[Pair]) -> PairLogProbs:
        return PairLogProbs(*measured_log_probs(self._model, _texts(pairs), self.device).chunk(2))

    def describe_batch(self, step: int) -> Any:
        return self._numbers(step)


def _texts(pairs: Sequence[Pair]) -> list[Text]:
    """The chosen texts, then the rejected ones."""
    return [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
