"""Sampling: logits are filtered, turned into probabilities, and a token is drawn.

The filters are applied one after another, in the order of this file, which is the usual one; each sees what the earlier
ones left. A token that is filtered out has the logit -∞.
"""

from typing import Sequence

import torch
from torch import Tensor

from lib.config.schema import GenerateConfig
from lib.errors import MakegptError


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


def sample_token(
    logits: Tensor,
    *,
    generator: torch.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    seen: Sequence[int] = (),
) -> int:
    """One token of (V,) logits: the most likely at temperature 0, else drawn from the softmax of what the filters leave.

    `seen`: the tokens of the text so far, to which the penalty applies. MakegptError if the best logit is not finite.
    """
    if repetition_penalty != 1.0 and seen:
        logits = apply_repetition_penalty(logits, seen, repetition_penalty)
    best = int(logits.argmax())  # that of nan, if there is one
    if not torch.isfinite(logits[best]):
        raise MakegptError("the model's logits are not finite numbers; its weights are damaged, or of a training that diverged")
    if temperature == 0:
        return best
    logits = temperature_scaled(logits, temperature)
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    if min_p is not None:
        logits = keep_min_p(logits, min_p)
    return int(torch.multinomial(torch.softmax(logits, dim=-1), 1, generator=generator))


class TokenSampler:
    """Samples tokens with the parameters and the seed of a configuration."""

    def __init__(self, config: GenerateConfig) -> None:
        self._config = config
        self._generator = torch.Generator().manual_seed(config.seed)

    def next(self, logits: Tensor, seen: Sequence[int]) -> int:
        """A token of (V,) logits after the tokens `seen`."""
        config = self._config
        return sample_token(
            logits,
            generator=self._generator,
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
            min_p=config.min_p,
            repetition_penalty=config.repetition_penalty,
            seen=seen,
        )
