"""A parameter: a field with a help text and a range, and how text becomes its value."""

import types
import typing
from dataclasses import field
from decimal import Decimal
from typing import Any, Mapping

from lib.errors import UsageError, nearest


def parameter(
    help: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    one_of: tuple[str, ...] = (),
) -> Any:
    """A required field with its help text and its range. `above` is a lower bound that is itself excluded."""
    return field(metadata={"help": help, "at_least": at_least, "above": above, "at_most": at_most, "one_of": one_of})


_TYPE_NAMES: dict[Any, str] = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
_BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}


def coerce(spec: Any, value: Any, where: str) -> Any:
    """Convert `value` (text, or already of the right type) to the type of the field `spec`, and check its range."""
    types_allowed = typing.get_args(spec.type) if isinstance(spec.type, types.UnionType) else (spec.type,)
    optional, choices = type(None) in types_allowed, spec.metadata["one_of"]
    if isinstance(value, str) and (choices or types_allowed[0] is not str):  # a prompt keeps its blanks
        value = value.strip()
    if optional and value in (None, "null", "~", ""):
        return None
    try:
        result = _convert(value, types_allowed[0])
    except (ValueError, TypeError, ArithmeticError):
        type_name = _TYPE_NAMES[types_allowed[0]] + (" or null" if optional else "")
        raise UsageError(f"{where}={value} must be {type_name}") from None
    if choices and result not in choices:
        raise UsageError(f"{where}={value} is unknown; {nearest(str(result), choices)}")
    if not _in_range(result, spec.metadata):
        raise UsageError(f"{where}={value} must be {_describe_range(spec.metadata)}")
    return result


def _convert(value: Any, target: Any) -> Any:
    """Convert `value` to the type `target`; ValueError, TypeError or ArithmeticError if that is impossible."""
    if isinstance(value, dict):
        raise TypeError
    if target is str:
        return str(value)
    text = str(value).lower()
    if target is bool:
        if text not in _BOOLEANS:
            raise ValueError
        return _BOOLEANS[text]
    if "_" in text:
        raise ValueError
    number = Decimal(text)
    if not number.is_finite() or number.adjusted() > 300 or (target is int and number != int(number)):
        raise ValueError
    return target(number)


def _in_range(value: Any, bounds: Mapping[str, Any]) -> bool:
    low, above, high = bounds["at_least"], bounds["above"], bounds["at_most"]
    return (low is None or value >= low) and (above is None or value > above) and (high is None or value <= high)


def _describe_range(bounds: Mapping[str, Any]) -> str:
    """The range in words: "between 1 and 100", "at least 1", "greater than 0 and at most 1"."""
    low, above, high = (
        f"{bound:.12g}" if isinstance(bound, float) else bound for bound in map(bounds.get, ("at_least", "above", "at_most"))
    )
    if low is not None and high is not None:
        return f"between {low} and {high}"
    lowest = f"at least {low}" if above is None else f"greater than {above}"
    return lowest if high is None else f"{lowest} and at most {high}"
