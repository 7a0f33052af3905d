"""Continuous batching: token sequences that are continued together, and that join and leave between any two steps.

A step computes one new token of every sequence and reads each weight once for all of them. A prompt that joins is read in
pieces, a limited number of tokens per step, so the others wait for one piece of a long prompt and not for all of it.

Each sequence gets the numbers that it would get alone. The rows of a step do not depend on each other (`linear.py`), a
prompt is computed alone, and its pieces begin at the same tokens whatever else the step does.
"""

from dataclasses import dataclass
from typing import Collection, Generic, Sequence, TypeVar

import torch
from torch import Tensor

from lib.config.schema import GenerateConfig
from lib.errors import MakegptError
from lib.generate.sampling import TokenSampler
from lib.model.kv_cache import KVCache
from lib.model.language_model import LanguageModel, check_ids

#: Tokens of a piece of a prompt, and those of all prompts that one step reads. Longer pieces of SmolLM2's prompts are not read
#: faster (64, 128, …, 1,024 were tried), and hold the others for longer; up to 64, float32 is slower (`linear.py`).
PIECE = 128


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

    @property
    def uncached(self) -> int:
        """The tokens that a KV cache is to have and does not have yet: at first the prompt, then the newest token."""
        return 0 if self.cache is None else len(self.sequence.ids) - self.cache.length


class TokenBatch(Generic[AnySequence]):
    """Sequences that are continued together. One leaves when its `finish_reason` is set, by itself or by the caller."""

    def __init__(self, model: LanguageModel, device: torch.device, *, cached: bool = True) -> None:
        """`cached`: use a KV cache, if the model supports one."""
        self._model = model
        self._device = device
        self._cached = cached
        self._slots: list[_Slot[AnySequence]] = []
        #: Prefix caching for one prompt: the last one with its source, its cache and its logits; it is not recomputed.
        self._last_prompt: tuple[tuple[list[int], list[int]], KVCache, Tensor] | None = None

    def __len__(self) -> int:
        """The sequences that are being continued."""
        return sum(slot.sequence.finish_reason is None for slot in self._slots)

    @torch.inference_mode()
    def add(self, sequence: AnySequence) -> None:
        """Let `sequence` join. MakegptError for ids that the model does not know."""
        check_ids([*sequence.source, *sequence.ids], self._model.vocab_size)
        capacity = min(self._model.context_length, len(sequence.ids) + sequence.config.max_new_tokens)
        self._slots.append(_Slot(sequence, self._model.cache(capacity, sequence.source) if self._cached else None))

    def drop_finished(self) -> None:
        """Free the caches of sequences that have left; `step` does so too, before it computes."""
        self._slots = [slot for slot in self._slots if slot.sequence.finish_reason is None]
        if not self._slots:
            self._last_prompt = None

    @torch.inference_mode()
    def step(self) -> list[tuple[AnySequence, Tensor]]:
        """The logits, (V,) float32 on the CPU, of the next token of each sequence, in the order in which they joined.

        The caller lets each choose: `sequence.choose_next(logits)`. A sequence is missing while its prompt is being read.
        """
        self.drop_finished()
        for slot in self._slots:
            if len(slot.sequence.ids) > self._model.context_length:
                slot.cache = None  # each token moves one position down at every step
        logits = self._read_prompts()
        last_ids: dict[int, list[int]] = {}
        caches: list[KVCache] = []
        for row, slot in enumerate(self._slots):
            if slot.cache is None:
                window = slot.sequence.ids[-self._model.context_length :]
                logits[row] = self._logits([window], source_caches(self._model, len(window), slot.sequence.source))[0]
            elif slot.uncached == 1:
                last_ids[row] = slot.sequence.ids[-1:]
                caches.append(slot.cache)
        if last_ids:
            logits |= zip(last_ids, self._logits(list(last_ids.values()), caches), strict=True)
        return [(self._slots[row].sequence, logits[row]) for row in sorted(logits)]

    def _read_prompts(self) -> dict[int, Tensor]:
        """Read `PIECE` tokens of the prompts, the earliest first; the logits after those that are complete, by their rows."""
        logits: dict[int, Tensor] = {}
        budget = PIECE
        for row, slot in enumerate(self._slots):
            ids = slot.sequence.ids
            while slot.cache is not None and slot.uncached > 1:
                prompt = (slot.sequence.source, list(ids))
                if self._last_prompt is not None and self._last_prompt[0] == prompt:
                    slot.cache.copy_from(self._last_prompt[1], len(ids))
                    logits[row] = self._last_prompt[2]
                    break
                piece = ids[slot.cache.length :][:PIECE]
                if len(piece) > budget:
                    return logits
                budget -= len(piece)
                after = self._logits([piece], [slot.cache])[0]
                if slot.uncached == 0:
                    self._last_prompt = (prompt, slot.cache, after)
                    logits[row] = after
        return logits

    def _logits(self, ids: list[list[int]], caches: Sequence[KVCache] = ()) -> Tensor:
        return self._model.next_token_logits(torch.tensor(ids, device=self._device), caches).float().cpu()


def source_caches(model: LanguageModel, length: int, source: Sequence[int]) -> list[KVCache]:
    """For an encoder-decoder without a KV cache: an empty one for each token, with nothing but the source."""
    cache = model.cache(length, source) if source else None
    return [] if cache is None else [cache]
