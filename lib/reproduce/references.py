"""`references.yaml`: published numbers, each a row with what is measured, the expected value, and its source."""

import inspect
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Callable, Iterable, Mapping, Self

from lib.config.strict_yaml import read_yaml
from lib.errors import UsageError, nearest

REFERENCES_FILE = Path(__file__).with_name("references.yaml")

#: The checks by name: functions of a CheckContext and the row's arguments.
Checks = Mapping[str, Callable[..., Any]]

#: One number or text of what is expected or measured.
Value = int | float | str


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One row: `expected`, each number within `tolerance`, by `check` with its arguments; or why it is `not_checked`.

    `decimals`: those of the published numbers; measured numbers are printed with as many.
    """

    name: str
    measures: str
    expected: tuple[Value, ...]
    decimals: int
    tolerance: float
    source: str
    check: str | None
    arguments: dict[str, Any]
    not_checked: str | None

    @classmethod
    def read(cls, name: str, row: Any, checks: Checks) -> Self:
        """The row `name` of the file; UsageError if it is invalid."""
        where = f"{REFERENCES_FILE.name}: {name}"
        if not isinstance(row, dict):
            raise UsageError(f"{where} must be a row of keys and values, not {row!r}")
        known = {field.name for field in fields(cls)} - {"name", "decimals", "arguments"} | {"with"}
        if unknown := sorted(row.keys() - known):
            raise UsageError(f"{where}: unknown key {unknown[0]!r}; {nearest(unknown[0], known)}")
        if missing := sorted({"measures", "expected", "source"} - row.keys()):
            raise UsageError(f"{where}: {missing[0]} is missing")
        if ("check" in row) == ("not_checked" in row):
            raise UsageError(f"{where}: give either check or not_checked")
        for key in row.keys() - {"with", "expected"}:
            if not isinstance(row[key], str):
                raise UsageError(f"{where}: {key} must be a number or a text, not {row[key]!r}")
        if "check" in row and row["check"] not in checks:
            raise UsageError(f"{where}: unknown check {row['check']!r}; {nearest(row['check'], checks)}")
        expected = row["expected"] if isinstance(row["expected"], list) else [row["expected"]]
        if not all(isinstance(text, str) for text in expected):
            raise UsageError(f"{where}: expected must be a number, a list, or a text, not {row['expected']!r}")
        if not expected:
            raise UsageError(f"{where}: expected is an empty list; give at least one number or text")
        tolerance = _value(row.get("tolerance", "0"))
        if isinstance(tolerance, str) or not 0 <= tolerance < float("inf"):
            raise UsageError(f"{where}: tolerance={tolerance} must be 0 or more")
        return cls(
            name=name,
            measures=row["measures"],
            expected=tuple(map(_value, expected)),
            decimals=max(_decimals(text) for text in expected),
            tolerance=tolerance,
            source=row["source"],
            check=row.get("check"),
            arguments=_arguments(f"{where}: {row['check']}", checks[row["check"]], row.get("with", {}))
            if "check" in row
            else {},
            not_checked=row.get("not_checked"),
        )

    def agrees(self, measured: tuple[Value, ...]) -> bool:
        """Whether `measured` is as expected: as many values, equal texts, numbers within the tolerance."""
        return len(measured) == len(self.expected) and all(map(self._near, self.expected, measured))

    def _near(self, expected: Value, measured: Value) -> bool:
        if isinstance(expected, str) or isinstance(measured, str):
            return expected == measured
        return abs(measured - expected) <= self.tolerance


def _arguments(where: str, check: Callable[..., Any], arguments: Any) -> dict[str, Any]:
    """The arguments of a check, converted to its types; UsageError for an unknown, missing or wrong argument."""
    _, *parameters = inspect.signature(check).parameters.values()  # the first is the CheckContext
    if not isinstance(arguments, dict):
        raise UsageError(f"{where}: with must be a mapping of arguments, not {arguments!r}")
    if unknown := sorted(arguments.keys() - {parameter.name for parameter in parameters}):
        raise UsageError(f"{where}: unknown argument {unknown[0]!r}")
    required = [parameter.name for parameter in parameters if parameter.default is parameter.empty]
    if missing := [name for name in required if name not in arguments]:
        raise UsageError(f"{where}: argument {missing[0]!r} is missing")
    values = {}
    for parameter in parameters:
        if parameter.name in arguments:
            kind = parameter.annotation if parameter.annotation in (int, str) else list
            value = _value(str(arguments[parameter.name])) if kind is int else arguments[parameter.name]
            if not isinstance(value, kind):
                raise UsageError(f"{where}: {parameter.name}={value} is not {_NOUN[kind]}")
            values[parameter.name] = value
    return values


_NOUN: dict[type, str] = {int: "a whole number", str: "a text", list: "a list"}


def _value(text: str) -> Value:
    """A whole number, a number or a text, as it is written."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _decimals(text: str) -> int:
    return len(text.partition(".")[2]) if isinstance(_value(text), float) and "." in text else 0


def load_references(checks: Checks, path: Path | None = None) -> dict[str, Reference]:
    """The rows of `path`, by default this package's `references.yaml`, by name; `checks` are the available checks."""
    path = path or REFERENCES_FILE
    try:
        rows = read_yaml(path.read_bytes().decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    return {name: Reference.read(name, row, checks) for name, row in rows.items()}


def choose_references(known: dict[str, Reference], names: Iterable[str]) -> list[Reference]:
    """The rows called `names`, all rows if there are no names; UsageError if one is unknown."""
    for name in names:
        if name not in known:
            raise UsageError(f"unknown row {name!r}; {nearest(name, known)}")
    return [known[name] for name in names] or list(known.values())
