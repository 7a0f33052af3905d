"""Valid files damaged with a knowledge of what they are: JSON, YAML, safetensors and `.npy` headers, plain bytes.

Every choice comes from one `random.Random`, so that an input is known by its seed.
"""

import copy
import json
import struct
from contextlib import suppress
from random import Random
from typing import Any

from lib.tokenizer.sentencepiece_model import fields
from tests.tokenizer.cut_models import field, varint

#: What stands in a tree where `_dump` puts text that no serializer would write.
_RAW = "@raw {}@"

_RAWS = [
    "NaN", "-Infinity", "1e999", "-0", "01", "9" * 5000, "1" + "0" * 400, "[" * 5000, '{"a":' * 3000, "[" * 90 + "]" * 90,
    '"\\ud800"', '"\\u0000"', "'a'", "nul", "", '{"a": 1, "a": 2}', "\x00", "1 2",
]  # fmt: skip

_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 255, 2**31, 2**32, 10**9, 10**12, 2**63 - 1, 2**63, -(2**63), 10**30, 0.5, -0.0,
    1e-320, 1e308, -1e308, 12.0, "", " ", "0", "-1", "null", "a", "é", "\x00", "a\x00b", "\x1b[31m\x1b]0;title\x07", "a\nb\rc",
    "\u202egpj.exe", "../../etc/passwd", "/etc/passwd", "/dev/zero", ".", "..", "x" * 5000, "{name:>999999999}", "%s%n",
    "1e999999999", "\udfff",
    [], {}, [[]], [None], [{}], {"": None}, {"a": {"b": []}}, ["a"] * 300, list(range(300)), {str(n): n for n in range(300)},
    "train", "run", "gpt2", "published", "I64", "BF16", "F8_E4M3", [2**62, 4], [0, -1], [1 << 40, 1 << 40],
]  # fmt: skip


def json_text(random: Random, content: bytes) -> bytes:
    """The JSON document `content` with one to three faults in it."""
    tree = json.loads(content)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        tree = tree_changed(random, tree)
    return dumped(random, tree)


def json_lines(random: Random, content: bytes) -> bytes:
    """One line or the whole of a file of JSON lines damaged."""
    lines = content.splitlines(keepends=True)
    at = random.randrange(len(lines))
    lines[at] = json_text(random, lines[at]).replace(b"\n", b"") + b"\n"
    return b"".join(lines) if random.random() < 0.9 else raw_bytes(random, content)


def dumped(random: Random, tree: Any) -> bytes:
    """`tree` as JSON, now and then with what no serializer writes."""
    text = json.dumps(tree)
    for number, raw in enumerate(_RAWS) if _RAW[:4] in text else ():
        text = text.replace(json.dumps(_RAW.format(number)), raw)
    content = text.encode("utf-8", "surrogatepass")
    return raw_bytes(random, content) if random.random() < 0.05 else content


def tree_changed(random: Random, tree: Any) -> Any:
    """A copy of `tree` in which one place is changed, removed, doubled, renamed or exchanged with another."""
    tree = copy.deepcopy(tree)
    places = _places(tree)
    if not places or random.random() < 0.03:
        return _value(random)
    holder, key = random.choice(places)
    match random.randrange(8):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[str(_value(random))[:50]] = holder.pop(key)
        case 2 if isinstance(holder, list):
            holder.insert(random.randrange(len(holder) + 1), holder[key])
        case 3:
            other, place = random.choice(places)
            if isinstance(other, dict) == (place in other) or isinstance(other, list):
                other[place], holder[key] = holder[key], copy.deepcopy(other[place])
        case 4 if isinstance(holder, dict):
            holder[random.choice(("extra", "", "kind", "model", "\x1b[2J"))] = _value(random)
        case 5 if isinstance(holder[key], int | float):
            holder[key] = random.choice(
                (holder[key] + 1, -holder[key], float(holder[key]), holder[key] * 10**9, str(holder[key]))
            )
        case _:
            holder[key] = _value(random)
    return tree


