"""How well a model predicts a stretch of tokens: every one counted once, in order.

The stretch is read in windows of the model's context length T. Where they touch, the first prediction of each has one token
to go by and the last has T. Where they overlap, one beginning every `stride` tokens, each but the first predicts its last
`stride` tokens alone, all of which have more than T - stride tokens to go by: so one sees what a short context costs.
"""

from typing import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from lib.data.shards import TokenSource
from lib.model.language_model import LanguageModel
from lib.model.loss import LOGITS_AT_ONCE
from lib.model.maps import block_stack
from lib.model.pointer import PointerGPT

_ROWS_AT_ONCE = 64
#: Positions whose logits are in memory at one time, where each is looked at by itself; SmolLM2 computes so many in 0.2 s.
POSITIONS_AT_ONCE = 256

OnTokens = Callable[[int], None]


def _windows(
    model: LanguageModel, tokens: TokenSource, start: int, stop: int, device: torch.device, stride: int | None = None
) -> Iterator[tuple[int, Tensor]]:
    """The ids `start` to `stop` in windows (B, T + 1), each an input and, one token on, its targets; and where a part begins.

    The windows begin every `stride` tokens (None: T); a shorter one may end them. Always as many go through the model side by
    side, so that a number never depends on a batch size.
    """
    T = model.context_length
    rows = max(1, min(_ROWS_AT_ONCE, LOGITS_AT_ONCE // (T * model.vocab_size)))
    stride = stride or T
    at = end = start  # where the next window begins, and the last id that was a target
    while end < stop - 1:
        whole = (stop - 1 - at - T) // stride + 1  # windows of T that are left
        count, length = (min(whole, rows), T) if whole > 0 else (1, stop - 1 - at)
        span = torch.from_numpy(tokens.read(at, at + (count - 1) * stride + length + 1).astype("int64"))
        yield at, span.unfold(0, length + 1, stride).to(device)
        end = at + (count - 1) * stride + length
        at += count * stride


@torch.inference_mode()
def total_nats(
    model: LanguageModel,
    tokens: TokenSource,
    start: int,
    stop: int,
    device: torch.device,
    on_tokens: OnTokens | None = None,
) -> float:
    """The summed loss of the ids `start` + 1 to `stop`, each predicted from those before it in its window.

    The model's training mode is left as it was. `on_tokens` is called with the number of tokens predicted.
    """
    was_training = model.training
    model.eval()
    total = 0.0
    for _, windows in _windows(model, tokens, start, stop, device):
        inputs, targets = windows[:, :-1], windows[:, 1:]
        total += model.loss(inputs, targets).item()
        if on_tokens:
            on_tokens(targets.numel())
    model.train(was_training)
    return total


@torch.inference_mode()
def total_nats_of_texts(model: LanguageModel, texts: Iterable[tuple[np.ndarray, np.ndarray]], device: torch.device) -> float:
    """The summed loss of the learned ids of `texts`, each (ids, learned or not), and each predicted from its own text alone."""
    was_training = model.training
    model.eval()
    total = 0.0
    for ids, learned in texts:
        if learned[1:].any():
            window = torch.from_numpy(ids.astype("int64"))[None].to(device)
            x = model.features(window[:, :-1])[0, torch.from_numpy(learned[1:]).to(device)]
            total += model.head_loss(x, window[0, 1:][torch.from_numpy(learned[1:]).to(device)]).item()
    model.train(was_training)
    return total


@torch.inference_mode()
def iterate_predictions(
    model: LanguageModel, tokens: TokenSource, start: int, stop: int, device: torch.device
) -> Iterator[tuple[int, int, Tensor]]:
    """The ids `start` + 1 to `stop` one by one: where each stands, the id, and the logits (V,) it was predicted by.

    In the same windows as `total_nats`, so the losses sum to its result.
    """
    position = start
    for ids, logits in prediction_parts(model, tokens, start, stop, device):
        for id, row in zip(ids.tolist(), logits, strict=True):
            position += 1
            yield position, id, row


@torch.inference_mode()
def prediction_parts(
    model: LanguageModel, tokens: TokenSource, start: int, stop: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """The same in parts, in order: ids, (n,), and the logits they were predicted by, (n, V) float32, both on the CPU.

    No logits are kept from one part to the next.
    """
    for _, windows in _windows(model, tokens, start, stop, device):
        inputs, targets = windows[:, :-1], windows[:, 1:]
        x = model.features(inputs)
        for number in range(len(windows)):
            row = slice(number, number + 1)
            parts = logits_in_parts(model, x[row], inputs[row])
            for ids in torch.split(targets[number].cpu(), POSITIONS_AT_ONCE):
                yield ids, next(parts).cpu()


def logits_in_parts(model: LanguageModel, x: Tensor, ids: Tensor) -> Iterator[Tensor]:
    """The logits of features x, (1, T, C), of `ids`, (1, T), in parts (n, V) of `POSITIONS_AT_ONCE`, float32.

    A pointer compares all positions, so its logits are computed as a whole.
    """
    if isinstance(block_stack(model), PointerGPT):
        yield from torch.split(model.predict(x, ids)[0].float(), POSITIONS_AT_ONCE)
        return
    for start in range(0, x.shape[1], POSITIONS_AT_ONCE):
        part = slice(start, start + POSITIONS_AT_ONCE)
        yield model.predict(x[:, part], ids[:, part])[0].float()


@torch.inference_mode()
def predict_batches(
    model: LanguageModel, tokens: TokenSource, start: int, stop: int, device: torch.device, stride: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The loss in nats and the rank (1: the most likely) of the ids `start` + 1 to `stop`, in parts, in order: two (n,) arrays.

    The windows begin every `stride` tokens (None: T). Of equally likely tokens the one with the lower id ranks first.
    """
    stride = stride or model.context_length
    done = start  # the last id that was predicted
    for at, windows in _windows(model, tokens, start, stop, device, stride):
        nats, ranks = (column.cpu().numpy() for column in nats_and_ranks(model(windows[:, :-1]), windows[:, 1:]))
        for number in range(len(windows)):
            fresh = done - (at + number * stride)
            yield nats[number, fresh:], ranks[number, fresh:]
            done += nats.shape[1] - fresh


@torch.inference_mode()
def predict_texts(
    model: LanguageModel, texts: Iterable[tuple[np.ndarray, np.ndarray]], device: torch.device
) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """The learned ids of `texts`, each (ids, learned or not), and each text alone: its learned ids' places in it, (n,), the
    logits they were predicted by, (n, V), and the ids, (n,); texts of which nothing is learned are skipped.
    """
    for ids, learned in texts:
        places = np.flatnonzero(learned[1:])  # of the inputs that they follow
        if len(places):
            window = torch.from_numpy(ids.astype("int64")).to(device)
            index = torch.from_numpy(places).to(device)
            yield places + 1, model(window[None, :-1])[0, index], window[1:][index]


def predict_learned(
    model: LanguageModel, texts: Iterable[tuple[np.ndarray, np.ndarray]], device: torch.device
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The loss in nats, the rank and the place in its text of each learned id of `texts`, text by text: three (n,) arrays."""
    for places, logits, targets in predict_texts(model, texts, device):
        nats, ranks = nats_and_ranks(logits, targets)
        yield nats.cpu().numpy(), ranks.cpu().numpy(), places


def nats_and_ranks(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """What (…, V) logits say of (…) targets: their loss in nats and their rank."""
    logits = logits.float()
    own = logits.gather(-1, targets[..., None])
    earlier = torch.arange(logits.shape[-1], device=logits.device) < targets[..., None]
    ranks = 1 + ((logits > own) | ((logits == own) & earlier)).sum(dim=-1)
    return logits.logsumexp(dim=-1) - own[..., 0], ranks
