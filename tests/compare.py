"""Comparison with a tolerance, of what different processors compute differently."""

import base64
import io
import re
import struct
from pathlib import Path

import numpy as np
from matplotlib.image import imread

#: The shade of an edge between two pixels may depend on the last bits.
SHARE = 1e-3
SHADE = 8 / 255

_EMBEDDED = re.compile(r"data:image/png;base64,\s*([A-Za-z0-9+/=\s]+)")
_NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d*(?:e[+-]\d+)?")


def assert_same_figure(drawn: Path, shown: Path) -> None:
    """An SVG byte for byte, except embedded pictures; these, and a PNG, in all but a thousandth of their pixels."""
    if shown.suffix == ".png":
        assert _description(drawn.read_bytes()) == _description(shown.read_bytes())
        _assert_same_pixels(drawn.read_bytes(), shown.read_bytes(), shown.name)
    else:
        assert_same_svg(drawn.read_text(encoding="utf-8"), shown.read_text(encoding="utf-8"), shown.name)


def assert_same_svg(drawn: str, shown: str, name: str) -> None:
    assert _EMBEDDED.sub("", drawn) == _EMBEDDED.sub("", shown), name
    for one, other in zip(_EMBEDDED.findall(drawn), _EMBEDDED.findall(shown), strict=True):
        _assert_same_pixels(base64.b64decode(one), base64.b64decode(other), name)


def _assert_same_pixels(drawn: bytes, shown: bytes, name: str) -> None:
    one, other = (imread(io.BytesIO(content)) for content in (drawn, shown))
    assert one.shape == other.shape, name
    differ = (np.abs(one - other) > SHADE).any(axis=-1).mean()
    assert differ <= SHARE, f"{name}: {differ:.2%} of the pixels differ"


def _description(png: bytes) -> bytes:
    """What a PNG says it was made from, and the checksum of that."""
    start = png.index(b"tEXtDescription")
    (length,) = struct.unpack(">I", png[start - 4 : start])
    return png[start : start + 4 + length + 4]


def assert_same_numbers(printed: str, shown: str) -> None:
    """The same text, but a decimal number may differ by one in its last digit."""
    assert _words(_NUMBER.sub("#", printed)) == _words(_NUMBER.sub("#", shown)), f"{printed}\ninstead of\n{shown}"
    for one, other in zip(_NUMBER.findall(printed), _NUMBER.findall(shown), strict=True):
        assert abs(float(one) - float(other)) < 1.5 * max(_last_digit(one), _last_digit(other)), f"{one} instead of {other}"


def _words(text: str) -> list[list[str]]:
    """The words of each line, since a longer number moves a column."""
    return [line.split() for line in text.splitlines()]


def _last_digit(number: str) -> float:
    """The value of one in the last digit of a number."""
    mantissa, _, exponent = number.partition("e")
    return float(10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2])))
