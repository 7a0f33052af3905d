"""A text in the making: its prompt, its tokens as they are chosen, and what can be shown of it."""

import codecs
import json
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from lib.config.schema import GenerateConfig
from lib.data.text import check_word, read_line, read_whole
from lib.errors import MakegptError, UsageError
from lib.generate.sampling import TokenSampler
from lib.generate.token_scores import TokenScore, score_token
from lib.tokenizer.base import ENDOFTEXT, Tokenizer, UnknownText

_SEEDS = 2**63


@dataclass(frozen=True)
class Prompt:
    """What is to be continued: a text, its tokens, and what else its line of JSON said."""

    text: str
    ids: list[int]
    line: dict[str, Any]


def encode_prompt(
    made: Tokenizer,
    text: str | None,
    line: dict[str, Any] | None = None,
    name: str = "the prompt",
    *,
    from_endoftext: bool = False,
) -> Prompt:
    """The prompt `text`; where it is None or has no tokens, a line break. MakegptError names it where it cannot be encoded.

    `from_endoftext`: `<|endoftext|>` stands before it, and alone where there are no tokens.
    """
    try:
        ids = made.encode(check_word(text, name)) if text else []
    except UnknownText as error:
        raise UnknownText(f"{name}: {error}") from None
    if from_endoftext:
        if made.endoftext is None:
            raise UsageError(f"--from-endoftext: a {made.kind} tokenizer has no {ENDOFTEXT}; leave the option")
        ids = [made.endoftext, *ids]
    return Prompt(text or "", ids or made.default_prompt(), line or {})


class Request:
    """A prompt and what becomes of it: chosen token by token, shown piece by piece.

    `finish_reason` is None while it goes on; then "length", "stop" (one of the `stop` texts came; it is not shown) or
    "end_of_text" (the token of that meaning came; it is neither shown nor counted).
    """

    def __init__(
        self,
        made: Tokenizer,
        prompt: Prompt,
        config: GenerateConfig,
        *,
        stop: Sequence[str] = (),
        scored: bool = True,
        explained: bool = False,
    ) -> None:
        """`scored`: keep the log-probability of each token; `explained`: an analysis of it."""
        self.tokenizer = made
        self.prompt = prompt
        self.config = config
        self.ids = list(prompt.ids)
        self.text = ""
        self.finish_reason: str | None = None
        self.analysed: list[TokenScore] = []
        self.logprobs: list[float] = []
        self._scored = scored
        self._explained = explained
        self._choices = TokenSampler(config)
        self._pieces = StreamDecoder(made, prompt.ids[-1] if prompt.text else None, stop)

    @property
    def tokens(self) -> list[int]:
        """The new tokens."""
        return self.ids[len(self.prompt.ids) :]

    def add(self, logits: Tensor) -> str:
        """Choose the next token by (V,) logits; return what can be shown of the text by now and was not before."""
        id = self._choices.next(logits, self.ids)
        if id == self.tokenizer.endoftext:
            return self._finish("end_of_text", self._pieces.rest())
        self.ids.append(id)
        if self._scored:
            self.logprobs.append(torch.log_softmax(logits, dim=-1)[id].item())
        if self._explained:
            self.analysed.append(score_token(logits, id, self.tokenizer))
        piece = self._pieces.take(id)
        if self._pieces.stopped:
            return self._finish("stop", piece)
        if len(self.ids) - len(self.prompt.ids) == self.config.max_new_tokens:
            return self._finish("length", piece + self._pieces.rest())
        self.text += piece
        return piece

    def _finish(self, reason: str, piece: str) -> str:
        self.finish_reason = reason
        self.text += piece
        return piece

    def finished(self) -> dict[str, Any]:
        """All of it, as plain data."""
        found = self.prompt.line | {
            "prompt": self.prompt.text,
            "text": self.text,
            "tokens": self.tokens,
            "logprobs": self.logprobs,
            "finish_reason": self.finish_reason,
            "seed": self.config.seed,
        }
        return found | ({"explained": [vars(token) for token in self.analysed]} if self._explained else {})


def read_prompt(file: BinaryIO) -> str:
    """The whole of `file` as a prompt, less a byte-order mark and one line break at its end."""
    return read_whole(file, "the prompt on stdin")


def read_prompts(file: BinaryIO, made: Tokenizer, name: str, **settings: Any) -> Iterator[Prompt]:
    """The prompts of a file of JSON lines, each a text, or an object with a text called prompt; empty lines are none.

    MakegptError names the line that is neither, or that cannot be encoded. `settings` are those of `encode`.
    """
    for number, line in enumerate(file, 1):
        place = f"{name}, line {number}"
        content = read_line(line, place, first=number == 1)
        if not content.strip():
            continue
        try:
            found = json.loads(content, parse_constant=_no_constant)
            json.dumps(found, ensure_ascii=False).encode("utf-8")
            found = {"prompt": found} if isinstance(found, str) else found
            text = found["prompt"]
            if not isinstance(text, str):
                raise ValueError("the prompt is no text")
        except (ValueError, KeyError, TypeError, RecursionError) as error:  # a UnicodeError is a ValueError too
            reason = "there is no prompt" if isinstance(error, (KeyError, TypeError)) else error
            raise MakegptError(f'{place}: {reason}; a line is a JSON text, or an object {{"prompt": "…"}}') from None
        yield encode_prompt(made, text, found, place, **settings)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def make_requests(
    made: Tokenizer, prompts: Iterable[Prompt], config: GenerateConfig, count: int, **settings: Any
) -> Iterator[Request]:
    """`count` continuations of each prompt; the seed of the first is the configuration's, each other has the next one."""
    for prompt in prompts:
        for sample in range(count):
            yield Request(made, prompt, replace(config, seed=(config.seed + sample) % _SEEDS), **settings)


class StreamDecoder:
    """The text of a stream of tokens, in pieces of whole characters, up to the first of the `stop` texts.

    `previous`: the token before the first one. What may be the beginning of a stop text is held back until that is known.
    """

    def __init__(self, made: Tokenizer, previous: int | None, stop: Sequence[str] = ()) -> None:
        self._tokenizer = made
        self._previous = previous
        self._stop = stop
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def take(self, id: int) -> str:
        """What can be shown after the token `id`."""
        self._held += self._decoder.decode(self._tokenizer.bytes_after(self._previous, id))
        self._previous = id
        return self._show()

    def rest(self) -> str:
        """What was held back, where no more tokens come."""
        self._held += self._decoder.decode(b"", final=True)
        piece, self._held = self._held, ""
        return piece

    def _show(self) -> str:
        found = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        self.stopped = bool(found)
        end = min(found) if found else len(self._held) - self._possible_stop()
        piece, self._held = self._held[:end], self._held[end:]
        return piece

    def _possible_stop(self) -> int:
        """How many of the held characters, at the end, may be the beginning of a stop text."""
        return max(
            (n for stop in self._stop for n in range(1, len(stop)) if self._held.endswith(stop[:n])),
            default=0,
        )
