"""From scores to a choice: logits -> filtered logits -> probabilities -> a token."""

import torch
from torch import Tensor


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Exactly the k likeliest of (V,) logits, all others -∞; of equals, those that torch.topk ranks first."""
    kept = torch.full_like(logits, -torch.inf)
    values, ids = logits.topk(min(k, logits.shape[-1]))
    return kept.scatter(-1, ids, values)


def choose(logits: Tensor, *, temperature: float, top_k: int | None, generator: torch.Generator) -> int:
    """One token of (V,) logits: the likeliest at temperature 0, else drawn from softmax(logits/temperature)."""
    if temperature == 0:
        return int(logits.argmax())
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    scaled = (logits.double() - logits.max()) / temperature  # nothing overflows, however low the temperature
    probabilities = torch.softmax(scaled, dim=-1)
    return int(torch.multinomial(probabilities, 1, generator=generator))
