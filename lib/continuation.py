"""A text in the making: its prompt, its tokens as they are chosen, and what can be shown of it."""

import codecs
import json
from dataclasses import replace
from typing import Any, BinaryIO, Iterator, Sequence

import torch
from torch import Tensor

from lib.analysis import Analysed, analyse
from lib.config import GenerateConfig
from lib.errors import MakegptError, UsageError
from lib.sampling import Choices
from lib.tokenizer import Tokenizer

_SEEDS = 2**63


class Continuation:
    """A prompt and what becomes of it: chosen token by token, shown piece by piece.

    `finish_reason` is None while it goes on; then "length", "stop" (one of the `stop` texts came; it is not shown) or
    "end_of_text" (the token of that meaning came; it is neither shown nor counted).
    """

    def __init__(
        self,
        made: Tokenizer,
        prompt: str | None,
        config: GenerateConfig,
        *,
        stop: Sequence[str] = (),
        scored: bool = True,
        explained: bool = False,
        extra: dict[str, Any] | None = None,
    ) -> None:
        """`scored`: keep the log-probability of each token; `explained`: an analysis; `extra`: facts for `finished`."""
        self.tokenizer = made
        self.prompt = prompt or ""
        self.config = config
        self.prompt_ids = prompt_ids(made, prompt)
        self.ids = list(self.prompt_ids)
        self.text = ""
        self.finish_reason: str | None = None
        self.analysed: list[Analysed] = []
        self.logprobs: list[float] = []
        self._scored = scored
        self._explained = explained
        self._extra = extra or {}
        self._choices = Choices(config)
        self._pieces = Pieces(made, self.prompt_ids[-1] if self.prompt else None, stop)

    @property
    def tokens(self) -> list[int]:
        """The new tokens."""
        return self.ids[len(self.prompt_ids) :]

    def add(self, logits: Tensor) -> str:
        """Choose the next token by (V,) logits; return what can be shown of the text by now and was not before."""
        id = self._choices.next(logits, self.ids)
        if id == self.tokenizer.endoftext:
            return self._finish("end_of_text", self._pieces.rest())
        self.ids.append(id)
        if self._scored:
            self.logprobs.append(torch.log_softmax(logits, dim=-1)[id].item())
        if self._explained:
            self.analysed.append(analyse(logits, id, self.tokenizer))
        piece = self._pieces.take(id)
        if self._pieces.stopped:
            return self._finish("stop", piece)
        if len(self.ids) - len(self.prompt_ids) == self.config.max_new_tokens:
            return self._finish("length", piece + self._pieces.rest())
        self.text += piece
        return piece

    def _finish(self, reason: str, piece: str) -> str:
        self.finish_reason = reason
        self.text += piece
        return piece

    def finished(self) -> dict[str, Any]:
        """All of it, as plain data."""
        found = self._extra | {
            "prompt": self.prompt,
            "text": self.text,
            "tokens": self.tokens,
            "logprobs": self.logprobs,
            "finish_reason": self.finish_reason,
            "seed": self.config.seed,
        }
        return found | ({"explained": [vars(token) for token in self.analysed]} if self._explained else {})


def samples(
    made: Tokenizer, asked: Sequence[dict[str, Any]], config: GenerateConfig, count: int, **settings: Any
) -> Iterator[Continuation]:
    """`count` continuations of each prompt of `asked`, what else stands there handed on.

    The seed of the first is the configuration's, each other has the next one. MakegptError names the prompt that is wrong.
    """
    for number, extra in enumerate(asked, 1):
        for sample in range(count):
            seeded = replace(config, seed=(config.seed + sample) % _SEEDS)
            try:
                yield Continuation(made, extra["prompt"], seeded, extra=extra, **settings)
            except MakegptError as error:
                raise type(error)(f"prompt {number}: {error}" if len(asked) > 1 else str(error)) from None


def prompt_ids(made: Tokenizer, prompt: str | None) -> list[int]:
    """The ids of `prompt`, or where it is None or gives none, of a line break; UsageError for broken characters."""
    if prompt is None:
        return made.opening()
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"the prompt's character {error.start} is not valid UTF-8; check the terminal's encoding") from None
    return made.encode(prompt) or made.opening()


def read_prompt(file: BinaryIO) -> str:
    """The whole of `file` as a prompt, less one line break at its end, as the shell's `$(...)` would have it."""
    try:
        return file.read().decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise MakegptError(f"the prompt on stdin: byte {error.start} is not valid UTF-8") from None


def read_prompts(file: BinaryIO, name: str) -> Iterator[dict[str, Any]]:
    """The prompts of a file of JSON lines, each a text, or an object with a text called prompt; empty lines are none.

    Yields objects. MakegptError names the line that is neither.
    """
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line.decode("utf-8"))
        except ValueError as error:  # not UTF-8, or not JSON
            raise MakegptError(
                f'{name}, line {number}: {error}; a line is a JSON text, or an object {{"prompt": "…"}}'
            ) from None
        found = {"prompt": found} if isinstance(found, str) else found
        if not isinstance(found, dict) or not isinstance(found.get("prompt"), str):
            raise MakegptError(
                f'{name}, line {number}: there is no prompt; a line is a JSON text, or an object {{"prompt": "…"}}'
            )
        yield found


class Pieces:
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
