"""A text with the surprisal of each token: as pieces that can be shown, and as an HTML page.

Surprisal is −ln p, in nats. A token may be a part of a character; tokens that share one are shown together.
"""

import codecs
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping, Sequence

import torch
from markupsafe import Markup, escape

from lib.artifact.io import canonical_json
from lib.evaluate.evaluation import score_tokens
from lib.evaluate.span import TokenSpan
from lib.report.html import render_template, visible_text
from lib.run.folder import TrainedModel
from lib.run.provenance import run_provenance

#: The lowest probability of each level of surprisal, from 0 on; what is less likely than the last has level 5.
SURPRISAL_LEVELS = (0.5, 0.2, 0.05, 0.01, 0.001)


def surprisal_level(nats: float) -> int:
    """0, expected, to 5, less likely than one in a thousand."""
    return sum(nats > -math.log(probability) for probability in SURPRISAL_LEVELS)


@dataclass(frozen=True)
class Piece:
    """Whole characters (bytes that make none as codes) with the scores of the tokens they are made of.

    The first token of a text has no context and no score.
    """

    text: str
    tokens: tuple[Mapping[str, Any], ...]

    @property
    def nats(self) -> float:
        return -sum(token["logprob"] for token in self.tokens)


def surprisal_pieces(trained: TrainedModel, span: TokenSpan, device: torch.device) -> Iterator[Piece]:
    """The text of a span, piece by piece."""
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    previous = int(span.tokens.read(span.start, span.start + 1)[0])
    text = decoder.decode(trained.tokenizer.bytes_after(None, previous))
    if not decoder.getstate()[0]:
        yield Piece(text, ())
        text = ""
    pending: list[Mapping[str, Any]] = []
    for token in score_tokens(trained, span, device):
        text += decoder.decode(trained.tokenizer.bytes_after(previous, token["id"]))
        pending.append(token)
        previous = token["id"]
        if not decoder.getstate()[0]:  # no character is incomplete
            yield Piece(text, tuple(pending))
            text, pending = "", []
    if text := text + decoder.decode(b"", final=True):
        yield Piece(text, tuple(pending))


def surprisal_page(pieces: Sequence[Piece], name: str, context_length: int, provenance: Mapping[str, Any]) -> str:
    """The page of a text that the model called `name` has read: one file, for light and dark screens and for paper."""
    nats = [-token["logprob"] for piece in pieces for token in piece.tokens]
    mean = sum(nats) / len(nats)
    results = f"{len(nats):,} tokens, {mean:.3f} nats/token, perplexity {math.exp(min(mean, 700)):,.1f}."
    if len(nats) > context_length:
        results += f" The text is read in blocks of {context_length:,} tokens; the first of each has one token of context."
    return render_template(
        "surprisal.html",
        kicker="Surprisal of each token",
        title=name,
        provenance=canonical_json(provenance),
        results=results,
        legend=list(_legend()),
        pieces=({"text": _marked(piece.text), "title": _title(piece), "level": _level(piece)} for piece in pieces),
    )


def _legend() -> Iterable[str]:
    yield f"over {100 * SURPRISAL_LEVELS[0]:.3g} %"
    yield from (f"to {100 * probability:.3g} %" for probability in SURPRISAL_LEVELS[1:])
    yield "less"


def _level(piece: Piece) -> int | None:
    return surprisal_level(piece.nats) if piece.tokens else None


def _title(piece: Piece) -> str:
    """The scores of a piece's tokens in words."""
    if not piece.tokens:
        return "the first token: no context"
    total = [f"{len(piece.tokens)} tokens, together {piece.nats:.2f} nats"] if len(piece.tokens) > 1 else []
    return "\n".join([*total, *map(_token_title, piece.tokens)])


def _token_title(token: Mapping[str, Any]) -> str:
    """One token in words: its nats, its rank, the most likely tokens."""
    others = ", ".join(f"{_quoted(other['text'])} {other['probability']:.1%}" for other in token["alternatives"])
    own = f"{_quoted(token['text'])}: {-token['logprob']:.2f} nats, {token['probability']:.2%}, rank {token['rank']:,}"
    return f"{own}\nmost likely: {others}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


_MARKS = {"\n": Markup("<i>⏎</i>\n"), "\t": Markup("<i>⇥</i>\t")}


def _marked(text: str) -> Markup:
    """Text as HTML in which line breaks, tabs and hidden characters are marked."""
    return Markup("").join(_MARKS.get(c) or _marked_character(c) for c in text)


def _marked_character(c: str) -> Markup:
    visible = visible_text(c)
    return escape(c) if visible == c else Markup("<i>{}</i>").format(visible)


def draw_surprisal(folder: Path, trained: TrainedModel, span: TokenSpan) -> str:
    """The page of a text that the run in `folder` has read."""
    pieces = list(surprisal_pieces(trained, span, torch.device("cpu")))
    text_sha256 = hashlib.sha256("".join(piece.text for piece in pieces).encode()).hexdigest()
    provenance = {"kind": "tokens", "runs": [run_provenance(folder)], "text_sha256": text_sha256}
    return surprisal_page(pieces, folder.resolve().name, trained.config.context_length, provenance)
