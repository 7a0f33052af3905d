"""From token ids to more token ids: predict, choose the next token, append; repeat. The engine knows no text.

`generate_naive` is the plain loop, to read. `generate_tokens` is the one in use: it continues many sequences as one
batch (`batch.py`), each as if it were alone, with a KV cache for each. Tests check that both give the same tokens.
"""

from itertools import islice
from typing import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from lib.config.schema import GenerateConfig
from lib.generate.batch import AnySequence, TokenBatch, source_caches
from lib.generate.sampling import TokenSampler
from lib.model.language_model import LanguageModel


def generate_naive(
    model: LanguageModel,
    ids: Sequence[int],
    config: GenerateConfig,
    device: torch.device,
    end: int | None = None,
    source: Sequence[int] = (),
) -> Iterator[int]:
    """Continue `ids` by up to `config.max_new_tokens` tokens, yielding each; stop after the token `end`.

    The model sees the last `context_length` tokens; in a longer text the window slides. `source`: the ids that an
    encoder-decoder reads first.
    """
    sampler = TokenSampler(config)
    ids = list(ids)
    for _ in range(config.max_new_tokens):
        window = torch.tensor([ids[-model.context_length :]], device=device)  # (1, T)
        with torch.inference_mode():
            caches = source_caches(model, window.shape[1], source)
            logits = model.next_token_logits(window, caches)[0].float().cpu()  # (V,)
        id = sampler.next(logits, ids)
        yield id
        ids.append(id)
        if id == end:
            return


def generate_tokens(
    model: LanguageModel,
    sequences: Iterable[AnySequence],
    device: torch.device,
    *,
    batch_size: int = 8,
    cached: bool = True,
) -> Iterator[tuple[AnySequence, int, Tensor]]:
    """Continue all `sequences`, up to `batch_size` at a time; yield (sequence, new token, its logits (V,)) for each token.

    A sequence gets the tokens it would get alone: it has its own cache and random generator. Beyond the context, every
    token moves one position down at each step, which makes the cache invalid; from then on the last `context_length`
    tokens are recomputed for each token.
    """
    waiting = iter(sequences)
    batch: TokenBatch[AnySequence] = TokenBatch(model, device, cached=cached)
    while True:
        for sequence in islice(waiting, batch_size - len(batch)):
            batch.add(sequence)
        if not batch:
            return
        for sequence, logits in batch.step():
            yield sequence, sequence.choose_next(logits), logits
