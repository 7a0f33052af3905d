"""The fields of a request's JSON body: each is read once, with its type and its bounds, or refused by name.

A field that is null counts as absent, as clients send it.
"""

import json
from dataclasses import fields as dataclass_fields
from typing import Any, Sequence

from lib.artifact.strict_json import loads_json
from lib.config.parameter import coerce
from lib.config.schema import GenerateConfig
from lib.errors import UsageError, printable
from lib.serve.errors import ApiError, invalid

_SAMPLING = {spec.name: spec for spec in dataclass_fields(GenerateConfig)}
_QUOTED = 60  # characters of a value that an error quotes
_NAMED = 10  # unknown fields that a note names


class Fields:
    """The fields of one JSON object. Each method is for one type; the value is `default` if the field is absent or null.

    ApiError 400 names the field, its value and what it must be.
    """

    def __init__(self, content: bytes) -> None:
        """`content`: a body of JSON."""
        try:
            values = loads_json(content)
        except ValueError as error:
            raise invalid(None, f"the body cannot be read: {error}; send a JSON object in UTF-8") from None
        if not isinstance(values, dict):
            raise invalid(None, 'the body must be a JSON object such as {"prompt": "To be"}')
        self._values: dict[str, Any] = values
        self._read: set[str] = set()

    def value(self, name: str) -> Any:
        """The field as it is; None if it is absent."""
        self._read.add(name)
        return self._values.get(name)

    def text(self, name: str) -> str | None:
        """A string."""
        value = self.value(name)
        return None if value is None else checked_text(value, name)

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self.value(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise wrong(name, value, "true or false")
        return value

    def integer(self, name: str, default: int, *, at_least: int, at_most: int) -> int:
        """An integer."""
        value = self.value(name)
        if value is None:
            return default
        if not is_integer(value) or not at_least <= value <= at_most:
            raise wrong(name, value, f"an integer between {at_least:,} and {at_most:,}")
        return value

    def sampling(self, name: str, default: Any) -> Any:
        """A sampling parameter, a number with the bounds of the section `generate`."""
        value = self.value(name)
        if value is None:
            return default
        if not (is_integer(value) or isinstance(value, float)):
            raise wrong(name, value, "a number")
        try:
            return coerce(_SAMPLING[name], value, name)
        except UsageError as error:
            raise invalid(name, str(error)) from None

    def texts(self, name: str, *, at_most: int) -> list[str]:
        """A string or a list of strings, none of them empty; an empty list if the field is absent."""
        value = self.value(name)
        if value is None:
            return []
        texts = [checked_text(text, name) for text in (value if isinstance(value, list) else [value])]
        if "" in texts:
            raise invalid(name, f"{name} has an empty text, which every text ends with; leave it out")
        if len(texts) > at_most:
            raise invalid(name, f"{name} has {len(texts):,} texts; at most {at_most} are possible")
        return texts

    def inner(self, name: str) -> "Fields":
        """The fields of the object in a field, by their own names; none if it is absent."""
        value = self.value(name)
        if value is not None and not isinstance(value, dict):
            raise wrong(name, value, "an object")
        inner = Fields(b"{}")
        inner._values = value or {}
        return inner

    def refuse(self, name: str, neutral: Sequence[Any], advice: str) -> None:
        """Refuse a field that is known but not supported, unless its value is one of those that change nothing."""
        value = self.value(name)
        if value is not None and value not in neutral:
            raise ApiError(400, f"{name} is not supported; {advice}", param=name, code="unsupported_parameter")

    def unknown(self) -> str:
        """The names of the fields that nothing has read, for a note in the log; an empty text if there are none."""
        names = [printable(name[:_QUOTED]) for name in self._values if name not in self._read]
        return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")


def is_integer(value: Any) -> bool:
    """Whether it is an integer of JSON; Python's True is one too, but not here."""
    return isinstance(value, int) and not isinstance(value, bool)


def checked_text(value: Any, name: str) -> str:
    """`value`, of the field `name`, which must be a string that UTF-8 can write."""
    if not isinstance(value, str):
        raise wrong(name, value, "a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise invalid(name, f"{name}: character {error.start} is half of a surrogate pair, which is no character") from None
    return value


def checked_ids(value: Any, name: str, vocab_size: int) -> list[int]:
    """`value`, of the field `name`, which must be a list of token ids, at least one."""
    if not isinstance(value, list) or not all(map(is_integer, value)):
        raise wrong(name, value, "a list of token ids")
    if not value:
        raise invalid(name, f"{name} has a list without token ids; give at least one")
    for id in value:
        if not 0 <= id < vocab_size:
            raise invalid(name, f"{name} has the token id {id}; the model's ids are 0 to {vocab_size - 1:,}")
    return value


def wrong(name: str, value: Any, right: str) -> ApiError:
    """The field `name` has a `value` that must be something else: 400."""
    quoted = json.dumps(value)
    if len(quoted) > _QUOTED:
        quoted = f"{quoted[:_QUOTED]}…"
    return invalid(name, f"{name}={quoted} must be {right}")
