"""A figure as SVG to stand inside a page, in the page's own colors."""

import io
import re
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from lib.plot.style import GRAY, LINE_STYLES
from lib.plot.svg import normalize_svg

_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"

#: The colors of a figure as a page names them, which has a light and a dark version of each.
_PAGES = {color.lower(): f"var(--line-{number})" for number, (color, _) in enumerate(LINE_STYLES, 1)} | {
    "#000000": "currentColor",
    "#ffffff": "var(--paper)",
    "#cccccc": "var(--rule)",
    "#b0b0b0": "var(--quiet)",
    GRAY: "var(--quiet)",
}


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """`figure` as SVG to stand inside a page: text as text, in the page's colors, with ids that begin with `name`."""
    drawn = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "makegpt", "svg.fonttype": "none"}):
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(normalize_svg(drawn.getvalue().decode()))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{_SVG}metadata" or (child.tag == f"{_SVG}defs" and child.find(f"{_SVG}style") is not None):
                parent.remove(child)
    for part in root.iter():
        part.tag = part.tag.removeprefix(_SVG)
        if link := part.attrib.pop(_XLINK, None):
            part.set("href", f"#{name}-{link[1:]}")
        for key, value in part.attrib.items():
            if key == "id":
                part.set(key, f"{name}-{value}")
            elif key == "style":
                part.set(key, re.sub(r"#[0-9a-f]{6}", lambda found: _PAGES.get(found[0], found[0]), value))
            elif value.startswith("url(#"):
                part.set(key, f"url(#{name}-{value[5:]}")
    root.attrib = {"viewBox": root.attrib["viewBox"], "class": "chart", "role": "img", "aria-label": description}
    return ElementTree.tostring(root, encoding="unicode")
