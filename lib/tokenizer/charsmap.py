"""The normalization of a SentencePiece model: rules that replace characters, such as those of NFKC.

    size of the trie in bytes, trie, replacements          the size little-endian, each replacement ended by a zero byte

The trie is a double array (Aoe 1989; its units are those of github.com/s-yata/darts-clone): from the unit of a node, a byte
leads to the unit at `offset XOR byte`, if that has the byte as its label. It holds the bytes of all rules; the value of a rule
is where its replacement begins.
"""

import struct

import numpy as np

_IS_VALUE, _HAS_RULE, _IS_FAR = 1 << 31, 1 << 8, 1 << 9  # bits of a unit


class Charsmap:
    def __init__(self, blob: bytes) -> None:
        """ValueError if the lengths in `blob` contradict each other."""
        self.blob = blob
        size = struct.unpack_from("<I", blob)[0] if len(blob) > 4 else 0
        if not size or size % 4 or size >= len(blob) - 4 or blob[-1]:
            raise ValueError("the rules of its normalization are damaged")
        self._units: list[int] = np.frombuffer(blob, dtype="<u4", count=size // 4, offset=4).tolist()
        self._replacements = blob[4 + size :]

    def normalize(self, text: str) -> list[str]:
        """`text` in parts: what replaces the longest rule that begins at each place, or one character that has no rule."""
        content, at = text.encode("utf-8"), 0
        parts = []
        while at < len(content):
            length, part = self._longest_rule(content, at)
            if not length:
                length = 1
                while content[at + length : at + length + 1] and content[at + length] & 0xC0 == 0x80:
                    length += 1
                part = content[at : at + length].decode("utf-8")
            parts.append(part)
            at += length
        return parts

    def _longest_rule(self, content: bytes, at: int) -> tuple[int, str]:
        """The bytes of `content` that the longest rule at `at` replaces, and by what; 0 if there is no rule."""
        node, length, value = self._follow(0, self._unit(0)), 0, 0
        for end in range(at, len(content)):
            node ^= content[end]
            unit = self._unit(node)
            if unit & (_IS_VALUE | 0xFF) != content[end]:
                break
            node = self._follow(node, unit)
            if unit & _HAS_RULE:
                length, value = end + 1 - at, self._unit(node) & ~_IS_VALUE
        stop = self._replacements.find(b"\0", value)
        if not length or stop < 0:
            return 0, ""
        return length, self._replacements[value:stop].decode("utf-8", "replace")

    def _unit(self, node: int) -> int:
        return self._units[node] if node < len(self._units) else _IS_VALUE

    @staticmethod
    def _follow(node: int, unit: int) -> int:
        return node ^ (unit >> 10 << (8 if unit & _IS_FAR else 0))
