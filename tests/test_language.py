"""The glossary of CONTRIBUTING.md: its left column is refused in help texts and errors, or as a name in the code.

`python -m tests.test_language` lists every occurrence of every entry, and the entries that can be marked as checked.
"""

import ast
import re
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Iterator

import click
import pytest

from lib.config import schema
from stages import STAGES

PROJECT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for folder in ("lib", "stages", "makegpt") for path in (PROJECT / folder).rglob("*.py"))


@dataclass(frozen=True)
class Entry:
    """A line of the glossary: words to avoid, what to write instead, where a test refuses them. `kind`: "text" or "name"."""

    avoid: tuple[str, ...]
    instead: str
    kind: str
    checked: bool

    def __str__(self) -> str:
        return "; ".join(self.avoid)

    def occurs(self, text: str) -> list[str]:
        """The words of this entry that `text` has."""
        return [word for word in self.avoid if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, self._flags)]

    @property
    def _flags(self) -> int:
        return re.IGNORECASE if self.kind == "text" else 0


@cache
def glossary() -> list[Entry]:
    """The entries of both tables, in their order."""
    text = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text[text.index("\n## Glossary\n") :]
    entries = []
    for kind, heading in (("text", "Words"), ("name", "Names in the code")):
        table = section[section.index(f"\n### {heading}\n") :].split("\n### ")[1]
        for avoid, instead, checked in re.findall(r"^\| ([^|]+) \| ([^|]+) \|([^|]*)\|$", table, re.MULTILINE)[1:]:
            if not avoid.startswith("---"):
                words = tuple(word.strip("` ") for word in avoid.split(";"))
                entries.append(Entry(words, instead, kind, checked.strip() == "yes"))
    return entries


def strings(node: ast.AST) -> str:
    """The text of all literals below `node`, with … for what is filled in."""
    if isinstance(node, ast.JoinedStr):
        parts = [str(part.value) if isinstance(part, ast.Constant) else " … " + strings(part) + " " for part in node.values]
        return "".join(parts)
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return " ".join(filter(None, (strings(child) for child in ast.iter_child_nodes(node))))


@cache
def error_classes() -> frozenset[str]:
    """MakegptError and the classes made of it."""
    names = {"MakegptError"}
    classes = [
        node for path in SOURCES for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ClassDef)
    ]
    while (
        more := {node.name for node in classes if names & {base.id for base in node.bases if isinstance(base, ast.Name)}}
        - names
    ):
        names |= more
    return frozenset(names)


@cache
def texts() -> list[tuple[str, str]]:
    """Where a user reads our words, and the words: --help of every stage, the help of every parameter, errors, messages."""
    found = []
    for name in STAGES:
        command = import_module(f"stages.{name}").main
        context = click.Context(command, info_name=name, max_content_width=10_000, terminal_width=10_000)
        found += [(f"{name} --help", line.strip()) for line in command.get_help(context).splitlines() if line.strip()]
    for section, config in schema.SECTIONS.items():
        for field in config.__dataclass_fields__.values():
            found.append((f"params.yaml, {section}.{field.name}", field.metadata["help"]))
    spoken = error_classes() | {"say"}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in spoken:
                said = " ".join(filter(None, (strings(argument) for argument in node.args)))
                found.append((f"{path.relative_to(PROJECT)}:{node.lineno}", " ".join(said.split())))
    return found


def names_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every name that a module binds: classes, functions, arguments, variables, attributes, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr


@cache
def names() -> list[tuple[str, str]]:
    """Where the code binds a name, and the name, without a leading underscore."""
    return [
        (f"{path.relative_to(PROJECT)}:{line}", name.lstrip("_"))
        for path in SOURCES
        for line, name in names_of(ast.parse(path.read_text("utf-8")))
    ]


def occurrences(entry: Entry) -> list[str]:
    """Where an entry's words occur."""
    if entry.kind == "name":
        return [f"{where}: {name}" for where, name in names() if name in entry.avoid]
    return [f"{where}: {', '.join(words)!r} in {text!r}" for where, text in texts() if (words := entry.occurs(text))]


CHECKED = [entry for entry in glossary() if entry.checked]


@pytest.mark.parametrize("entry", CHECKED, ids=str)
def test_a_word_to_avoid_is_in_no_help_or_error(entry: Entry) -> None:
    assert not occurrences(entry), f"write {entry.instead!r} instead (CONTRIBUTING.md, Glossary)"


def test_the_glossary_has_each_word_once_and_something_to_write_instead() -> None:
    entries = glossary()
    words = [(entry.kind, word) for entry in entries for word in entry.avoid]
    assert len(entries) >= 80
    assert sorted(words) == sorted(set(words))
    assert all(entry.instead.strip() and all(entry.avoid) for entry in entries)
    assert {entry.kind for entry in CHECKED} == {"text", "name"}


def test_a_word_is_found_whole_in_any_case_and_in_what_is_filled_in() -> None:
    text = strings(ast.parse("""f"{a} Goes on{b}, {f('anew')}" """.strip(), mode="eval").body)
    assert Entry(("goes on", "new", "anew"), "continues", "text", True).occurs(text) == ["goes on", "anew"]


if __name__ == "__main__":
    for entry in glossary():
        where = occurrences(entry)
        state = "checked" if entry.checked else f"{len(where)} left" if where else "can be marked"
        print(f"{entry.kind}: {entry} -> {entry.instead}  [{state}]", *where, sep="\n    ")
