"""Tokens with what a model thought of them, a line each or as the text they are, colored by how surprised it was."""

import json
import re
from typing import Any, Mapping

import click

HEAD = f"{'token':<18} {'probability':>11}  {'rank':>6}  the likeliest"


def line(token: Mapping[str, Any], colored: bool) -> str:
    """One analysed token as a line; `colored`: green where the model was fairly sure of it, red where it was surprised."""
    color = "green" if token["probability"] >= 0.5 else "yellow" if token["probability"] >= 0.05 else "red"
    own = f"{_quoted(token['text']):<18} {token['probability']:>11.2%}"
    others = "  ".join(f"{_quoted(other['text'])} {other['probability']:.1%}" for other in token["alternatives"])
    return f"{click.style(own, fg=color) if colored else own}  {token['rank']:>6,}  {others}"


def passage(text: str, level: int) -> str:
    """A piece of a text, colored by its level of surprise, 0 to 5; no color runs on to the end of a line."""
    parts = re.split("(\n)", text)
    return "".join(part if part in ("", "\n") else click.style(part, **_PASSAGE[level]) for part in parts)


#: Yellow to brown, darker from level to level, on which the text can be read whatever the terminal's own colors are.
_PASSAGE: tuple[dict[str, Any], ...] = (
    {},
    {"bg": 230, "fg": 16},
    {"bg": 222, "fg": 16},
    {"bg": 208, "fg": 16},
    {"bg": 130, "fg": 231, "underline": True},
    {"bg": 52, "fg": 231, "underline": True, "bold": True},
)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
