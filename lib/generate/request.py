"""Text in, text out: a prompt is encoded, continued by the engine, and decoded piece by piece as it grows."""

import codecs
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from lib.artifact.strict_json import loads_copied_json
from lib.config.schema import GenerateConfig
from lib.data.text import check_word, read_line, read_whole
from lib.errors import MakegptError, UsageError
from lib.generate.batch import TokenSequence
from lib.generate.engine import generate_tokens
from lib.generate.token_scores import TokenScore, score_token
from lib.model.language_model import LanguageModel
from lib.tokenizer.base import ENDOFTEXT, Tokenizer, UnknownText

_SEEDS = 2**63


@dataclass(frozen=True)
class Prompt:
    """A text to continue, its tokens, the other keys of its JSON line, and the token that ends an answer to it, if any.

    For an encoder-decoder the text is the `source`, and `ids` are what its target begins with.
    """

    text: str
    ids: list[int]
    line: dict[str, Any]
    end: int | None = None
    source: tuple[int, ...] = ()
    half: bytes = b""  # of a character that ids end inside of; it is not in the text

    @property
    def previous(self) -> int | None:
        """The token that the continuation's text follows; None if it begins a text."""
        return self.ids[-1] if (self.text or self.half) and not self.source else None


def encode_prompt(
    tokenizer: Tokenizer,
    text: str | None,
    line: dict[str, Any] | None = None,
    name: str = "the prompt",
    *,
    from_endoftext: bool = False,
    is_source: bool = False,
) -> Prompt:
    """The prompt `text`, or the tokenizer's default prompt (a line break) for None and for a text without tokens.

    `from_endoftext`: begin with `<|endoftext|>`, and with nothing else if there are no tokens. `is_source`: the text is what an
    encoder-decoder reads; it writes a target, which begins after `<|endoftext|>`. `name` is used in errors.
    """
    try:
        ids = tokenizer.encode(check_word(text, name)) if text else []
    except UnknownText as error:
        raise UnknownText(f"{name}: {error}") from None
    if is_source:
        if from_endoftext:
            raise UsageError("--from-endoftext is for texts, and an encoder-decoder reads a source; leave the option")
        if not ids:
            raise UsageError(f"{name} is empty, and an encoder-decoder writes what belongs to a source; give a text")
        assert tokenizer.endoftext is not None
        return Prompt(text or "", [tokenizer.endoftext], line or {}, source=tuple(ids))
    if from_endoftext:
        if tokenizer.endoftext is None:
            raise UsageError(f"--from-endoftext: a {tokenizer.kind} tokenizer has no {ENDOFTEXT}; leave the option")
        ids = [tokenizer.endoftext, *ids]
    return Prompt(text or "", ids or tokenizer.default_prompt(), line or {})


def prompt_of_ids(tokenizer: Tokenizer, ids: Sequence[int]) -> Prompt:
    """The prompt of token `ids`, at least one; they may end inside a character, which the continuation completes.

    MakegptError if an id is not in the vocabulary.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(tokenizer.decode_bytes(ids))
    return Prompt(text, list(ids), {}, half=decoder.getstate()[0])


class Request(TokenSequence):
    """A prompt and its continuation, as tokens and as text.

    Besides "length", `finish_reason` may be "stop" (one of the `stop` texts was generated; it is not part of `text`) or
    "end_of_text" (the tokenizer's end-of-text token or the prompt's end was chosen; it is neither in `text` nor in `tokens`).
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Prompt,
        config: GenerateConfig,
        *,
        stop: Sequence[str] = (),
        logprobs: bool = True,
        explain: bool = False,
        alternatives: int = 5,
    ) -> None:
        """`logprobs`: keep the log-probability of each token, in nats; `explain`: keep a TokenScore of each, with so many
        `alternatives`.
        """
        ends = [id for id in (tokenizer.endoftext, prompt.end) if id is not None]
        super().__init__(prompt.ids, config, ends, prompt.source)
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.text = ""
        self.logprobs: list[float] = []
        self.token_scores: list[TokenScore] = []
        #: With `explain`: of the newest token, also if it ended the text.
        self.last_score: TokenScore | None = None
        self._keep_logprobs = logprobs
        self._explain = explain
        self._alternatives = alternatives
        self._decoder = StreamDecoder(tokenizer, prompt.previous, stop, prompt.half)

    def add(self, id: int, logits: Tensor) -> str:
        """Add the new token `id`, chosen by `logits`, (V,); return the text that it completes."""
        if self._explain:
            self.last_score = score_token(logits, id, self.tokenizer, self._alternatives)
        if self.finish_reason == "end_of_text":
            piece = self._decoder.flush()
        else:
            if self._keep_logprobs:
                self.logprobs.append(torch.log_softmax(logits, dim=-1)[id].item())
            if self.last_score is not None:
                self.token_scores.append(self.last_score)
            piece = self._decoder.decode(id)
            if self._decoder.stopped:
                self.finish_reason = "stop"
            elif self.finish_reason == "length":
                piece += self._decoder.flush()
        self.text += piece
        return piece

    def end(self, reason: str) -> str:
        """End the text with `reason`, before it ends by itself; return the text that was held back."""
        self.finish_reason = reason
        piece = self._decoder.flush()
        self.text += piece
        return piece

    def to_json(self) -> dict[str, Any]:
        """The request as plain data, with the other keys of the prompt's line."""
        line = self.prompt.line | {
            "prompt": self.prompt.text,
            "text": self.text,
            "tokens": self.tokens,
            "logprobs": self.logprobs,
            "finish_reason": self.finish_reason,
            "seed": self.config.seed,
        }
        return line | ({"explained": [vars(score) for score in self.token_scores]} if self._explain else {})


