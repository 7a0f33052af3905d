"""Speculative decoding: a small draft model proposes several tokens, which the model checks in one pass.

A token reads all matrices of the model once, whether one position is computed or five, so checking five proposals takes little
longer than computing one token. What is written is distributed as without a draft, whatever the draft proposes: with p the
model's distribution and q the draft's, a proposal x is kept with probability min(1, p(x)/q(x)); instead of the first that is
not, a token is drawn from max(0, p - q), normalized. If all are kept, the same pass gives one more token (Leviathan, Kalman
and Matias 2023). At temperature 0 both distributions are on one token, and a proposal is kept if it is the model's own choice.

V vocabulary, n proposals
"""

from dataclasses import dataclass
from typing import Iterable, Iterator

import torch
from torch import Tensor

from lib.errors import MakegptError
from lib.generate.batch import PIECE, AnySequence
from lib.generate.engine import generate_tokens
from lib.generate.request import Request
from lib.generate.sampling import TokenSampler
from lib.model.kv_cache import KVCache
from lib.model.language_model import LanguageModel, check_ids


@dataclass
class Speculation:
    """How many tokens a draft has `proposed` and how many of them were `accepted`."""

    proposed: int = 0
    accepted: int = 0


def generate_speculatively(
    model: LanguageModel,
    draft: LanguageModel,
    sequence: AnySequence,
    device: torch.device,
    *,
    ahead: int = 4,
    counted: Speculation | None = None,
) -> Iterator[tuple[AnySequence, int, Tensor]]:
    """As `generate_tokens` with one sequence, where `draft` proposes up to `ahead` tokens at a time.

    Both models have the same vocabulary. A text that has outgrown the context of one of them is continued without proposals.
    MakegptError if one of them has no KV cache.
    """
    check_ids(sequence.ids, model.vocab_size)
    counted = counted or Speculation()
    context = min(model.context_length, draft.context_length)
    cache, draft_cache = _cache(model, context), _cache(draft, context)
    while sequence.finish_reason is None:
        if len(sequence.ids) > context:
            yield from generate_tokens(model, [sequence], device)
            return
        left = sequence.config.max_new_tokens - len(sequence.tokens)
        n = min(ahead, left - 1, context - len(sequence.ids))
        with torch.inference_mode():
            _read(model, cache, sequence.ids[:-1], device)
            _read(draft, draft_cache, sequence.ids[:-1], device)
            proposals, guesses = _propose(draft, draft_cache, sequence.ids, sequence.sampler, n, device)
            ids = sequence.ids + proposals
            logits = model.new_logits(torch.tensor([ids[cache.length :]], device=device), [cache])
            logits = logits[0].float().cpu()  # (n + 1, V): of the tokens after the text and after each proposal
        counted.proposed += n
        for row, guess, proposal in zip(logits, [*guesses, None], [*proposals, None], strict=True):
            id, accepted = _choose(sequence.sampler, row, sequence.ids, guess, proposal)
            counted.accepted += accepted
            yield sequence, sequence.append(id), row
            if not accepted or sequence.finish_reason is not None:
                break
        kept = min(len(sequence.ids) - 1, cache.length)
        cache.truncate(kept)
        draft_cache.truncate(min(kept, draft_cache.length))


def stream_speculatively(
    model: LanguageModel,
    draft: LanguageModel,
    requests: Iterable[Request],
    device: torch.device,
    *,
    ahead: int = 4,
    counted: Speculation | None = None,
) -> Iterator[tuple[Request, str]]:
    """As `stream_text`, one request after another, with the proposals of `draft`."""
    for request in requests:
        for _, id, logits in generate_speculatively(model, draft, request, device, ahead=ahead, counted=counted):
            yield request, request.add(id, logits)


def _cache(model: LanguageModel, capacity: int) -> KVCache:
    cache = model.cache(capacity)
    if cache is None:
        raise MakegptError(f"speculative decoding needs models with a KV cache, and a {model.config.kind} has none")
    return cache


def _read(model: LanguageModel, cache: KVCache, ids: list[int], device: torch.device) -> None:
    """Add those of `ids` that the cache does not have to it, a prompt in pieces, as `TokenBatch` reads it."""
    while piece := ids[cache.length :][:PIECE]:
        model.next_token_logits(torch.tensor([piece], device=device), [cache])


def _propose(
    draft: LanguageModel, cache: KVCache, ids: list[int], sampler: TokenSampler, n: int, device: torch.device
) -> tuple[list[int], list[Tensor]]:
    """The n tokens after `ids`, and the distribution that each was drawn from, (V,) each."""
    proposals: list[int] = []
    guesses: list[Tensor] = []
    while len(proposals) < n:
        seen = ids + proposals
        new = torch.tensor([seen[cache.length :]], device=device)
        guess = sampler.distribution(draft.next_token_logits(new, [cache])[0].float().cpu(), seen)
        proposals.append(sampler.draw(guess))
        guesses.append(guess)
    return proposals, guesses


def _choose(
    sampler: TokenSampler, logits: Tensor, seen: list[int], guess: Tensor | None, proposal: int | None
) -> tuple[int, bool]:
    """The token after `seen` by the model's `logits`, (V,), and whether it is the `proposal`, drawn from `guess`, (V,)."""
    p = sampler.distribution(logits, seen)
    if guess is None or proposal is None:
        return sampler.draw(p), False
    if sampler.uniform() * guess[proposal] < p[proposal]:
        return proposal, True
    return sampler.draw((p - guess).clamp(min=0)), False
