"""SVG that is the same on every processor.

Where things stand in a figure follows from products, logarithms and sums, and their last bits differ from processor to
processor, from one BLAS to another, and with the count of threads. Matplotlib writes six digits after the point, which
nearly hides that, and names clip paths by a hash of all the digits, which shows it. Here a place has three digits: finer
than any pixel, and a thousand million times coarser than the last bits. Ids are numbered as they appear.
"""

import re

_TAG = re.compile(r"<[A-Za-z][^<>]*>")  # in a text or a comment < is escaped
#: Lengths in points, or in a font's units; a scale needs all its digits.
_PLACES = re.compile(r'(?<= )(?:d|x|y|width|height)="[^"]*"|translate\([^)]*\)')
_NUMBER = re.compile(r"-?\d+\.\d+|-0\b")
_HASHED = re.compile(r"(?<=[\"#])([A-Za-z]\w*?)[0-9a-f]{10}(?=[\")])")  # image0123456789, url(#p0123456789)


def normalize_svg(text: str) -> str:
    """The SVG `text` that matplotlib wrote, with places rounded and ids numbered in the order of their appearance."""
    names: dict[str, str] = {}

    def numbered(hashed: re.Match[str]) -> str:
        return names.setdefault(hashed[0], f"{hashed[1]}-{len(names) + 1}")

    def tag(match: re.Match[str]) -> str:
        return _HASHED.sub(numbered, _PLACES.sub(lambda places: _NUMBER.sub(_rounded, places[0]), match[0]))

    return _TAG.sub(tag, text)


def _rounded(number: re.Match[str]) -> str:
    short = f"{float(number[0]):.3f}".rstrip("0").rstrip(".")
    return "0" if short == "-0" else short