def make_requests(
    tokenizer: Tokenizer, prompts: Iterable[Prompt], config: GenerateConfig, num_samples: int = 1, **settings: Any
) -> Iterator[Request]:
    """`num_samples` requests per prompt: the first with the seed of `config`, each further one with the next seed.

    `settings` are those of `Request`.
    """
    for prompt in prompts:
        for sample in range(num_samples):
            yield Request(tokenizer, prompt, replace(config, seed=(config.seed + sample) % _SEEDS), **settings)


def stream_text(
    model: LanguageModel, requests: Iterable[Request], device: torch.device, *, batch_size: int = 8, cached: bool = True
) -> Iterator[tuple[Request, str]]:
    """Continue all requests, up to `batch_size` at a time; yield (request, new piece of its text, maybe "") for each token."""
    for request, id, logits in generate_tokens(model, requests, device, batch_size=batch_size, cached=cached):
        yield request, request.add(id, logits)


def complete(model: LanguageModel, requests: Iterable[Request], device: torch.device, **settings: Any) -> list[Request]:
    """The `requests`, continued to their end. `settings` are those of `stream_text`."""
    requests = list(requests)
    for _ in stream_text(model, requests, device, **settings):
        pass
    return requests


def in_request_order(pieces: Iterable[tuple[Request, str]]) -> Iterator[tuple[Request, str]]:
    """The `pieces` of `stream_text` request by request, in the order of the requests, as soon as that allows.

    Pieces that had to wait become one, so that the first one of a finished request is the last.
    """
    buffers: dict[Request, list[str]] = {}
    for request, piece in pieces:
        buffers.setdefault(request, []).append(piece)
        while buffers:
            first = next(iter(buffers))
            ready, buffers[first] = buffers[first], []
            if ready:
                yield first, "".join(ready)
            if first.finish_reason is None:
                break
            del buffers[first]


class StreamDecoder:
    """The text of a stream of tokens, in pieces of whole characters, up to the first of the `stop` texts.

    `previous`: the token before the first one; `half`: its bytes of a character that the first one continues. Text that may
    begin a stop text is buffered until that is known.
    """

    def __init__(self, tokenizer: Tokenizer, previous: int | None, stop: Sequence[str] = (), half: bytes = b"") -> None:
        self._tokenizer = tokenizer
        self._previous = previous
        self._stop = stop
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = self._decoder.decode(half)
        self.stopped = False

    def decode(self, id: int) -> str:
        """The text that the token `id` completes."""
        self._held += self._decoder.decode(self._tokenizer.bytes_after(self._previous, id))
        self._previous = id
        return self._release()

    def flush(self) -> str:
        """The buffered text, after the last token."""
        self._held += self._decoder.decode(b"", final=True)
        piece, self._held = self._held, ""
        return piece

    def _release(self) -> str:
        stops = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        self.stopped = bool(stops)
        end = min(stops) if stops else len(self._held) - self._possible_stop()
        piece, self._held = self._held[:end], self._held[end:]
        return piece

    def _possible_stop(self) -> int:
        """How many of the last buffered characters may be the beginning of a stop text."""
        longest = min(len(self._held), max(map(len, self._stop), default=0))
        return next((n for n in range(longest, 0, -1) if self._may_stop(self._held[-n:])), 0)

    def _may_stop(self, end: str) -> bool:
        return any(stop.startswith(end) for stop in self._stop)


def read_prompt(file: BinaryIO) -> str:
    """The whole of `file` as a prompt, without a byte-order mark and one line break at its end."""
    return read_whole(file, "the prompt on stdin")


def read_prompts(file: BinaryIO, tokenizer: Tokenizer, name: str, **settings: Any) -> Iterator[Prompt]:
    """The prompts of a JSON Lines file: each line a string, or an object with a string called prompt; empty lines are skipped.

    A MakegptError names the line that is neither, or cannot be encoded. `settings` are those of `encode_prompt`.
    """
    for number, line in enumerate(file, 1):
        place = f"{name}, line {number}"
        content = read_line(line, place, first=number == 1)
        if not content.strip():
            continue
        try:
            value = loads_copied_json(content)
            fields = {"prompt": value} if isinstance(value, str) else value
            text = fields["prompt"]
            if not isinstance(text, str):
                raise ValueError("the prompt is not a string")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            reason = "the prompt is missing" if isinstance(error, (KeyError, TypeError)) else error
            raise MakegptError(f'{place}: {reason}; a line must be a JSON string, or an object {{"prompt": "…"}}') from None
        yield encode_prompt(tokenizer, text, fields, place, **settings)
