"""Tokens with what a model thought of them, a line each, coloured by how surprised it was."""

import json
import os
from typing import Any, Mapping, TextIO

import click

HEAD = f"{'token':<18} {'probability':>11}  {'rank':>6}  the likeliest"


def line(token: Mapping[str, Any], coloured: bool) -> str:
    """One analysed token as a line; `coloured`: green where the model was fairly sure of it, red where it was surprised."""
    colour = "green" if token["probability"] >= 0.5 else "yellow" if token["probability"] >= 0.05 else "red"
    own = f"{_quoted(token['text']):<18} {token['probability']:>11.2%}"
    others = "  ".join(f"{_quoted(other['text'])} {other['probability']:.1%}" for other in token["alternatives"])
    return f"{click.style(own, fg=colour) if coloured else own}  {token['rank']:>6,}  {others}"


def coloured(file: TextIO) -> bool:
    """Whether lines for `file` are to be coloured: on a terminal, unless NO_COLOR is set (no-color.org)."""
    return file.isatty() and not os.environ.get("NO_COLOR")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
