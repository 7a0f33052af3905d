"""Tokens with a model's scores: one line per token, or the text itself colored by surprisal."""

import json
import re
from typing import Any, Iterable, Mapping

import click

from lib.errors import printable

HEAD = f"{'token':<18} {'probability':>11}  {'rank':>6}  most likely"


def line(token: Mapping[str, Any], colored: bool) -> str:
    """One scored token as a line; `colored`: green for a high probability, yellow, or red for a low one."""
    color = "green" if token["probability"] >= 0.5 else "yellow" if token["probability"] >= 0.05 else "red"
    scores = f"{_quoted(token['text']):<18} {token['probability']:>11.2%}"
    alternatives = "  ".join(f"{_quoted(other['text'])} {other['probability']:.1%}" for other in token["alternatives"])
    return f"{click.style(scores, fg=color) if colored else scores}  {token['rank']:>6,}  {alternatives}"


def passage(text: str, level: int) -> str:
    """A piece of text colored by its surprisal level, 0 to 5; the color stops before a line break."""
    parts = re.split("(\n)", text)
    return "".join(part if part in ("", "\n") else click.style(part, **_STYLES[level]) for part in parts)


#: Yellow to brown, darker from level to level; the text is legible whatever the terminal's own colors are.
_STYLES: tuple[dict[str, Any], ...] = (
    {},
    {"bg": 230, "fg": 16},
    {"bg": 222, "fg": 16},
    {"bg": 208, "fg": 16},
    {"bg": 130, "fg": 231, "underline": True},
    {"bg": 52, "fg": 231, "underline": True, "bold": True},
)


def conversation_text(parts: Iterable[tuple[str, bool]], colored: bool) -> str:
    """The text of parts, each learned or not: what is learned in green, or between [[ and ]]."""
    return "".join(_learned(_lines(part), colored) if learned else _lines(part) for part, learned in parts)


def _learned(text: str, colored: bool) -> str:
    return click.style(text, fg="green") if colored else f"[[{text}]]"


def _lines(text: str) -> str:
    """`text` with control characters escaped, but for its line breaks."""
    return "\n".join(map(printable, text.split("\n")))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
