"""Scores of a stretch of tokens, each with its standard error.

Whatever is told of the tokens, one after the other (nats, bytes, whether the likeliest token was right), is summed in blocks
of `BLOCK` tokens. A score is a ratio r of two sums, Σx/Σn; tokens that stand together are alike, so its error is estimated
from how the blocks differ, not the tokens: √(k/(k-1) · Σ(x_b - r·n_b)²)/Σn over k blocks (Cochran 1977, chapter 6).
"""

import math
from typing import Any

import numpy as np

#: Tokens a block: the same for every model, whatever its context, so that the errors of two can be compared.
BLOCK = 128

#: A difference smaller than so many of its standard errors is called a tie.
TIE = 2.0


class Sums:
    """What is told of tokens, one after the other, summed in blocks of `BLOCK`."""

    def __init__(self) -> None:
        self.count = 0
        self._blocks: list[float] = []

    def add(self, values: np.ndarray) -> None:
        """A number for each of the tokens that come next, (n,)."""
        if not len(values):
            return
        places = (self.count + np.arange(len(values))) // BLOCK
        sums = np.bincount(places - places[0], weights=values)
        if places[0] < len(self._blocks):
            self._blocks[-1] += float(sums[0])
            sums = sums[1:]
        self._blocks += sums.tolist()
        self.count += len(values)

    @property
    def blocks(self) -> np.ndarray:
        """The sums of the blocks, the last of which may be of fewer tokens."""
        return np.array(self._blocks)

    @property
    def total(self) -> float:
        return math.fsum(self._blocks)

    @property
    def sizes(self) -> np.ndarray:
        """Tokens a block."""
        sizes = np.full(len(self._blocks), float(BLOCK))
        if len(sizes):
            sizes[-1] = self.count - BLOCK * (len(sizes) - 1)
        return sizes


def ratio(x: np.ndarray, n: np.ndarray) -> tuple[float, float | None]:
    """Σx/Σn of the blocks' sums, and its standard error; None where one block alone cannot tell."""
    value = math.fsum(x) / math.fsum(n)
    blocks = len(x)
    if blocks < 2:
        return value, None
    return value, math.sqrt(blocks / (blocks - 1) * math.fsum((x - value * n) ** 2)) / math.fsum(n)


def scores(nats: float, tokens: int, n_bytes: int) -> dict[str, Any]:
    """Loss in nats a token, perplexity, and bits a byte of text, of `nats` summed over `tokens` that stand for `n_bytes`."""
    loss = nats / tokens
    return {
        "loss": loss,
        "perplexity": math.exp(loss) if loss < 700 else None,
        "bits_per_byte": nats / math.log(2) / n_bytes if n_bytes else None,
    }


def scores_with_errors(nats: Sums, n_bytes: Sums) -> dict[str, Any]:
    """The `scores` of `nats` over tokens of `n_bytes`, and under `standard_error` those of all three."""
    found = scores(nats.total, nats.count, round(n_bytes.total))
    _, loss_error = ratio(nats.blocks, nats.sizes)
    bits_error = None
    if n_bytes.total and loss_error is not None:
        bits_error = ratio(nats.blocks / math.log(2), n_bytes.blocks)[1]
    perplexity = found["perplexity"]
    errors = {
        "loss": loss_error,
        "perplexity": None if loss_error is None or perplexity is None else perplexity * loss_error,
        "bits_per_byte": bits_error,
    }
    return found | {"standard_error": errors}


def difference(nats: Sums, others: Sums) -> dict[str, Any]:
    """By how many nats a token `nats` exceeds `others`, of the same tokens: paired, with its standard error."""
    loss, error = ratio(nats.blocks - others.blocks, nats.sizes)
    return {"loss": loss, "standard_error": error}


def is_tie(found: dict[str, Any]) -> bool:
    """Whether a `difference` is too small, beside its standard error, to say which is better."""
    error = found["standard_error"]
    return error is None or abs(found["loss"]) <= TIE * error
