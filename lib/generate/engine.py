"""Making text: look at the past, choose the next token, append; and again.

`plain` is the loop that explains. `write` is the one that is used: it continues many texts side by side, each as if it were
alone, and supports_kv_cache what the model has read. Tests hold both to the same tokens.
"""

from dataclasses import dataclass
from itertools import islice
from typing import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from lib.config.schema import GenerateConfig
from lib.generate.request import Request
from lib.generate.sampling import TokenSampler
from lib.model.kv_cache import KVCache
from lib.model.language_model import LanguageModel


def generate_naive(
    model: LanguageModel, ids: Sequence[int], config: GenerateConfig, device: torch.device, end: int | None = None
) -> Iterator[int]:
    """Continue `ids` by up to `config.max_new_tokens` tokens, each as it is made; stop after the token `end`.

    Only the last `context_length` tokens are looked at; beyond that edge the text slides past the model.
    """
    choices = TokenSampler(config)
    ids = list(ids)
    for _ in range(config.max_new_tokens):
        window = torch.tensor([ids[-model.context_length :]], device=device)  # (1, T)
        with torch.inference_mode():
            logits = model.next_token_logits(window)[0].float().cpu()  # (V,)
        id = choices.next(logits, ids)
        yield id
        ids.append(id)
        if id == end:
            return


@dataclass
class _Reading:
    """A text and its KV cache: none if the model has none, or if the text has outgrown its context."""

    text: Request
    cache: KVCache | None


def generate(
    model: LanguageModel,
    texts: Iterable[Request],
    device: torch.device,
    *,
    batch_size: int = 8,
    cached: bool = True,
) -> Iterator[tuple[Request, str]]:
    """Continue all `texts`, up to `batch_size` side by side; yield each text with each piece of it, as it is made.

    A text gets the tokens it would get alone: it has a cache and random numbers of its own. Where a text outgrows the
    context, each of its tokens moves one position down at every step; nothing remembered is true any more, and the
    last `context_length` tokens are read anew for each token.
    """
    waiting = iter(texts)
    reading: list[_Reading] = []
    reader = _Reader(model, device)
    while True:
        for text in islice(waiting, batch_size - len(reading)):
            room = min(model.context_length, len(text.prompt.ids) + text.config.max_new_tokens)
            reading.append(_Reading(text, model.cache(room) if cached else None))
        if not reading:
            return
        for one, logits in zip(reading, reader.next_logits(reading), strict=True):
            yield one.text, one.text.add(logits)
        reading = [one for one in reading if one.text.finish_reason is None]


class _Reader:
    """How the texts come before the model: one new token of each together, all else one by one."""

    def __init__(self, model: LanguageModel, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._latest: tuple[list[int], KVCache, Tensor] | None = None  # the prompt that was read last, with what came of it

    @torch.inference_mode()
    def next_logits(self, reading: Sequence[_Reading]) -> list[Tensor]:
        """The logits, (V,) float32 on the CPU, for the next token of each text."""
        found: dict[int, Tensor] = {}
        together: list[tuple[int, int, KVCache]] = []
        for place, one in enumerate(reading):
            ids = one.text.ids
            if one.cache is not None and len(ids) > self._model.context_length:
                one.cache = None
            if one.cache is None:
                found[place] = self._logits([ids[-self._model.context_length :]])[0]
            elif one.cache.length == 0:
                found[place] = self._read_prompt(one, ids)
            else:
                together.append((place, ids[-1], one.cache))
        if together:
            places, last, caches = zip(*together, strict=True)
            found |= zip(places, self._logits([[id] for id in last], caches), strict=True)
        return [found[place] for place in range(len(reading))]

    def _read_prompt(self, one: _Reading, ids: list[int]) -> Tensor:
        """The logits after a prompt; the same prompt again, for another sample, is not read again."""
        assert one.cache is not None
        if self._latest is not None and self._latest[0] == ids:
            one.cache.take(self._latest[1], len(ids))
            return self._latest[2]
        logits = self._logits([ids], [one.cache])[0]
        self._latest = (list(ids), one.cache, logits)
        return logits

    def _logits(self, ids: list[list[int]], caches: Sequence[KVCache] = ()) -> Tensor:
        return self._model.next_token_logits(torch.tensor(ids, device=self._device), caches).float().cpu()


def in_request_order(written: Iterable[tuple[Request, str]]) -> Iterator[tuple[Request, str]]:
    """The pieces of `written`, text after text, in the order in which they were begun; each piece as soon as that allows."""
    held: dict[Request, list[str]] = {}
    for text, piece in written:
        held.setdefault(text, []).append(piece)
        while held:
            first = next(iter(held))
            pieces, held[first] = held[first], []
            yield from ((first, piece) for piece in pieces)
            if first.finish_reason is None:
                break
            del held[first]
