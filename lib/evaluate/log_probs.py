"""How likely a model finds the answers of some texts, token by token.

B texts, T time, C embedding, n tokens of an answer
"""

from typing import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lib.data.pairs import Text
from lib.generate.sampling import DamagedWeights
from lib.model.language_model import LanguageModel
from lib.model.loss import LOGITS_AT_ONCE

#: Texts that go through the model side by side where no gradient is needed.
_TEXTS_AT_ONCE = 16

_MOST_TEXTS = 64  # side by side where only predictions are wanted


def answer_nats(model: LanguageModel, texts: Sequence[Text], device: torch.device) -> list[Tensor]:
    """-ln p of each token of each text's answer, given all that is before it: (n,) each.

    Texts in one batch are filled up at their ends. No token sees what is after it, so that changes nothing.
    """
    inputs, targets, learned = _batch(texts, device)
    x = model.features(inputs)[learned]  # (all n, C)
    nats = F.cross_entropy(model.out_head(x).float(), targets[learned], reduction="none")
    return list(torch.split(nats, learned.sum(dim=1).tolist()))


def _batch(texts: Sequence[Text], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets and which targets belong to an answer, (B, T - 1) each; the shorter texts are filled up at their ends."""
    T = max(len(text.ids) for text in texts)
    ids, answer = np.zeros((len(texts), T), np.int64), np.zeros((len(texts), T), bool)
    for row, text in enumerate(texts):
        ids[row, : len(text.ids)], answer[row, : len(text.ids)] = text.ids, text.answer
    inputs, targets, learned = (torch.from_numpy(array).to(device) for array in (ids[:, :-1], ids[:, 1:], answer[:, 1:]))
    return inputs, targets, learned


def answer_log_probs(model: LanguageModel, texts: Sequence[Text], device: torch.device) -> Tensor:
    """The log-probability of each text's answer as a whole, (B,): the sum over its tokens."""
    return torch.stack([-nats.sum() for nats in answer_nats(model, texts, device)])


@torch.inference_mode()
def measured_log_probs(model: LanguageModel, texts: Iterable[Text], device: torch.device) -> Tensor:
    """`answer_log_probs` of any number of texts, without a gradient and without dropout; on the CPU."""
    was_training = model.training
    model.eval()
    texts = list(texts)
    parts = [texts[start : start + _TEXTS_AT_ONCE] for start in range(0, len(texts), _TEXTS_AT_ONCE)]
    log_probs = [answer_log_probs(model, part, device).cpu() for part in parts]
    model.train(was_training)
    return torch.cat(log_probs)


@torch.inference_mode()
def predicted_log_probs(
    model: LanguageModel, texts: Sequence[Text], device: torch.device, on_texts: Callable[[int], None] = lambda _: None
) -> np.ndarray:
    """The log-probability of each text's answer, (texts,) float64, as any kind of model predicts it.

    Texts of about the same length are computed together, few enough for `LOGITS_AT_ONCE`; `on_texts` gets the number of texts
    of each batch. DamagedWeights if one is not a finite number.
    """
    order = sorted(range(len(texts)), key=lambda number: -len(texts[number].ids))
    log_probs = np.zeros(len(texts))
    while order:
        logits = len(texts[order[0]].ids) * model.vocab_size  # of one text
        count = max(1, min(_MOST_TEXTS, LOGITS_AT_ONCE // logits))
        numbers, order = order[:count], order[count:]
        inputs, targets, scored = _batch([texts[number] for number in numbers], device)
        nats = F.cross_entropy(model(inputs)[scored].float(), targets[scored], reduction="none")
        log_probs[numbers] = [-part.double().sum().item() for part in torch.split(nats, scored.sum(dim=1).tolist())]
        on_texts(len(numbers))
    if not np.isfinite(log_probs).all():
        raise DamagedWeights
    return log_probs
