"""How much of a text was copied from the training text: the longest run of tokens, and how many n-grams are new.

Each run of n tokens has a 64-bit hash, computed for all places at once from running sums (Karp and Rabin 1987); where two
hashes agree the tokens themselves are compared, so that nothing rests on luck. The training text is read in blocks, whatever
its size: once for each of `NGRAM_LENGTHS`, and once for each step of the search for a longest run, which lies between two of
them; once for all passages of a text.
"""

import heapq
from dataclasses import replace
from typing import NamedTuple, Sequence

import numpy as np
import torch

from lib.config.schema import EvaluateConfig, GenerateConfig
from lib.data.shards import TokenSource
from lib.evaluate.results import Copying, Memorization
from lib.generate.request import Prompt, complete, encode_prompt, make_requests
from lib.run.folder import TrainedModel
from lib.tokenizer.base import Tokenizer

#: The lengths of the n-grams that are counted as new or copied.
NGRAM_LENGTHS = (4, 8, 16)

_PROMPT = 32  # tokens of a training passage that a greedy continuation begins with

_BLOCK = 1 << 20
_MAX_MATCHES = 1 << 22  # of one text with the training text; only a text that repeats itself has more
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2⁶⁴; the golden ratio's bits
_INVERSE = np.uint64(pow(int(_BASE), -1, 1 << 64))


class Copy(NamedTuple):
    """The tokens `start` to `stop` of a text stand in the training text too, from the id `place` of its tokens on."""

    start: int
    stop: int
    place: int


