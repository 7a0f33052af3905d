"""Classification: the class of a text, from the features of its last token.

The texts of a batch share windows (`lib.data.packing`), so that little is computed for nothing, and no text sees another.

B windows, T time, C embedding, N texts, K classes
"""

from typing import Any, Sequence

import numpy as np
import torch
from torch import Tensor

from lib.data.dataset import Dataset
from lib.data.packing import text_windows
from lib.model.classifier import WindowTensors, class_logits, head_logits
from lib.model.gpt import GPT
from lib.model.language_model import LanguageModel
from lib.model.loss import cross_entropy
from lib.model.registry import count_operations
from lib.train.objective import BatchLoss, Objective, Start, Validation

_TEXTS_AT_ONCE = 32  # in a validation

#: The most numbers of frozen features that are kept: 1 GB of float32.
_MOST_KEPT = 1 << 28


class Classes(Objective):
    """Cross-entropy of the classes of labeled texts, in nats/text; `accuracy` is the fraction of texts that are right.

    If nothing below the last block is trained, what it computes of each text is computed once and kept.
    """

    writes_text = False

    def _prepare(self, start: Start | None) -> None:
        dataset, model = self.dataset, self._model
        assert dataset.labeled is not None
        self._texts = dataset.labeled
        self._train, self._val = self._texts.numbers("train"), self._texts.numbers("val")
        kept = (dataset.train_tokens + dataset.val_tokens) * model.config.emb_dim
        self._frozen = FrozenFeatures(model, dataset) if is_frozen_below(model) and kept <= _MOST_KEPT else None

    @property
    def tokens_per_step(self) -> int:
        """On average: the texts differ in length."""
        return round(self.config.batch_size * self.dataset.train_tokens / len(self._train))

    @property
    def operations_per_token(self) -> int:
        return count_operations(self._model, keeps_frozen=self._frozen is not None)

    def terms(self, step: int) -> int:
        return self.config.batch_size

    def loss(self, step: int, rows: range) -> BatchLoss:
        return self._loss(self._batch(step, rows))

    def _batch(self, step: int, rows: range | None = None) -> list[int]:
        """The numbers of the texts of batch `step`, or only of these `rows` of it."""
        places = self.dataset.window_numbers(self.config.seed, step, self.config.batch_size, rows)
        return [int(self._train[place]) for place in places]

    def _loss(self, numbers: Sequence[int]) -> BatchLoss:
        """The summed loss of the texts with these numbers, and how many are right."""
        texts = self._texts.read(numbers)
        windows = text_windows([ids for ids, _ in texts], self.dataset.context_length)
        tensors = WindowTensors(windows, self.device)
        labels = torch.tensor([label for _, label in texts], device=self.device)
        if self._frozen:
            assert isinstance(self._model, GPT)
            x = self._model.last_features(self._frozen.in_windows(numbers, tensors), packing=tensors.packing)
            logits = head_logits(self._model, x, tensors.last)
        else:
            logits = class_logits(self._model, tensors)
        right = int((logits.argmax(dim=1) == labels).sum())
        return BatchLoss(cross_entropy(logits, labels), {"accuracy": float(right)})

    @torch.inference_mode()
    def validate(self) -> Validation:
        self._model.eval()
        groups = [self._val[at : at + _TEXTS_AT_ONCE] for at in range(0, len(self._val), _TEXTS_AT_ONCE)]
        loss = right = 0.0
        for number in self.group.share(len(groups)):
            batch = self._loss([int(text) for text in groups[number]])
            loss, right = loss + batch.loss.item(), right + batch.values["accuracy"]
        self._model.train()
        means = self._means({"loss": loss, "accuracy": right}, len(self._val))
        return Validation(means.pop("loss"), means)

    def describe_batch(self, step: int) -> Any:
        return self._batch(step)


def is_frozen_below(model: LanguageModel) -> bool:
    """Whether all that comes before the last block is frozen, and computes the same every time."""
    if not isinstance(model, GPT) or model.config.drop_rate:
        return False
    above = {id(weight) for part in (model.blocks[-1], model.final_norm, model.out_head) for weight in part.parameters()}
    return not any(weight.requires_grad and id(weight) not in above for weight in model.parameters())


class FrozenFeatures:
    """The input of the last block for the texts of a dataset, each computed once and kept on the device.

    Always the same texts are computed together, so that the features do not depend on which are asked for first.
    """

    def __init__(self, model: LanguageModel, dataset: Dataset) -> None:
        assert dataset.labeled is not None
        assert isinstance(model, GPT)
        self._model, self._texts, self._length = model, dataset.labeled, dataset.context_length
        used = np.concatenate([dataset.labeled.numbers(name) for name in ("train", "val")])
        groups = [used[at : at + _TEXTS_AT_ONCE] for at in range(0, len(used), _TEXTS_AT_ONCE)]
        self._group_of = {int(number): group for group in groups for number in group}
        self._kept: dict[int, Tensor] = {}  # the number of a text -> (its length, C)

    def in_windows(self, numbers: Sequence[int], windows: WindowTensors) -> Tensor:
        """The features of the texts with these numbers, laid out as `windows` has their ids: (B, T, C)."""
        for number in numbers:
            if number not in self._kept:
                self._compute(self._group_of[number])
        B, T = windows.ids.shape
        x = torch.zeros(B * T, self._model.config.emb_dim, device=windows.ids.device)
        for number, last in zip(numbers, windows.last.tolist(), strict=True):
            features = self._kept[number]
            x[last + 1 - len(features) : last + 1] = features
        return x.view(B, T, -1)

    @torch.no_grad()
    def _compute(self, group: np.ndarray) -> None:
        texts = self._texts.read(group)
        device = next(self._model.parameters()).device
        windows = WindowTensors(text_windows([ids for ids, _ in texts], self._length), device)
        with torch.autocast(device.type, enabled=False):
            x = self._model.first_features(windows.ids, packing=windows.packing).flatten(0, 1)
        for number, (ids, _), last in zip(group, texts, windows.last.tolist(), strict=True):
            self._kept[int(number)] = x[last + 1 - len(ids) : last + 1].clone()
