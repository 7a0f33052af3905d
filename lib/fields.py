"""The fields of a JSON file that was read back: whether they are what its readers rely on."""

from types import UnionType
from typing import Any

#: A type, [what each item is], or {name: what stands there}: a name that ends in "?" may be missing or null, "*" is every name.
Fields = type | UnionType | list[Any] | dict[str, Any]

NUMBER = int | float


def damaged(found: Any, wanted: Fields, at: str = "") -> str | None:
    """Where `found` is not as `wanted`: `baselines.bigram.loss`, or "" for the whole; None where all of it is."""
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            return at
        inner = [(name, value, wanted["*"]) for name, value in found.items()] if "*" in wanted else []
        for name, kind in wanted.items():
            value = found.get(name.removesuffix("?"))
            if name != "*" and not (name.endswith("?") and value is None):
                if name.removesuffix("?") not in found:
                    return _within(at, name)
                inner.append((name.removesuffix("?"), value, kind))
    elif isinstance(wanted, list):
        if not isinstance(found, list):
            return at
        inner = [(str(number), value, wanted[0]) for number, value in enumerate(found)]
    else:
        return None if isinstance(found, wanted) else at
    places = (damaged(value, kind, _within(at, name)) for name, value, kind in inner)
    return next((place for place in places if place is not None), None)


def _within(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name
