"""From token ids to more token ids: predict, choose the next token, append; repeat. The engine knows no text.

`generate_naive` is the plain loop, to read. `generate_tokens` is the one in use: it continues many sequences as one
batch, each as if it were alone, and keeps a KV cache for each. Tests check that both give the same tokens.
"""

from dataclasses import dataclass
from itertools import islice
from typing import Collection, Generic, Iterable, Iterator, Sequence, TypeVar

import torch
from torch import Tensor

from lib.config.schema import GenerateConfig
from lib.errors import MakegptError
from lib.generate.sampling import TokenSampler
from lib.model.kv_cache import KVCache
from lib.model.language_model import LanguageModel, check_ids


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
            caches = _with_source(model, window.shape[1], source)
            logits = model.next_token_logits(window, caches)[0].float().cpu()  # (V,)
        id = sampler.next(logits, ids)
        yield id
        ids.append(id)
        if id == end:
            return


def _with_source(model: LanguageModel, length: int, source: Sequence[int]) -> list[KVCache]:
    """For an encoder-decoder without a KV cache: an empty one for each token, with nothing but the source."""
    cache = model.cache(length, source) if source else None
    return [] if cache is None else [cache]


class TokenSequence:
    """A prompt of token ids and its continuation: `ids` holds both. `source`: the ids that an encoder-decoder reads first.

    `finish_reason` is None while it is being continued; then "length", "end_of_text" (one of the tokens `ends` was chosen; it
    is not appended), or what the caller sets to end it earlier.
    """

    def __init__(
        self, prompt_ids: Sequence[int], config: GenerateConfig, ends: Collection[int] = (), source: Sequence[int] = ()
    ) -> None:
        """At least one prompt token; `config` holds the sampling parameters, the seed and the largest number of new tokens."""
        if not prompt_ids:
            raise MakegptError("a prompt needs at least one token")
        self.ids = list(prompt_ids)
        self.source = list(source)
        self.config = config
        self.finish_reason: str | None = None
        self._prompt_length = len(prompt_ids)
        self._ends = ends
        self.sampler = TokenSampler(config)

    @property
    def tokens(self) -> list[int]:
        """The new tokens."""
        return self.ids[self._prompt_length :]

    def choose_next(self, logits: Tensor) -> int:
        """Choose the next token by its logits, (V,), and append it."""
        return self.append(self.sampler.next(logits, self.ids))

    def append(self, id: int) -> int:
        """Append the token `id`, unless it ends the text; return it."""
        if id in self._ends:
            self.finish_reason = "end_of_text"
            return id
        self.ids.append(id)
        if len(self.ids) - self._prompt_length == self.config.max_new_tokens:
            self.finish_reason = "length"
        return id


AnySequence = TypeVar("AnySequence", bound=TokenSequence)


@dataclass
class _Slot(Generic[AnySequence]):
    """A sequence of the batch and its KV cache: None if the model has none, or if the text is longer than the context."""

    sequence: AnySequence
    cache: KVCache | None


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
    slots: list[_Slot[AnySequence]] = []
    predictor = _Predictor(model, device)
    while True:
        for sequence in islice(waiting, batch_size - len(slots)):
            check_ids([*sequence.source, *sequence.ids], model.vocab_size)
            capacity = min(model.context_length, len(sequence.ids) + sequence.config.max_new_tokens)
            slots.append(_Slot(sequence, model.cache(capacity, sequence.source) if cached else None))
        if not slots:
            return
        for slot, logits in zip(slots, predictor.next_logits(slots), strict=True):
            yield slot.sequence, slot.sequence.choose_next(logits), logits
        slots = [slot for slot in slots if slot.sequence.finish_reason is None]


class _Predictor:
    """Runs the model: the new tokens of all sequences as one batch, prompts and uncached windows one by one."""

    def __init__(self, model: LanguageModel, device: torch.device) -> None:
        self._model = model
        self._device = device
        #: Prefix caching for one prompt: the last one with its source, its cache and its logits; it is not recomputed.
        self._last_prompt: tuple[tuple[list[int], list[int]], KVCache, Tensor] | None = None

    @torch.inference_mode()
    def next_logits(self, slots: Sequence[_Slot[AnySequence]]) -> list[Tensor]:
        """The logits, (V,) float32 on the CPU, of each sequence's next token."""
        logits: dict[int, Tensor] = {}
        batch: list[tuple[int, int, KVCache]] = []
        for row, slot in enumerate(slots):
            ids = slot.sequence.ids
            if slot.cache is not None and len(ids) > self._model.context_length:
                slot.cache = None
            if slot.cache is None:
                window = ids[-self._model.context_length :]
                logits[row] = self._logits([window], _with_source(self._model, len(window), slot.sequence.source))[0]
            elif slot.cache.length == 0:
                logits[row] = self._prefill(slot.cache, slot.sequence)
            else:
                batch.append((row, ids[-1], slot.cache))
        if batch:
            rows, last_ids, caches = zip(*batch, strict=True)
            logits |= zip(rows, self._logits([[id] for id in last_ids], caches), strict=True)
        return [logits[row] for row in range(len(slots))]

    def _prefill(self, cache: KVCache, sequence: TokenSequence) -> Tensor:
        """The logits after the prompt of a `sequence`, whose keys and values fill the `cache`."""
        prompt = (sequence.source, list(sequence.ids))
        if self._last_prompt is not None and self._last_prompt[0] == prompt:
            cache.copy_from(self._last_prompt[1], len(sequence.ids))
            return self._last_prompt[2]
        logits = self._logits([sequence.ids], [cache])[0]
        self._last_prompt = (prompt, cache, logits)
        return logits

    def _logits(self, ids: list[list[int]], caches: Sequence[KVCache] = ()) -> Tensor:
        return self._model.next_token_logits(torch.tensor(ids, device=self._device), caches).float().cpu()
