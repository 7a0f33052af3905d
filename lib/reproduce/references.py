"""`references.yaml`: numbers of others, each a row that says what is measured, what should come out, and who published it."""

import inspect
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Callable, Iterable, Mapping, Self

from lib.config.strict_yaml import read_yaml
from lib.errors import UsageError, nearest

REFERENCES_FILE = Path(__file__).with_name("references.yaml")

#: What measures a row, by name: called with a laboratory and the row's arguments.
Checks = Mapping[str, Callable[..., Any]]

#: One number or text of what is expected or measured.
Value = int | float | str


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One row: `expected`, each number up to `tolerance` off, by `check` with its arguments; or why it is `not_checked`.

    `decimals`: how many the published numbers have; what is measured is shown with as many.
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
        """The row `name` of the file; UsageError if it is not right."""
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
        written = row["expected"] if isinstance(row["expected"], list) else [row["expected"]]
        if not all(isinstance(text, str) for text in written):
            raise UsageError(f"{where}: expected must be a number, several, or a text, not {row['expected']!r}")
        if not written:
            raise UsageError(f"{where}: expected is an empty list; give at least one number or text")
        tolerance = _value(row.get("tolerance", "0"))
        if isinstance(tolerance, str) or not 0 <= tolerance < float("inf"):
            raise UsageError(f"{where}: tolerance={tolerance} must be 0 or more")
        return cls(
            name=name,
            measures=row["measures"],
            expected=tuple(map(_value, written)),
            decimals=max(_decimals(text) for text in written),
            tolerance=tolerance,
            source=row["source"],
            check=row.get("check"),
            arguments=_arguments(f"{where}: {row['check']}", checks[row["check"]], row.get("with", {}))
            if "check" in row
            else {},
            not_checked=row.get("not_checked"),
        )

    def agrees(self, measured: tuple[Value, ...]) -> bool:
        """Whether `measured` is what is expected: as many values, texts the same, numbers within the tolerance."""
        return len(measured) == len(self.expected) and all(map(self._near, self.expected, measured))

    def _near(self, expected: Value, measured: Value) -> bool:
        if isinstance(expected, str) or isinstance(measured, str):
            return expected == measured
        return abs(measured - expected) <= self.tolerance


def _arguments(where: str, check: Callable[..., Any], given: Any) -> dict[str, Any]:
    """The arguments of a check, each of the type it needs; UsageError if it takes another name, or needs one more."""
    _, *takes = inspect.signature(check).parameters.values()  # the first is the laboratory
    if not isinstance(given, dict):
        raise UsageError(f"{where}: with must be a mapping of arguments, not {given!r}")
    if unknown := sorted(given.keys() - {argument.name for argument in takes}):
        raise UsageError(f"{where} takes no {unknown[0]}")
    if missing := [argument.name for argument in takes if argument.default is argument.empty and argument.name not in given]:
        raise UsageError(f"{where} wants {missing[0]}")
    values = {}
    for argument in takes:
        if argument.name in given:
            kind = argument.annotation if argument.annotation in (int, str) else list
            value = _value(str(given[argument.name])) if kind is int else given[argument.name]
            if not isinstance(value, kind):
                raise UsageError(f"{where}: {argument.name}={value} is not {_NOUN[kind]}")
            values[argument.name] = value
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
    """The rows of `path`, else of this package's `references.yaml`, by name; `checks` are all there are."""
    path = path or REFERENCES_FILE
    try:
        rows = read_yaml(path.read_bytes().decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    return {name: Reference.read(name, row, checks) for name, row in rows.items()}


def choose_references(known: dict[str, Reference], names: Iterable[str]) -> list[Reference]:
    """Those called `names`, all if none is; UsageError if one is unknown."""
    for name in names:
        if name not in known:
            raise UsageError(f"there is no row {name!r}; {nearest(name, known)}")
    return [known[name] for name in names] or list(known.values())