def _value(random: Random) -> Any:
    return _RAW.format(random.randrange(len(_RAWS))) if random.random() < 0.2 else copy.deepcopy(random.choice(_VALUES))


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """All (container, key) of a tree; of a long list or object a few."""
    found: list[tuple[Any, Any]] = []
    level = [tree]
    while level:
        holder = level.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else []
        for key in [*keys[:30], *keys[-3:]]:
            found.append((holder, key))
            level.append(holder[key])
    return found


def raw_bytes(random: Random, content: bytes) -> bytes:
    """`content` cut, flipped, doubled, overwritten, put in another encoding."""
    if not content:
        return bytes(random.randrange(256) for _ in range(random.randrange(40)))
    at, size = random.randrange(len(content)), random.choice((1, 2, 8, 64, len(content)))
    match random.randrange(9):
        case 0:
            return content[:at]
        case 1:
            return content[:at] + bytes([content[at] ^ 1 << random.randrange(8)]) + content[at + 1 :]
        case 2:
            return content[:at] + bytes(random.randrange(256) for _ in range(min(size, 64))) + content[at:]
        case 3:
            return content[:at] + content[at + size :]
        case 4:
            return content[:at] + content[at : at + size] + content[at:]
        case 5:
            number = random.choice((0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1))
            return content[:at] + struct.pack("<Q", number) + content[at + 8 :]
        case 6:
            return b"\xef\xbb\xbf" + content
        case 7:
            return content.decode("utf-8", "replace").encode("utf-16") if len(content) < 100_000 else content[: at // 2]
        case _:
            return random.choice((b"", b"\x00" * 64, b"\x80\x04K\x01.", content * 2, b"\xff\xfe", b"\n"))


def safetensors(random: Random, content: bytes) -> bytes:
    """A safetensors file with a damaged header, mostly of the right length still."""
    if random.random() < 0.15:
        return raw_bytes(random, content)
    (length,) = struct.unpack("<Q", content[:8])
    header, data = content[8 : 8 + length], content[8 + length :]
    header = json_text(random, header)
    if random.random() < 0.1:
        length = random.choice((0, 1, len(header) - 1, len(header) + 1, 2**31, 2**63, 2**64 - 1))
        return struct.pack("<Q", length) + header + data
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + (data if random.random() < 0.8 else raw_bytes(random, data))


def protocol_buffer(random: Random, content: bytes) -> bytes:
    """A protocol buffer in which one field is changed, removed, doubled or renumbered, or one within it."""
    message = [(number, value) for number, values in fields(content).items() for value in values]
    if not message or random.random() < 0.2:
        return raw_bytes(random, content)
    at = random.randrange(len(message)) if random.random() < 0.5 else -1 - random.randrange(min(4, len(message)))
    number, value = message[at]
    match random.randrange(6):
        case 0:
            del message[at]
        case 1:
            message.insert(random.randrange(len(message)), message[at])
        case 2:
            message[at] = random.choice((0, 1, 2, 3, 2**28)), value
        case 3 if isinstance(value, bytes):
            with suppress(ValueError):  # it is no message
                value = protocol_buffer(random, value)
            message[at] = number, value
        case 4 if isinstance(value, bytes):
            message[at] = number, raw_bytes(random, value)
        case _:
            odd = (0, 2**31, 2**32 - 1, 2**64 - 1, 2**70 - 1, b"", b"\xff", struct.pack("<f", float("nan")), b"\0\0\0\x80" * 4)
            message[at] = number, random.choice(odd)
    written = b"".join(_field(number, value) for number, value in message)
    return written if random.random() < 0.9 else written[: random.randrange(len(written) + 1)]


def _field(number: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer; four bytes are a float32, mostly."""
    if isinstance(value, bytes) and len(value) == 4:
        return varint(number << 3 | 5) + value
    return field(number, value)


_NPY_DTYPES = [
    "'<u2'", "'|O'", "'>u2'", "'<u8'", "'<f4'", "'<u2000000000'", "[('a', '<u2')]", "None", "'<u2' * 10**9", "'\\x00'",
    "('<u2', (99999999,))",
]  # fmt: skip
_NPY_ORDERS = ["False", "True", "1", "None", "9**9**9"]
_NPY_SHAPES = [
    "(4,)", "()", "(0,)", "(-1,)", "(4, 4)", "(1 << 62,)", f"({10**18},)", f"({10**17},)", f"({10**30},)", "4", "(4.0,)",
    "(True,)", "(" * 300, "None", "[4]",
]  # fmt: skip
_NPY_HEADERS = ["", "{}", "[" * 900, "{'descr': '<u2'}", "__import__('os').abort()", "\u00ff", "-" * 1000 + "1"]


def _npy_header(random: Random) -> str:
    said = ["'<u2'", "False", "(4,)"]
    at = random.randrange(3)
    said[at] = random.choice((_NPY_DTYPES, _NPY_ORDERS, _NPY_SHAPES)[at])
    whole = f"{{'descr': {said[0]}, 'fortran_order': {said[1]}, 'shape': {said[2]}, }}"
    return random.choice(_NPY_HEADERS) if random.random() < 0.2 else whole


def npy(random: Random, content: bytes) -> bytes:
    """An `.npy` file with a header that says something else, or damaged bytes."""
    if random.random() < 0.4:
        return raw_bytes(random, content)
    header = _npy_header(random).encode("latin-1") + b" " * random.randrange(3) + b"\n"
    version = random.choice((b"\x01\x00", b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"))
    length = struct.pack("<H" if version[0] == 1 else "<I", random.choice((len(header), len(header), len(header), 0, 65535)))
    return b"\x93NUMPY" + version + length + header + content[128:]


_YAML_VALUES = [
    "", "~", "-1", "0", "1e999999999", "9" * 5000, "nan", "inf", ".inf", "1_000", "true", "&a [*a, *a]", "*a", "&a x", "*base",
    "!!python/object/apply:os.abort []", '"\\UFFFFFFFF"', '"\\0"', '"\\uD800"', "[" * 2000, "{a: " * 500, "|", ">-", "[1, 2",
    "{}", "[]", "[[]]",
    "{a: {b: c}}", "'", '"', "@", "`", "%", "- a", "x" * 20_000, " " * 20_000 + "#", "2026-01-01", "0x7f", "null",
    "\t", "a: b", "[a, [b, c]]", "{name:>999999999}", "\x1b[31m", "\x85", "\u2028", "../../x",
    "[" + ", ".join(map(str, range(400))) + "]",
]  # fmt: skip


def yaml_text(random: Random, content: bytes) -> bytes:
    """YAML with a line or two damaged."""
    if random.random() < 0.1:
        return raw_bytes(random, content)
    lines = content.decode("utf-8").splitlines()
    for _ in range(random.choice((1, 1, 2))):
        at = random.randrange(len(lines))
        key, colon, _ = lines[at].partition(":")
        match random.randrange(7):
            case 0:
                del lines[at : at + random.choice((1, 1, 4))]
            case 1:
                lines.insert(at, lines[random.randrange(len(lines))])
            case 2:
                lines[at] = " " * random.randrange(5) + lines[at].lstrip()
            case 3:
                lines.insert(
                    at, random.choice(("%YAML 9.9", "---", "...", "<<: *a", "? [a]", "- a", "\t", "\ufeff", "{", "!!map"))
                )
            case 4:
                indent = len(key) - len(key.lstrip())
                lines[at] = " " * indent + random.choice(_YAML_VALUES) + colon + lines[at][len(key) + 1 :]
            case _:
                lines[at] = f"{key}{colon} {random.choice(_YAML_VALUES)}"
        lines = lines or [""]
    return "\n".join(lines).encode("utf-8")


def words(random: Random, content: bytes) -> bytes:
    """A line of text with other words and numbers in it."""
    parts = content.split(b" ")
    odd = [
        b"-1",
        b"1e3",
        b"9" * 30,
        b"9" * 100_000,
        b"\xff",
        b"\x00",
        b"4294967296",
        "٣".encode(),
        b"+1",
        b"",
        b"\n",
        b"\x1b[31m",
        b"0x10",
    ]
    parts[random.randrange(len(parts))] = random.choice(odd)
    return b" ".join(parts) if random.random() < 0.8 else raw_bytes(random, content)
