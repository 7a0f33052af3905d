"""Strict JSON: UTF-8, no duplicate keys, no NaN or infinity, bounded depth and size.

An integer of more than 64 bits is read as a float, so that a field for an integer refuses it.
"""

import json
import math
from pathlib import Path
from typing import Any

MAX_BYTES = 1 << 26  # of one document or line; GPT-2's tokenizer.json takes 2 MB
MAX_DEPTH = 64  # nested lists and objects; the files written here have 6 at most


def loads_json(content: bytes | str) -> Any:
    """The data in `content`; ValueError says briefly why it is not valid JSON."""
    if len(content) > MAX_BYTES:
        raise ValueError(f"it is longer than {MAX_BYTES >> 20} MB")
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        data = json.loads(
            text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant, parse_int=_integer, parse_float=_finite_float
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not valid UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_depth(data)
    return data


def loads_copied_json(text: str) -> Any:
    """The data in `text`, of which parts are copied to an output: numbers of any size, and only text that can be written.

    ValueError or RecursionError if it is not valid JSON.
    """
    data = json.loads(text, parse_constant=_refuse_constant)
    json.dumps(data, ensure_ascii=False).encode("utf-8")  # a UnicodeError is a ValueError
    return data


def load_json(path: Path) -> Any:
    """The data in the file `path`; ValueError if it is not JSON or not a file, OSError if it cannot be read."""
    return loads_json(_content(path, MAX_BYTES))


def load_json_lines(path: Path) -> list[tuple[int, Any]]:
    """The number and the data of each line of the file `path` that is not blank; errors as of `load_json`, and ValueError
    names the line.
    """
    data = []
    for number, line in enumerate(_content(path).split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            data.append((number, loads_json(line)))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    return data


def _content(path: Path, limit: int | None = None) -> bytes:
    """The bytes of the file `path`; a pipe or a device is refused, since it may block or have no end."""
    if path.exists() and not path.is_file():
        raise ValueError("it is not a file")
    with open(path, "rb") as file:
        return file.read() if limit is None else file.read(limit + 1)


_TOO_DEEP = f"it is nested more than {MAX_DEPTH} levels deep"


def _check_depth(data: Any) -> None:
    level = [data]
    for _ in range(MAX_DEPTH):
        inner = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list))
        level = [child for children in inner for child in children if isinstance(child, dict | list)]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        seen: set[str] = set()
        duplicate = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"duplicate key {duplicate[:_QUOTED]!r}")
    return data


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> int | float:
    number = int(digits) if len(digits) <= _LONGEST_OF_64_BITS else None
    return number if number is not None and -(2**63) <= number < 2**63 else _finite_float(digits)


def _finite_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:_QUOTED]} is too large for a number")
    return number


_LONGEST_OF_64_BITS = 20  # characters, with the sign
_QUOTED = 40  # characters that an error quotes
