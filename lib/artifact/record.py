"""JSON objects as frozen dataclasses: `to_json` writes one, `from_json` reads one back and names the field that is wrong.

A field with a default may be missing from the JSON, and is left out of it while that is None, () or {}; `null` counts as
missing. A key that the dataclass does not have is ignored. `field(metadata={"key": "from"})` gives a field another key.
"""

from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


class AtLeast(NamedTuple):
    """The smallest value of a whole number, for `Annotated[int, AtLeast(0)]`."""

    least: int


Count = Annotated[int, AtLeast(0)]
Positive = Annotated[int, AtLeast(1)]

_MOST = 2**63 - 1
_NOUNS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", dict: "an object", list: "a list"}


class RecordError(ValueError):
    """JSON that does not fit: `place` is the field (`baselines.bigram.loss`, "" for all of it), `complaint` the rest."""

    def __init__(self, place: str, complaint: str) -> None:
        super().__init__(f"{place} {complaint}".strip())
        self.place, self.complaint = place, complaint


def from_json(kind: type[T], value: Any, place: str = "") -> T:
    """`value`, read from JSON, as the dataclass `kind`; RecordError names the first field that does not fit."""
    result: T = _read(kind, value, place)
    return result


def to_json(value: Any) -> Any:
    """A dataclass, and what it holds, as plain JSON data."""
    if is_dataclass(value) and not isinstance(value, type):
        pairs = ((field, getattr(value, field.name)) for field in fields(value))
        return {_key(field): to_json(item) for field, item in pairs if item != _default(field) or item not in (None, (), {})}
    if isinstance(value, dict):
        return {name: to_json(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


def _default(field: Any) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _key(field: Any) -> str:
    return str(field.metadata.get("key", field.name))


@cache
def _fields_of(kind: type) -> list[tuple[str, str, Any, bool]]:
    """Name, key and type of each field, and whether it may be missing."""
    hints = get_type_hints(kind, include_extras=True)
    return [
        (field.name, _key(field), hints[field.name], field.default is not MISSING or field.default_factory is not MISSING)
        for field in fields(kind)
    ]


def _read(kind: Any, value: Any, place: str) -> Any:
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _read_object(kind, value, place)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        number = _read(arguments[0], value, place)
        if not arguments[1].least <= number <= _MOST:
            raise RecordError(place, f"must be a whole number of at least {arguments[1].least}")
        return number
    if origin in (Union, UnionType):
        if value is None and NoneType in arguments:
            return None
        return _read(next(argument for argument in arguments if argument is not NoneType), value, place)
    if origin is tuple:
        items = _plain(list, value, place)
        kinds = arguments if arguments[-1] is not Ellipsis else arguments[:1] * len(items)
        if len(kinds) != len(items):
            raise RecordError(place, f"must be a list of {len(kinds)}")
        return tuple(_read(kind, item, _within(place, n)) for n, (kind, item) in enumerate(zip(kinds, items, strict=True)))
    if origin is list:
        return [_read(arguments[0], item, _within(place, n)) for n, item in enumerate(_plain(list, value, place))]
    if origin is dict:
        return {name: _read(arguments[1], item, _within(place, name)) for name, item in _plain(dict, value, place).items()}
    return _plain(kind, value, place)


def _read_object(kind: Any, value: Any, place: str) -> Any:
    fields_found = _plain(dict, value, place)
    values = {}
    for name, key, hint, optional in _fields_of(kind):
        if fields_found.get(key) is None and optional:
            continue
        if key not in fields_found:
            raise RecordError(_within(place, key), "is missing")
        values[name] = _read(hint, fields_found[key], _within(place, key))
    return kind(**values)


def _plain(kind: type, value: Any, place: str) -> Any:
    """A value of the type itself; a whole number is a number too, true and false are not."""
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, (int, float) if kind is float else kind):
        raise RecordError(place, f"must be {_NOUNS[kind]}")
    return value


def _within(place: str, name: str | int) -> str:
    return f"{place}.{name}" if place else str(name)
