"""Tokens as clients read them: their bytes, their log-probabilities, and the alternatives, in each of the formats.

Log-probabilities are natural logarithms, not rounded, by the model's probabilities before temperature and filters.
"""

import codecs
import math
from dataclasses import dataclass
from typing import Any, Sequence

from lib.generate.token_scores import TokenScore
from lib.serve.errors import ApiError
from lib.tokenizer.base import Tokenizer

#: What JSON writes instead of minus infinity, as OpenAI's API does.
_LOWEST = -9999.0


@dataclass(frozen=True)
class Alternative:
    """A token that might have stood in a place."""

    id: int
    content: bytes
    logprob: float
    probability: float


@dataclass(frozen=True)
class SpelledToken:
    """A token in its place in a text: the bytes that it adds, and how many whole characters are before it.

    `logprob`, `rank` and `alternatives` are empty where nothing scored it, as for the first token of a text.
    """

    id: int
    content: bytes
    offset: int
    logprob: float | None = None
    rank: int | None = None
    alternatives: tuple[Alternative, ...] = ()
    is_end: bool = False


class Speller:
    """Spells the tokens of one text in order.

    `previous`: the token before the first one; `half`: its half character; `offset`: the characters before the first one.
    """

    def __init__(self, tokenizer: Tokenizer, previous: int | None = None, half: bytes = b"", offset: int = 0) -> None:
        self._tokenizer = tokenizer
        self._previous = previous
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._characters = offset + len(self._decoder.decode(half))

    def spell(self, id: int, score: TokenScore | None, *, is_end: bool = False) -> SpelledToken:
        """The next token. `is_end`: it ended the text, and is no part of it."""

        def content(id: int) -> bytes:
            return self._tokenizer.bytes_after(self._previous, id)

        scores: dict[str, Any] = {}
        if score is not None:
            others = (
                Alternative(other["id"], content(other["id"]), _finite(other["logprob"]), other["probability"])
                for other in score.alternatives
            )
            scores = {"logprob": _finite(score.logprob), "rank": score.rank, "alternatives": tuple(others)}
        token = SpelledToken(id, content(id), self._characters, is_end=is_end, **scores)
        if not is_end:
            self._characters += len(self._decoder.decode(token.content))
            self._previous = id
        return token


def spelling(content: bytes) -> str:
    r"""Bytes as a string that no other bytes have: the text if they are whole characters, or `bytes:\xe2\x82`."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


def completion_logprobs(tokens: Sequence[SpelledToken], count: int) -> dict[str, list[Any]]:
    """The `logprobs` of /v1/completions: four lists, one item per token, with `count` alternatives and the token itself."""
    return {
        "tokens": [spelling(token.content) for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [_by_spelling(token, count) for token in tokens],
        "text_offset": [token.offset for token in tokens],
    }


def _by_spelling(token: SpelledToken, count: int) -> dict[str, float] | None:
    """Spelling -> log-probability, best first; of two tokens with one spelling the second is called `token_id:7`."""
    if token.logprob is None:
        return None
    scores = {other.id: (other.content, other.logprob) for other in token.alternatives[:count]}
    scores.setdefault(token.id, (token.content, token.logprob))
    named: dict[str, float] = {}
    for id, (content, logprob) in scores.items():
        name = spelling(content)
        named[f"token_id:{id}" if name in named else name] = logprob
    return named


def chat_logprobs(tokens: Sequence[SpelledToken], count: int) -> dict[str, Any]:
    """The `logprobs` of /v1/chat/completions: an object per token with `count` alternatives."""
    content = [
        _with_bytes(token.content, token.logprob)
        | {"top_logprobs": [_with_bytes(other.content, other.logprob) for other in token.alternatives[:count]]}
        for token in tokens
        if not token.is_end
    ]
    return {"content": content, "refusal": None}


def _with_bytes(content: bytes, logprob: float | None) -> dict[str, Any]:
    return {"token": spelling(content), "logprob": logprob, "bytes": list(content)}


def explanation(token: SpelledToken) -> dict[str, Any]:
    """The extension `makegpt`: what the page shows of a token. Surprisal is in nats."""
    return {
        "id": token.id,
        "bytes": list(token.content),
        "surprisal": None if token.logprob is None else 0.0 - token.logprob,
        "rank": token.rank,
        "alternatives": [
            {"id": other.id, "text": spelling(other.content), "bytes": list(other.content), "probability": other.probability}
            for other in token.alternatives
        ],
        "end_of_text": token.is_end,
    }


def _finite(logprob: float) -> float:
    if math.isnan(logprob):
        raise ApiError(500, "the model's logits are not finite numbers; its weights are damaged")
    return max(logprob, _LOWEST)
