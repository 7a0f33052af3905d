"""HTML from the templates of this folder, in which no text can act as markup, move what is next to it, or hide."""

import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

_ALLOWED = "\n\t\u200c\u200d"  # the joiners are part of some scripts and of emoji


def visible_text(text: str) -> str:
    """`text` with every character that is invisible, or not allowed in HTML, replaced by its number: ⟨U+202E⟩.

    Those are control characters, marks that change the reading direction or have no width, halves of surrogate pairs, and
    code points that are no characters.
    """
    return "".join(f"⟨U+{ord(c):04X}⟩" if _is_hidden(c) else c for c in text)


def _is_hidden(c: str) -> bool:
    if c in _ALLOWED:
        return False
    no_character = ord(c) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(c) <= 0xFDEF
    return no_character or unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def escape_html(value: object) -> Markup:
    """`value` as markup that shows it; markup stays as it is."""
    return value if isinstance(value, Markup) else escape(visible_text(str(value)))


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
        autoescape=True,
        finalize=escape_html,  # of every value that a template shows
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render_template(name: str, **values: Any) -> str:
    """The page that the template `name` makes of `values`."""
    return _environment().get_template(name).render(values)


def render_macro(template: str, name: str, *values: Any, **named: Any) -> Markup:
    """The markup that one macro of a template makes of its arguments."""
    return getattr(_environment().get_template(template).module, name)(*values, **named)
