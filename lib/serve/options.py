"""What texts and chats have in common: how many new tokens, how they are sampled, where they stop, and what is answered."""

import secrets
from dataclasses import dataclass

from lib.config.schema import GenerateConfig
from lib.serve.errors import ApiError, invalid
from lib.serve.fields import Fields
from lib.serve.limits import Limits

#: The most alternatives of a token that can be asked for, as OpenAI's chat API has it.
MAX_ALTERNATIVES = 20
MAX_STOPS = 64  # texts
_RANDOM_SEEDS = 2**53  # numbers that JavaScript has exactly


@dataclass(frozen=True)
class Options:
    """How the texts of one request are continued.

    `max_tokens`: new tokens of each text, also 0, unlike those of `config`. `alternatives`: how many most likely tokens are
    answered with each token; None if no log-probabilities are.
    """

    config: GenerateConfig
    max_tokens: int
    n: int
    stop: list[str]
    stream: bool
    include_usage: bool
    alternatives: int | None
    explain: bool

    @property
    def scored(self) -> bool:
        """Whether each token is answered with its score."""
        return self.alternatives is not None or self.explain


def read_options(fields: Fields, limits: Limits, *, max_tokens: int, alternatives: int | None) -> Options:
    """The options in `fields`. Sampling is OpenAI's unless the fields say more: temperature 1, no filter, a random seed."""
    fields.refuse("logit_bias", ({},), "leave it out")
    for name in ("presence_penalty", "frequency_penalty"):
        fields.refuse(name, (0,), "leave it out; repetition_penalty is")
    for name in ("tools", "functions"):
        fields.refuse(name, ([],), "the models here call no functions; leave it out")
    n = fields.integer("n", 1, at_least=1, at_most=limits.texts)
    stream = fields.flag("stream")
    stream_options = fields.inner("stream_options")
    if not stream and fields.value("stream_options") is not None:
        raise invalid("stream_options", 'stream_options needs "stream": true')
    top_k = fields.value("top_k")
    return Options(
        config=GenerateConfig(
            prompt=None,
            max_new_tokens=max(1, max_tokens),
            temperature=fields.sampling("temperature", 1.0),
            top_k=None if top_k == 0 and top_k is not False else fields.sampling("top_k", None),
            top_p=fields.sampling("top_p", None),
            min_p=fields.sampling("min_p", None),
            repetition_penalty=fields.sampling("repetition_penalty", 1.0),
            seed=fields.sampling("seed", secrets.randbelow(_RANDOM_SEEDS)),
        ),
        max_tokens=max_tokens,
        n=n,
        stop=fields.texts("stop", at_most=MAX_STOPS),
        stream=stream,
        include_usage=stream_options.flag("include_usage"),
        alternatives=alternatives,
        explain=fields.flag("explain"),
    )


def check_room(tokens: int, options: Options, context_length: int, param: str) -> None:
    """Refuse a prompt of more `tokens` than the context, which would be cut without a word: 400 with the numbers."""
    if tokens > context_length:
        raise ApiError(
            400,
            f"the prompt has {tokens:,} tokens and max_tokens is {options.max_tokens:,}, but the model's context is "
            f"{context_length:,} tokens; shorten the prompt",
            param=param,
            code="context_length_exceeded",
        )
