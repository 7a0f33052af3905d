"""Making text: crop to the context, forward, choose, append; and again."""

import codecs
from dataclasses import dataclass
from typing import Any, BinaryIO, Iterable, Iterator

import torch

from lib.config import GenerateConfig
from lib.errors import MakegptError, UsageError
from lib.model import LanguageModel
from lib.sampling import choose
from lib.tokenizer import Tokenizer


@dataclass(frozen=True)
class Token:
    """One generated token: its id and the log-probability the model itself gave it, in nats."""

    id: int
    logprob: float


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


def generate(
    model: LanguageModel, ids: list[int], config: GenerateConfig, device: torch.device, end: int | None = None
) -> Iterator[Token]:
    """Continue `ids` by up to `config.max_new_tokens` tokens, each as it is made; stop after the token `end`.

    Only the last `context_length` tokens are looked at; beyond that edge the text slides past the model.
    """
    generator = torch.Generator().manual_seed(config.seed)
    ids = list(ids)
    with torch.inference_mode():
        for _ in range(config.max_new_tokens):
            window = torch.tensor([ids[-model.context_length :]], device=device)  # (1, T)
            logits = model.next_token_logits(window)[0].float().cpu()  # (V,)
            id = choose(logits, temperature=config.temperature, top_k=config.top_k, generator=generator)
            yield Token(id, torch.log_softmax(logits, dim=-1)[id].item())
            ids.append(id)
            if id == end:
                return


class Continuation:
    """A prompt and what the model makes of it, once."""

    def __init__(
        self, model: LanguageModel, made: Tokenizer, prompt: str | None, config: GenerateConfig, device: torch.device
    ) -> None:
        self.tokenizer = made
        self.prompt = prompt or ""
        self.config = config
        self.finish_reason = "length"
        self._tokens = generate(model, prompt_ids(made, prompt), config, device, made.endoftext)

    def tokens(self) -> Iterator[Token]:
        """The new tokens as they are made, less the one that ends the text."""
        for token in self._tokens:
            if token.id == self.tokenizer.endoftext:
                self.finish_reason = "end_of_text"
                return
            yield token

    def text(self, echo: bool = False) -> Iterator[str]:
        """The new text as it is made, the prompt before it with `echo`, a line break behind it."""
        if echo:
            yield self.prompt
        yield from text_of(self.tokenizer, (token.id for token in self.tokens()))
        yield "\n"

    def finished(self) -> dict[str, Any]:
        """All of it, as plain data."""
        tokens = list(self.tokens())
        return {
            "prompt": self.prompt,
            "text": self.tokenizer.decode(token.id for token in tokens),
            "tokens": [token.id for token in tokens],
            "logprobs": [token.logprob for token in tokens],
            "finish_reason": self.finish_reason,
            "seed": self.config.seed,
        }


def text_of(made: Tokenizer, ids: Iterable[int]) -> Iterator[str]:
    """The text of a stream of ids, in pieces that hold whole characters only."""
    if not made.lossless:  # spaces depend on neighbours: no piece is final before the last
        yield made.decode(ids)
        return
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for id in ids:
        if piece := decoder.decode(made.token_bytes(id)):
            yield piece
    if rest := decoder.decode(b"", final=True):
        yield rest
