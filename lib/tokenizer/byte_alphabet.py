"""Bytes as printable characters, as GPT-2's released files and Hugging Face's tokenizers write them."""

#: The printable bytes are written as themselves, the others as characters from U+0100 on.
_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
#: A character -> its byte, in the order of the characters' code points: GPT-2's ids 0 to 255.
BYTE_OF = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + n): byte for n, byte in enumerate(_OTHERS)}
_WRITTEN = {byte: character for character, byte in BYTE_OF.items()}


def byte_string(token: bytes) -> str:
    """A byte sequence in these characters."""
    return "".join(_WRITTEN[byte] for byte in token)
