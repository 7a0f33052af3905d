"""What a compressor needs for a text when it has been given the training text: gzip and xz, as everybody has them.

Its measure is what the text adds: the size of training text and text together, compressed, less that of the training text
alone. A compressor looks back so far and no farther (gzip 32 KiB, xz at its usual setting 8 MiB), so of a longer training
text only the end is given to it.
"""

import lzma
import zlib
from typing import Callable, Iterable, Protocol

LOOK_BACK = 8 << 20  # bytes: xz's, at setting 6


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def _gzip() -> _Compressor:
    return zlib.compressobj(9, zlib.DEFLATED, 31)  # 31: a window of 2¹⁵ bytes, with gzip's header


#: Each compressor at its usual or best setting, by name.
COMPRESSORS: dict[str, Callable[[], _Compressor]] = {"gzip": _gzip, "xz": lambda: lzma.LZMACompressor(preset=6)}


def added_bytes(name: str, training: bytes, text: Callable[[], Iterable[bytes]]) -> int:
    """By how many bytes the compressor's output grows where `text()`, in pieces, follows the `training` text."""
    return _size(name, [training], text()) - _size(name, [training], ())


def _size(name: str, *parts: Iterable[bytes]) -> int:
    compressor = COMPRESSORS[name]()
    size = sum(len(compressor.compress(piece)) for part in parts for piece in part)
    return size + len(compressor.flush())
