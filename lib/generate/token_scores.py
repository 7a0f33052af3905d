"""How a model scores a token: its probability, its rank, and the alternatives."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lib.tokenizer.base import Tokenizer


@dataclass(frozen=True)
class TokenScore:
    """One token next to the most likely ones, by the model's probabilities before temperature and filters."""

    id: int
    text: str
    logprob: float  # nats
    probability: float
    rank: int  # 1: the most likely
    alternatives: list[dict[str, Any]]  # the most likely tokens, best first: id, text, logprob, probability


def score_token(logits: Tensor, id: int, tokenizer: Tokenizer, alternatives: int = 5) -> TokenScore:
    """The score of the token `id` by (V,) logits; of equal tokens the one with the lower id ranks first."""
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    own = logprobs[id]
    best = logprobs.topk(min(alternatives, len(logprobs)))
    return TokenScore(
        id=id,
        text=token_text(tokenizer, id),
        logprob=own.item(),
        probability=own.exp().item(),
        rank=1 + int((logprobs > own).sum() + (logprobs[:id] == own).sum()),
        alternatives=[
            {"id": other, "text": token_text(tokenizer, other), "logprob": logprob, "probability": probability}
            for other, logprob, probability in zip(
                best.indices.tolist(), best.values.tolist(), best.values.exp().tolist(), strict=True
            )
        ],
    )


def token_text(tokenizer: Tokenizer, id: int) -> str:
    """The text of one token; bytes that are not a whole character are escaped in hexadecimal."""
    return tokenizer.token_bytes(id).decode("utf-8", "backslashreplace")
