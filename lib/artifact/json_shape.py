"""The fields of a JSON file that was read back: whether they are what its readers rely on."""

from dataclasses import dataclass
from types import UnionType
from typing import Any


@dataclass(frozen=True)
class Whole:
    """A whole number in a range."""

    at_least: int
    at_most: int = 2**63 - 1

    def holds(self, value: Any) -> bool:
        return type(value) is int and self.at_least <= value <= self.at_most


#: A type, [what each item is], or {name: what stands there}: a name that ends in "?" may be missing or null, "*" is every name.
JsonShape = type | UnionType | Whole | list[Any] | dict[str, Any]

NUMBER = int | float
COUNT = Whole(0)
POSITIVE = Whole(1)


def first_mismatch(found: Any, wanted: JsonShape, at: str = "") -> str | None:
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
        return None if _is(found, wanted) else at
    places = (first_mismatch(value, kind, _within(at, name)) for name, value, kind in inner)
    return next((place for place in places if place is not None), None)


def _is(found: Any, wanted: type | UnionType | Whole) -> bool:
    """Whether a value is of the type `wanted`; true and false are no numbers."""
    if isinstance(wanted, Whole):
        return wanted.holds(found)
    if isinstance(found, bool):
        return wanted is bool or (isinstance(wanted, UnionType) and bool in wanted.__args__)
    return isinstance(found, wanted)


def _within(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name
