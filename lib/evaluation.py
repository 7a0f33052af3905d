"""How well a model predicts a stretch of tokens: every one counted once, in order.

The stretch is cut into blocks of the model's context length that touch and do not overlap; in each,
the first prediction has one token to go by and the last has all of the block.
"""

import math
from typing import Any, Callable, Iterator

import torch
from torch import Tensor

from lib.loss import LOGITS_AT_ONCE
from lib.model import LanguageModel
from lib.shards import Readable

_ROWS_AT_ONCE = 64  # the block shape is fixed, so a number never depends on a batch size


def total_nats(
    model: LanguageModel,
    tokens: Readable,
    start: int,
    stop: int,
    device: torch.device,
    on_tokens: Callable[[int], None] | None = None,
) -> float:
    """The summed loss of the ids `start` + 1 to `stop`, each predicted from those before it in its block.

    The model's training mode is left as it was found. `on_tokens` is told how many were predicted.
    """
    T = model.context_length
    rows = max(1, min(_ROWS_AT_ONCE, LOGITS_AT_ONCE // (T * model.vocab_size)))
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


def scores(nats: float, tokens: int, n_bytes: int) -> dict[str, Any]:
    """Loss in nats a token, perplexity, and bits a byte of text, of `nats` summed over `tokens` that stand for `n_bytes`."""
    loss = nats / tokens
    return {
        "loss": loss,
        "perplexity": math.exp(loss) if loss < 700 else None,
        "bits_per_byte": nats / math.log(2) / n_bytes if n_bytes else None,
    }
