"""A text with how surprised a model was by each token of it: as pieces that can be shown, and as a page of HTML.

Surprise is what a token costs, -ln p in nats. A token may be a part of a character; those that share one are shown together.
"""

import codecs
import hashlib
import html
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping, Sequence

import torch

from lib.artifact.io import canonical_json
from lib.evaluate.evaluation import score_tokens
from lib.evaluate.span import TokenSpan
from lib.run.folder import TrainedModel
from lib.run.provenance import run_provenance

#: The least probability of each level of surprise, from 0 on; what is less likely than the last is of level 5.
SURPRISAL_LEVELS = (0.5, 0.2, 0.05, 0.01, 0.001)


def surprisal_level(nats: float) -> int:
    """0, expected, to 5, less likely than one in a thousand."""
    return sum(nats > -math.log(probability) for probability in SURPRISAL_LEVELS)


@dataclass(frozen=True)
class Piece:
    """Whole characters, bytes that make none by their codes, and what the model thought of each token they are made of.

    The first token of a text has nothing to go by, so nothing is thought of it.
    """

    text: str
    tokens: tuple[Mapping[str, Any], ...]

    @property
    def nats(self) -> float:
        return -sum(token["logprob"] for token in self.tokens)


def surprisal_pieces(trained: TrainedModel, stretch: TokenSpan, device: torch.device) -> Iterator[Piece]:
    """The text of a stretch, piece by piece."""
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    previous = int(stretch.tokens.read(stretch.start, stretch.start + 1)[0])
    text = decoder.decode(trained.tokenizer.bytes_after(None, previous))
    if not decoder.getstate()[0]:
        yield Piece(text, ())
        text = ""
    waiting: list[Mapping[str, Any]] = []
    for token in score_tokens(trained, stretch, device):
        text += decoder.decode(trained.tokenizer.bytes_after(previous, token["id"]))
        waiting.append(token)
        previous = token["id"]
        if not decoder.getstate()[0]:  # no character is left unfinished
            yield Piece(text, tuple(waiting))
            text, waiting = "", []
    if text := text + decoder.decode(b"", final=True):
        yield Piece(text, tuple(waiting))


def printable_html(text: str) -> str:
    """`text` with every character that is no sign (controls, marks that turn the direction of writing) by its code.

    Line breaks and tabs stay.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def surprisal_page(found: Sequence[Piece], name: str, context_length: int, provenance: Mapping[str, Any]) -> str:
    """The page of a text that the model called `name` has read: all in one file, for light and dark screens and for paper."""
    nats = [-token["logprob"] for piece in found for token in piece.tokens]
    mean = sum(nats) / len(nats)
    facts = f"{len(nats):,} tokens, {mean:.3f} nats each on average: a perplexity of {math.exp(min(mean, 700)):,.1f}."
    if len(nats) > context_length:
        facts += f" The text is read in blocks of {context_length:,} tokens, the first of each with one token to go by."
    title = html.escape(printable_html(f"How surprised {name} was"))
    return _PAGE.format(
        title=title,
        provenance=html.escape(printable_html(canonical_json(provenance))),
        style=_STYLE,
        facts=html.escape(facts),
        legend="\n".join(f'<span class="s{number}">{told}</span>' for number, told in enumerate(_legend())),
        text="".join(map(_span, found)),
    )


def _legend() -> Iterable[str]:
    yield f"over {100 * SURPRISAL_LEVELS[0]:.3g} %"
    yield from (f"to {100 * probability:.3g} %" for probability in SURPRISAL_LEVELS[1:])
    yield "less"


def _span(piece: Piece) -> str:
    if not piece.tokens:
        return f'<span title="the first token: nothing to go by">{_shown(piece.text)}</span>'
    told = "\n".join(map(_told, piece.tokens))
    if len(piece.tokens) > 1:
        told = f"{len(piece.tokens)} tokens, together {piece.nats:.2f} nats\n{told}"
    title = html.escape(printable_html(told)).replace("\n", "&#10;")
    return f'<span class="s{surprisal_level(piece.nats)}" title="{title}">{_shown(piece.text)}</span>'


def _told(token: Mapping[str, Any]) -> str:
    """One token in words: its nats, its rank, what the model found likeliest."""
    others = ", ".join(f"{_quoted(other['text'])} {other['probability']:.1%}" for other in token["alternatives"])
    own = f"{_quoted(token['text'])}: {-token['logprob']:.2f} nats, {token['probability']:.2%}, rank {token['rank']:,}"
    return f"{own}\nlikeliest: {others}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _shown(text: str) -> str:
    """Text as HTML: its line breaks and tabs marked, what is no sign by its code."""
    marks = {"\n": "<i>⏎</i>\n", "\t": "<i>⇥</i>\t"}
    return "".join(
        marks.get(c) or (html.escape(c) if c.isprintable() else f"<i>{html.escape(printable_html(c))}</i>") for c in text
    )


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="provenance" content="{provenance}">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<h1>{title}</h1>
<p>{facts} The darker a token on light paper, or the brighter on a dark screen, the less likely the model found it;
a pointer that rests on one shows what it thought.</p>
<p class="legend">Probability:
{legend}
</p>
<pre>{text}</pre>
</body>
</html>
"""

#: Yellow to brown, its lightness falling from level to level (rising on dark screens): the order holds in gray, and for the
#: color-blind. On paper, where the background may be left out, the text stays black and the higher levels are underlined.
_STYLE = """:root { color-scheme: light dark; --page: #ffffff; --ink: #1a1a1a; --dim: #6b6b6b;
  --s1: #fff3c4; --s2: #fed98e; --s3: #fe9929; --s4: #cc4c02; --s5: #662506; --on3: #1a1a1a; --on4: #ffffff; --on5: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --page: #14161a; --ink: #e8e8e8; --dim: #9a9a9a;
  --s1: #37230f; --s2: #65380d; --s3: #9c520a; --s4: #e69a35; --s5: #ffe3a6; --on3: #ffffff; --on4: #14161a; --on5: #14161a; } }
@media print { :root { --page: #ffffff; --ink: #000000; --dim: #6b6b6b;
  --s1: #fffbe6; --s2: #ffeeb8; --s3: #fed98e; --s4: #fdb04f; --s5: #ec7c14; --on3: #000000; --on4: #000000; --on5: #000000; }
  .s3 { text-decoration: underline dotted; } .s4 { text-decoration: underline 1px; } .s5 { text-decoration: underline 3px; } }
body { background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; max-width: 46rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; }
pre { font: 1rem/1.75 ui-monospace, Menlo, Consolas, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
span { border-radius: 2px; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
pre span { padding: 0.1em 0; }
.legend span { padding: 0.1em 0.4em; white-space: nowrap; border: 1px solid var(--dim); }
i { color: inherit; opacity: 0.6; font-style: normal; font-size: 0.8em; user-select: none; -webkit-user-select: none; }
.s1 { background: var(--s1); } .s2 { background: var(--s2); } .s3 { background: var(--s3); color: var(--on3); }
.s4 { background: var(--s4); color: var(--on4); }
.s5 { background: var(--s5); color: var(--on5); }
"""


def draw_surprisal(folder: Path, trained: TrainedModel, stretch: TokenSpan) -> str:
    """The page of a text that the run in `folder` has read."""
    found = list(surprisal_pieces(trained, stretch, torch.device("cpu")))
    text = hashlib.sha256("".join(piece.text for piece in found).encode()).hexdigest()
    about = {"kind": "tokens", "runs": [run_provenance(folder)], "text_sha256": text}
    return surprisal_page(found, folder.resolve().name, trained.config.context_length, about)
