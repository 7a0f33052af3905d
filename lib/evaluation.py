"""How well a model predicts a stretch of tokens: every one counted once, in order.

The stretch is read in windows of the model's context length T. Where they touch, the first prediction of each has one token
to go by and the last has T. Where they overlap, one beginning every `stride` tokens, each but the first predicts its last
`stride` tokens alone, all of which have more than T - stride tokens to go by: so one sees what a short context costs.
"""

from typing import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from lib.loss import LOGITS_AT_ONCE
from lib.model import LanguageModel
from lib.shards import Readable

_ROWS_AT_ONCE = 64

OnTokens = Callable[[int], None]


def _rows(model: LanguageModel) -> int:
    """Windows that go through the model side by side: always as many, so a number never depends on a batch size."""
    return max(1, min(_ROWS_AT_ONCE, LOGITS_AT_ONCE // (model.context_length * model.vocab_size)))


def total_nats(
    model: LanguageModel,
    tokens: Readable,
    start: int,
    stop: int,
    device: torch.device,
    on_tokens: OnTokens | None = None,
) -> float:
    """The summed loss of the ids `start` + 1 to `stop`, each predicted from those before it in its block.

    The model's training mode is left as it was found. `on_tokens` is told how many were predicted.
    """
    T = model.context_length
    rows = _rows(model)
    was_training = model.training
    model.eval()
    total = 0.0
    at = start
    with torch.inference_mode():
        while at < stop - 1:
            blocks = max(1, min(rows, (stop - 1 - at) // T))  # whole blocks; the last one may be shorter
            length = min(T, stop - 1 - at)
            ids = torch.from_numpy(tokens.read(at, at + blocks * length + 1).astype("int64")).to(device)
            inputs, targets = ids[:-1].view(blocks, length), ids[1:].view(blocks, length)
            total += model.loss(inputs, targets).item()
            at += blocks * length
            if on_tokens:
                on_tokens(blocks * length)
    model.train(was_training)
    return total


@torch.inference_mode()
def each_prediction(
    model: LanguageModel, tokens: Readable, start: int, stop: int, device: torch.device
) -> Iterator[tuple[int, int, Tensor]]:
    """The ids `start` + 1 to `stop` one by one: where each stands, the id, and the logits (V,) it was predicted by.

    In the same blocks as `total_nats`, so the losses sum to its result.
    """
    for at in range(start, stop - 1, model.context_length):
        ids = torch.from_numpy(tokens.read(at, min(at + model.context_length + 1, stop)).astype("int64"))
        for n, logits in enumerate(model(ids[None, :-1].to(device))[0], 1):
            yield at + n, int(ids[n]), logits.float().cpu()


@torch.inference_mode()
def predictions(
    model: LanguageModel, tokens: Readable, start: int, stop: int, device: torch.device, stride: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The loss in nats and the rank (1: the likeliest) of the ids `start` + 1 to `stop`, in parts, in order: two (n,) arrays.

    The windows begin every `stride` tokens (None: T). Of equally likely tokens the one with the lower id ranks first.
    """
    T = model.context_length
    stride = stride or T
    at, done = start, start  # where the next window begins, and the last id that was predicted
    while done < stop - 1:
        whole = (stop - 1 - at - T) // stride + 1  # windows of T that are left; a shorter one may end the stretch
        count, length = (min(whole, _rows(model)), T) if whole > 0 else (1, stop - 1 - at)
        span = torch.from_numpy(tokens.read(at, at + (count - 1) * stride + length + 1).astype("int64"))
        windows = span.unfold(0, length + 1, stride).to(device)  # (B, T + 1)
        nats, ranks = (found.cpu().numpy() for found in _scored(model(windows[:, :-1]), windows[:, 1:]))
        for number in range(count):
            fresh = done - (at + number * stride)
            yield nats[number, fresh:], ranks[number, fresh:]
            done = at + number * stride + length
        at += count * stride


def _scored(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """What (B, T, V) logits say of (B, T) targets: their loss in nats and their rank."""
    logits = logits.float()
    own = logits.gather(-1, targets[..., None])
    earlier = torch.arange(logits.shape[-1], device=logits.device) < targets[..., None]
    ranks = 1 + ((logits > own) | ((logits == own) & earlier)).sum(dim=-1)
    return logits.logsumexp(dim=-1) - own[..., 0], ranks
