"""A figure as SVG inside a page, in the page's own colors."""

import io
import re
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from lib.plot.style import GRAY, LINE_STYLES
from lib.plot.svg import normalize_svg

_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"

#: The colors of a figure as variables of the page, which has a light and a dark version of each.
_VARIABLES = {color.lower(): f"var(--line-{number})" for number, (color, _) in enumerate(LINE_STYLES, 1)} | {
    "#000000": "currentColor",
    "#ffffff": "var(--paper)",
    "#cccccc": "var(--rule)",
    "#b0b0b0": "var(--quiet)",
    GRAY: "var(--quiet)",
}


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """`figure` as SVG to embed in a page: text as text, in the page's colors, with ids that begin with `name`."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "makegpt", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(normalize_svg(buffer.getvalue().decode()))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{_SVG}metadata" or (child.tag == f"{_SVG}defs" and child.find(f"{_SVG}style") is not None):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        if link := element.attrib.pop(_XLINK, None):
            element.set("href", f"#{name}-{link[1:]}")
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, f"{name}-{value}")
            elif key == "style":
                element.set(key, re.sub(r"#[0-9a-f]{6}", lambda color: _VARIABLES.get(color[0], color[0]), value))
            elif value.startswith("url(#"):
                element.set(key, f"url(#{name}-{value[5:]}")
    root.attrib = {"viewBox": root.attrib["viewBox"], "class": "chart", "role": "img", "aria-label": description}
    return ElementTree.tostring(root, encoding="unicode")
