"""Sampling: logits are filtered, turned into probabilities, and a token is drawn.

The filters are applied one after another, in the order of this file, which is the usual one; each sees what the earlier
ones left. A token that is filtered out has the logit -∞.
"""

from typing import Any, Sequence

import torch
from torch import Tensor

from lib.config.schema import GenerateConfig
from lib.errors import MakegptError


class DamagedWeights(MakegptError):
    """The model computes logits that are not finite numbers."""

    def __init__(self) -> None:
        super().__init__("the model's logits are not finite numbers; its weights are damaged, or of a training that diverged")


def apply_repetition_penalty(logits: Tensor, seen: Sequence[int], penalty: float) -> Tensor:
    """Make the tokens in `seen` less likely: divide positive logits by `penalty`, multiply others (Keskar et al. 2019)."""
    ids = torch.tensor(sorted(set(seen)), dtype=torch.long, device=logits.device)
    seen_logits = logits[ids]
    return logits.scatter(-1, ids, torch.where(seen_logits > 0, seen_logits / penalty, seen_logits * penalty))


def temperature_scaled(logits: Tensor, temperature: float) -> Tensor:
    """Logits divided by the temperature, in float64 and shifted to a maximum of 0, so that a low one does not overflow."""
    return (logits.double() - logits.max()) / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Exactly the k most likely tokens; of equals, those that torch.topk ranks first (Fan et al. 2018)."""
    filtered = torch.full_like(logits, -torch.inf)
    values, ids = logits.topk(min(k, logits.shape[-1]))
    return filtered.scatter(-1, ids, values)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """The fewest most likely tokens whose probabilities together reach p, the most likely always (Holtzman et al. 2020)."""
    probabilities, ids = torch.softmax(logits, dim=-1).sort(descending=True, stable=True)
    before = probabilities.cumsum(dim=-1) - probabilities  # total of the more likely tokens
    dropped = before >= p
    dropped[0] = False
    return logits.masked_fill(dropped.scatter(-1, ids, dropped), -torch.inf)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """The tokens with at least p times the probability of the most likely one (Nguyen et al. 2024)."""
    probabilities = torch.softmax(logits, dim=-1)
    return logits.masked_fill(probabilities < p * probabilities.max(), -torch.inf)


def next_distribution(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    seen: Sequence[int] = (),
) -> Tensor:
    """The probabilities of the next token by (V,) logits, (V,) float64: the softmax of what the filters leave.

    At temperature 0 the most likely token has probability 1. `seen`: the tokens of the text so far, to which the penalty
    applies. DamagedWeights if the best logit is not finite.
    """
    if repetition_penalty != 1.0 and seen:
        logits = apply_repetition_penalty(logits, seen, repetition_penalty)
    best = int(logits.argmax())  # that of nan, if there is one
    if not torch.isfinite(logits[best]):
        raise DamagedWeights
    if temperature == 0:
        return torch.zeros(len(logits), dtype=torch.float64).index_fill_(0, torch.tensor(best), 1.0)
    logits = temperature_scaled(logits, temperature)
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    if min_p is not None:
        logits = keep_min_p(logits, min_p)
    return torch.softmax(logits, dim=-1)


def draw_token(probabilities: Tensor, generator: torch.Generator | None) -> int:
    """A token by its probabilities, (V,), which need not sum to 1; without a `generator` the most likely one."""
    return int(probabilities.argmax() if generator is None else torch.multinomial(probabilities, 1, generator=generator))


def sample_token(logits: Tensor, *, generator: torch.Generator, temperature: float = 1.0, **filters: Any) -> int:
    """One token of (V,) logits: the most likely at temperature 0, else drawn. `filters` are those of `next_distribution`."""
    return draw_token(next_distribution(logits, temperature=temperature, **filters), generator if temperature else None)


class TokenSampler:
    """Samples tokens with the parameters and the seed of a configuration."""

    def __init__(self, config: GenerateConfig) -> None:
        self._config = config
        self._generator = torch.Generator().manual_seed(config.seed)

    def distribution(self, logits: Tensor, seen: Sequence[int]) -> Tensor:
        """The probabilities of the token after `seen` by its logits: (V,) -> (V,) float64."""
        config = self._config
        return next_distribution(
            logits,
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
            min_p=config.min_p,
            repetition_penalty=config.repetition_penalty,
            seen=seen,
        )

    def draw(self, probabilities: Tensor) -> int:
        """A token by its probabilities, (V,), which need not sum to 1."""
        return draw_token(probabilities, self._generator if self._config.temperature else None)

    def uniform(self) -> float:
        """A number from 0 to 1."""
        return float(torch.rand((), generator=self._generator, dtype=torch.float64))

    def next(self, logits: Tensor, seen: Sequence[int]) -> int:
        """A token of (V,) logits after the tokens `seen`."""
        return self.draw(self.distribution(logits, seen))