class CopyIndex:
    """The training text that may have been copied from: the ids `start` to `stop` of `tokens`."""

    def __init__(self, tokens: TokenSource, start: int, stop: int) -> None:
        self._tokens = tokens
        self._start = start
        self._stop = stop

    def copied(self, texts: Sequence[np.ndarray], n: int) -> list[np.ndarray]:
        """Of each text whether the n tokens from each of its places on stand in the training text too, (len - n + 1,)."""
        texts = [text.astype(np.uint32) for text in texts]
        known = np.unique(np.concatenate([_hashes(text, n) for text in texts] or [np.empty(0, np.uint64)]))
        copied: set[bytes] = set()
        for at in range(self._start, self._stop - n + 1, _BLOCK):
            ids = self._tokens.read(at, min(at + _BLOCK + n - 1, self._stop)).astype(np.uint32)
            hashes = _hashes(ids, n)
            places = np.flatnonzero(np.isin(hashes, known)).tolist()
            copied.update(ids[place : place + n].tobytes() for place in places)  # all of them: two runs may share a hash
        return [
            np.array([text[at : at + n].tobytes() in copied for at in range(len(text) - n + 1)], dtype=bool) for text in texts
        ]

    def longest_run(self, texts: Sequence[np.ndarray], copied: dict[int, list[np.ndarray]] | None = None) -> np.ndarray:
        """The longest run of tokens in any of the texts that stands in the training text too.

        `copied`: results of `copied` for these texts so far, by n.
        """
        known = copied or {}
        longest = np.empty(0, np.int64)
        low, high = 1, max((len(text) for text in texts), default=0)
        while low <= high:  # what is copied at length n is copied at every shorter length
            n = next((n for n in known if low <= n <= high), (low + high) // 2)
            flags = known.get(n) or self.copied(texts, n)
            places = [(text, at) for text, here in zip(texts, flags, strict=True) for at in np.flatnonzero(here)]
            if places:
                text, at = places[0]
                longest = text[at : at + n]
                low = n + 1
            else:
                high = n - 1
        return longest

    def passages(self, text: np.ndarray, n: int) -> list[Copy]:
        """The runs of at least n tokens of `text` that stand in the training text too, in order.

        None overlaps another: the longest is chosen first, then the longest of what is left before and after it.
        """
        text = text.astype(np.uint32)
        offsets, places = self._matches(text, n)
        order = np.lexsort((offsets, places - offsets))
        offsets, places = offsets[order], places[order]
        is_next = (np.diff(offsets, prepend=-2) == 1) & (np.diff(places, prepend=-2) == 1)  # of the same run
        begins = np.flatnonzero(~is_next)
        lengths = np.diff(begins, append=len(offsets)) + n - 1
        runs = [(-length, start, place) for length, start, place in zip(lengths, offsets[begins], places[begins], strict=True)]
        longest = {start: (length, start, place) for length, start, place in sorted(runs, reverse=True)}  # from each start
        heap, taken = list(longest.values()), np.zeros(len(text), dtype=bool)
        heapq.heapify(heap)
        copies = []
        while heap:
            length, start, place = map(int, heapq.heappop(heap))
            free = start + np.flatnonzero(~taken[start : start - length])  # in one piece: what is taken was longer
            if len(free) == -length:
                copies.append(Copy(start, start - length, place))
                taken[free] = True
            elif len(free) >= n:
                heapq.heappush(heap, (-len(free), free[0], place + free[0] - start))
        return sorted(copies)

    def _matches(self, text: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the n-grams of `text`, uint32, stand: offsets in it and places in the training text, (m,) each."""
        own = _hashes(text, n)
        order = np.argsort(own, kind="stable")
        known = own[order]
        pairs = [np.empty((2, 0), np.int64)]
        room = _MAX_MATCHES if len(own) else 0
        for at in range(self._start, self._stop - n + 1, _BLOCK):
            if not room:
                break
            ids = self._tokens.read(at, min(at + _BLOCK + n - 1, self._stop)).astype(np.uint32)
            hashes = _hashes(ids, n)
            hits = np.flatnonzero(np.isin(hashes, known))
            first = np.searchsorted(known, hashes[hits])
            counts = np.searchsorted(known, hashes[hits], side="right") - first
            fits = np.cumsum(counts) <= room
            hits, first, counts = hits[fits], first[fits], counts[fits]
            place = np.repeat(hits, counts)
            offset = order[np.repeat(first - (np.cumsum(counts) - counts), counts) + np.arange(len(place))]
            same = np.ones(len(place), dtype=bool)  # two n-grams may share a hash
            for k in range(n):
                same &= ids[place + k] == text[offset + k]
            pairs.append(np.stack([offset[same], at + place[same]]))
            room = room - len(place) if fits.all() else 0
        offsets, places = np.concatenate(pairs, axis=1)
        return offsets, places


def _hashes(ids: np.ndarray, n: int) -> np.ndarray:
    """A number for each run of n ids, equal for equal runs: Σ mix(id)·base^i, (len - n + 1,) uint64, modulo 2⁶⁴."""
    count = len(ids) - n + 1
    if count < 1:
        return np.empty(0, np.uint64)
    mixed = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(29)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed * _powers(_BASE, len(ids)), dtype=np.uint64)])
    return (sums[n:] - sums[:-n]) * _powers(_INVERSE, count)


def _powers(base: np.uint64, count: int) -> np.ndarray:
    """base⁰ to base^(count - 1), modulo 2⁶⁴."""
    powers = np.full(count, base)
    powers[0] = 1
    return np.cumprod(powers, dtype=np.uint64)


def measure_copying(index: CopyIndex, tokenizer: Tokenizer, kinds: dict[str, list[np.ndarray]]) -> dict[str, Copying]:
    """What each kind of texts copies from the training text."""
    every = [text for texts in kinds.values() for text in texts]
    copied = {n: index.copied(every, n) for n in NGRAM_LENGTHS}
    results, end = {}, 0
    for kind, texts in kinds.items():
        end += len(texts)
        flags = {n: copies[end - len(texts) : end] for n, copies in copied.items()}
        longest = index.longest_run(texts, flags)
        results[kind] = Copying(
            sum(len(text) for text in texts),
            len(longest),
            {str(n): _novel_fraction(flags[n]) for n in NGRAM_LENGTHS},
            tokenizer.decode(longest.tolist()),
        )
    return results


def _novel_fraction(flags: list[np.ndarray]) -> float | None:
    count = sum(len(copies) for copies in flags)
    return 1 - sum(int(copies.sum()) for copies in flags) / count if count else None


def measure_recall(
    trained: TrainedModel,
    tokens: TokenSource,
    train: tuple[int, int],
    held_out: tuple[int, int],
    config: EvaluateConfig,
    settings: GenerateConfig,
    device: torch.device,
    *,
    reference: str = "validation",
) -> Memorization:
    """What a model copies from the `train` span of `tokens`, in `config.passages` texts of each of three kinds.

    `samples` as `generate` makes them, with its seed and those after it; greedy `continuations` of passages of the training
    text; and, for comparison, passages of the `held_out` span, as long as the samples. `reference`: which split that is, under
    the name of its field, `validation` or `test`.
    """
    tokenizer, count = trained.tokenizer, config.passages
    long = min(settings.max_new_tokens, train[1] - train[0], held_out[1] - held_out[0])
    prompt_length = max(1, min(_PROMPT, trained.config.context_length // 2, long // 2))
    greedy = replace(settings, temperature=0.0, repetition_penalty=1.0)
    whole = min(prompt_length + settings.max_new_tokens, train[1] - train[0])  # what may be recalled is in the split too
    passages = [tokens.read(at, at + prompt_length).tolist() for at in _evenly(train, whole, count)]

    def generated(prompts: list[Prompt], generate_config: GenerateConfig, num_samples: int) -> list[np.ndarray]:
        requests = make_requests(tokenizer, prompts, generate_config, num_samples, logprobs=False)
        return [np.array(request.tokens, dtype=np.uint32) for request in complete(trained.model, requests, device)]

    kinds = {
        "samples": generated([encode_prompt(tokenizer, settings.prompt)], settings, count),
        "continuations": generated([Prompt("", ids, {}) for ids in passages], greedy, 1),
        reference: [tokens.read(at, at + long) for at in _evenly(held_out, long, count)],
    }
    return Memorization(**measure_copying(CopyIndex(tokens, *train), tokenizer, kinds))


def _evenly(span: tuple[int, int], length: int, count: int) -> list[int]:
    """Where `count` passages of `length` ids begin, spread evenly over a stretch."""
    start, stop = span
    return [start + number * (stop - start - length) // max(1, count - 1) for number in range(count)]
