"""Checks that data from a JSON file has the fields that its readers rely on."""

from dataclasses import dataclass
from types import UnionType
from typing import Any


@dataclass(frozen=True)
class Whole:
    """An integer in a range."""

    at_least: int
    at_most: int = 2**63 - 1

    def holds(self, value: Any) -> bool:
        return type(value) is int and self.at_least <= value <= self.at_most


#: A type, [shape of each item], or {name: shape}: a name that ends in "?" may be missing or null, "*" stands for every name.
JsonShape = type | UnionType | Whole | list[Any] | dict[str, Any]

NUMBER = int | float
COUNT = Whole(0)
POSITIVE = Whole(1)


def first_mismatch(data: Any, shape: JsonShape, path: str = "") -> str | None:
    """The path of the first value in `data` that does not have its `shape`: `baselines.bigram.loss`, or "" for the whole."""
    if isinstance(shape, dict):
        if not isinstance(data, dict):
            return path
        children = [(name, value, shape["*"]) for name, value in data.items()] if "*" in shape else []
        for name, child_shape in shape.items():
            value = data.get(name.removesuffix("?"))
            if name != "*" and not (name.endswith("?") and value is None):
                if name.removesuffix("?") not in data:
                    return _child_path(path, name)
                children.append((name.removesuffix("?"), value, child_shape))
    elif isinstance(shape, list):
        if not isinstance(data, list):
            return path
        children = [(str(index), value, shape[0]) for index, value in enumerate(data)]
    else:
        return None if _is_instance(data, shape) else path
    mismatches = (first_mismatch(value, child_shape, _child_path(path, name)) for name, value, child_shape in children)
    return next((mismatch for mismatch in mismatches if mismatch is not None), None)


def _is_instance(value: Any, kind: type | UnionType | Whole) -> bool:
    """Whether `value` is of this `kind`; true and false are not numbers."""
    if isinstance(kind, Whole):
        return kind.holds(value)
    if isinstance(value, bool):
        return kind is bool or (isinstance(kind, UnionType) and bool in kind.__args__)
    return isinstance(value, kind)


def _child_path(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
