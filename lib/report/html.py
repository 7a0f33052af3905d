"""HTML, written so that no text can be taken for markup, move what stands beside it, or hide."""

import html
import unicodedata
from typing import Container, Iterable, Sequence

_KEPT = "\n\t\u200c\u200d"  # the joiners that some scripts and emoji are written with


class Html(str):
    """Markup, to be put into a page as it is; any other str is text."""


def visible_text(text: str) -> str:
    """`text` with the number of every character that is not seen, or not allowed in HTML, in its place: ⟨U+202E⟩.

    Those are control characters, marks that turn the direction of reading or have no width, halves of surrogate pairs and
    codes that are no characters.
    """
    return "".join(f"⟨U+{ord(c):04X}⟩" if _hidden(c) else c for c in text)


def _hidden(c: str) -> bool:
    if c in _KEPT:
        return False
    no_character = ord(c) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(c) <= 0xFDEF
    return no_character or unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def escape_html(text: str) -> Html:
    """`text` as markup that shows it; markup stays as it is."""
    return text if isinstance(text, Html) else Html(html.escape(visible_text(text)))


def html_element(name: str, *children: str, **attributes: str | int | None) -> Html:
    """<name …>children</name>; an attribute that is None is left out, `_` in its name stands for - or, last, for nothing."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(visible_text(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    first = "\n" if name == "pre" else ""  # which a browser drops, and would drop from the text otherwise
    return Html(f"<{name}{given}>{first}{''.join(map(escape_html, children))}</{name}>" + ("\n" if name in _BLOCKS else ""))


#: What a new line follows in the page's source.
_BLOCKS = frozenset(
    {"article", "details", "div", "dl", "figure", "h1", "h2", "h3", "header", "li", "main", "nav", "ol", "p", "pre"}
    | {"section", "table", "tbody", "thead", "tr", "ul"}
)


def html_table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], marked: Container[str] = ()) -> Html:
    """A table: the first column names each row, all others hold numbers or words; rows with a name in `marked` stand out.

    It lies in a box of its own that scrolls where a screen is too narrow.
    """
    names = html_element("tr", *(html_element("th", name, scope="col") for name in head))
    lines = (
        html_element(
            "tr",
            html_element("th", name, scope="row"),
            *(html_element("td", cell) for cell in cells),
            class_="marked" if name in marked else None,
        )
        for name, *cells in rows
    )
    made = html_element("table", html_element("caption", caption), html_element("thead", names), html_element("tbody", *lines))
    return html_element("div", made, class_="scroll", role="region", aria_label=caption, tabindex=0)


def html_terms(pairs: Iterable[tuple[str, str]], **attributes: str) -> Html:
    """A list of terms, each with what it is."""
    items = (html_element("div", html_element("dt", term), html_element("dd", value)) for term, value in pairs)
    return html_element("dl", *items, **attributes)
