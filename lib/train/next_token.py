"""Pretraining: each token from those before it; of conversations, the learned tokens alone.

B batch, T time
"""

from typing import Any

import torch
from torch import Tensor

from lib.device.compile import CompiledTrainStep
from lib.device.precision import autocast, choose_precision
from lib.evaluate.windows import total_nats, total_nats_of_texts
from lib.model.language_model import LanguageModel
from lib.model.loss import SoftTargets
from lib.model.packing import PackedTargets, Packing
from lib.model.seen_vocabulary import SeenVocabulary, share_unseen_rows
from lib.train.batches import Batches
from lib.train.objective import BatchLoss, Objective, Start, Validation


class NextToken(Objective):
    """Cross-entropy of the next token, in nats/token.

    `trained` may have rows for the training text's tokens alone; `model` has all of them.
    """

    def _prepare(self, start: Start | None) -> None:
        self._vocabulary = self._share_rows()
        self._is_written_back = True
        self._trained = self._vocabulary.trained.train() if self._vocabulary else self._model
        columns = self._vocabulary.columns.cpu().numpy() if self._vocabulary else None
        self._batches = Batches(self.dataset, self.config, columns)
        self._loss = self._trained.loss

    def _share_rows(self) -> SeenVocabulary | None:
        """The model over the tokens of the training text, if the others may share a row."""
        if self.config.unseen_rows == "separate" or self.config.finetune != "all":
            return None
        return share_unseen_rows(self._model, torch.from_numpy(self.dataset.train_ids()).to(self.device))

    @property
    def model(self) -> LanguageModel:
        if self._vocabulary and not self._is_written_back:
            self._vocabulary.write_back()
            self._is_written_back = True
        return self._model

    @property
    def trained(self) -> LanguageModel:
        return self._trained

    @property
    def tokens_per_step(self) -> int:
        return self.config.batch_size * self.dataset.context_length

    def terms(self, step: int) -> int:
        return self._batches.targets(step)

    def loss(self, step: int, rows: range) -> BatchLoss:
        ids, soft, packed = self._batch(step, rows)
        targets = ids[:, 1:]
        soft = soft or self._trained.smooth(targets.numel(), self.config.label_smoothing)
        return BatchLoss(self._loss(ids[:, :-1], targets, soft, packed))

    def _batch(self, step: int, rows: range) -> tuple[Tensor, SoftTargets | None, PackedTargets | None]:
        """These windows of batch `step` on the device, as rows of the trained model's tables: (b, T + 1)."""
        batch = self._batches.batch(step, rows).to(self.device)
        ids = self._vocabulary.columns[batch.ids] if self._vocabulary else batch.ids
        return ids, batch.soft, batch.packed and PackedTargets(Packing(batch.packed[0]), batch.packed[1])

    def compile(self, sizes: list[int]) -> str | None:
        shapes = [(size, self.dataset.context_length) for size in sizes]
        with autocast(choose_precision(self.config.precision, self.device), self.device):
            compiled = CompiledTrainStep(self._trained, shapes, self.device)
        if self.group.any(compiled.failure is not None, self.device):  # all or none: their gradients must come in one order
            return compiled.failure or "it failed in another process"
        self._loss = compiled.loss
        return None

    def finish_gradient(self) -> None:
        if self._vocabulary:
            self._vocabulary.average_gradient()

    def after_step(self) -> None:
        self._is_written_back = False

    def describe_batch(self, step: int) -> Any:
        return self._batches.batch(step).ids.tolist()

    def validate(self) -> Validation:
        nats, predicted = self._nats_of_texts() if self.dataset.packed else self._nats_of_windows()
        return Validation(self.group.total(nats, self.device) / predicted)

    def _nats_of_windows(self) -> tuple[float, int]:
        """The loss of this process's part of the validation split, and how many tokens all of it predicts."""
        start, stop = self.dataset.split("val")
        blocks = -(-self.dataset.predicted("val") // self.dataset.context_length)
        mine = self.group.share(blocks)
        first, end = (start + block * self.dataset.context_length for block in (mine.start, mine.stop))
        nats = total_nats(self.model, self.dataset.tokens, first, min(stop, end + 1), self.device)
        return nats, self.dataset.predicted("val")

    def _nats_of_texts(self) -> tuple[float, int]:
        """The same of a split of conversations."""
        texts = list(self.dataset.texts_of("val"))
        mine = self.group.share(len(texts))
        nats = total_nats_of_texts(self.model, [texts[number] for number in mine], self.device)
        return nats, sum(int(trained[1:].sum()) for _, trained in texts)
