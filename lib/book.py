"""The book in `docs/`: its pages, and their code, run.

A page is Markdown. Its Python blocks are one program, from the first to the last; the `text` block after a block holds what
that prints. So the example on the page and the one in the terminal are the same, and a test compares the output with the page.

A block `python source=lib/model/norm.py:layer_norm` shows the lines of this function, class or method as they are in the file.
"""

import ast
import contextlib
import io
import re
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Iterator

from lib import PROJECT
from lib.errors import MakegptError, UsageError, nearest

CONTENTS = "README.md"
EXAMPLE = "A worked example"

_ENTRY = re.compile(r"^\d+\. \[(?P<title>[^\]]+)\]\((?P<name>\w+)\.md\): (?P<about>.+)$", re.MULTILINE)
_FENCE = re.compile(r"^```(?P<language>\w*)(?: source=(?P<source>\S+))?\n(?P<text>.*?)^```$\n?", re.MULTILINE | re.DOTALL)
_KINDS = {"python": "code", "text": "output"}
_INDEX = re.compile(r"^- (?P<terms>[^\[\]:]+): \[[^\]]+\]\((?P<name>\w+)\.md\)$", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """A page of the book: its name in `explain`, its title, its subject, its file, and the part of the book it is in."""

    name: str
    title: str
    about: str
    path: Path
    part: str = ""


@dataclass(frozen=True)
class Block:
    """A part of a page: "prose", "code", "output" of the code before it, or "source", lines of a file that are not run.

    `line` is the line on which its text begins.
    """

    kind: str
    text: str
    line: int
    section: str


def list_pages() -> list[Page]:
    """The pages in the order of the table of contents."""
    docs = PROJECT / "docs"
    if not (docs / CONTENTS).is_file():
        raise MakegptError(f"the book is missing: {docs / CONTENTS} does not exist")
    parts = re.split(r"^## (.+)$", (docs / CONTENTS).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [
        Page(entry["name"], entry["title"], entry["about"], docs / f"{entry['name']}.md", part)
        for part, text in zip(parts[1::2], parts[2::2], strict=True)
        for entry in _ENTRY.finditer(text)
    ]


def index_terms() -> dict[str, str]:
    """The terms of the index, lower case with _ for a space, and the name of the page that explains each."""
    index = _INDEX.finditer((PROJECT / "docs" / CONTENTS).read_text(encoding="utf-8"))
    return {_key(term): entry["name"] for entry in index for term in entry["terms"].split(", ")}


def _key(term: str) -> str:
    return re.sub(r"[ -]", "_", term.strip().lower())


def list_solutions() -> list[Page]:
    """The pages of `docs/solutions`: the answers to the exercises of the pages with the same names."""
    pages = [replace(page, path=page.path.parent / "solutions" / page.path.name) for page in list_pages()]
    return [page for page in pages if page.path.is_file()]


def find_page(name: str) -> Page:
    """The page called `name`, or that explains this term of the index; UsageError if there is none."""
    pages = {page.name: page for page in list_pages()}
    key, terms = _key(name), index_terms()
    if key not in pages and key not in terms:
        raise UsageError(f"there is no page {name!r}; {nearest(key, [*pages, *terms])}")
    return pages.get(key) or pages[terms[key]]


def code_blocks(page: Page) -> list[Block]:
    """The page split into blocks; fences in other languages, or in none, are prose."""
    text = page.path.read_text(encoding="utf-8")
    blocks: list[Block] = []
    section = ""

    def add(kind: str, start: int, stop: int) -> None:
        nonlocal section
        for piece in re.split(r"(?m)(?=^## )", text[start:stop]) if kind == "prose" else [text[start:stop]]:
            if heading := re.match(r"## (.+)", piece):
                section = heading[1]
            if piece.strip():
                blocks.append(Block(kind, piece, text.count("\n", 0, start) + 1, section))
            start += len(piece)

    position = 0
    for fence in _FENCE.finditer(text):
        if kind := "source" if fence["source"] else _KINDS.get(fence["language"]):
            add("prose", position, fence.start())
            add(kind, *fence.span("text"))
            position = fence.end()
    add("prose", position, len(text))
    return blocks


def run_page(page: Page) -> Iterator[Block]:
    """The blocks of the page with the output that its code prints now; errors of the code are not caught.

    In a checkout the code runs in the project's folder, with its params.yaml and data, whatever the current folder is.
    """
    namespace: dict[str, object] = {"__name__": page.name}
    folder = PROJECT if (PROJECT / "params.yaml").is_file() and (PROJECT / "stages").is_dir() else Path.cwd()
    for block in code_blocks(page):
        if block.kind != "output":
            yield block
        if block.kind == "code":
            output = io.StringIO()
            source = "\n" * (block.line - 1) + block.text  # so that a traceback names the page's own line
            with contextlib.redirect_stdout(output), contextlib.chdir(folder):
                exec(compile(source, str(page.path), "exec"), namespace)
            if output.getvalue():
                yield replace(block, kind="output", text=output.getvalue())


def page_summary(page: Page) -> Iterator[Block]:
    """The page up to the end of its worked example, as `run_page` gives it; the code after that does not run."""
    started = False
    for block in run_page(page):
        started = started or block.section == EXAMPLE
        if started and block.section != EXAMPLE:
            return
        yield block


def source_lines(source: str) -> str:
    """The lines of `FILE.py:name` or `FILE.py:Class.method` in this project, moved to the left margin."""
    file, _, name = source.partition(":")
    text = (PROJECT / file).read_text(encoding="utf-8")
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        inside = [child for child in ast.iter_child_nodes(node) if getattr(child, "name", None) == part]
        if not inside:
            raise MakegptError(f"{file} has no {name}")
        node = inside[0]
    assert isinstance(node, (ast.FunctionDef, ast.ClassDef))
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    assert node.end_lineno is not None
    return textwrap.dedent("".join(text.splitlines(keepends=True)[first - 1 : node.end_lineno]))


def with_sources(text: str) -> str:
    """A page with the lines that its `source=` blocks name, as they are now."""

    def renew(fence: re.Match[str]) -> str:
        if not fence["source"]:
            return fence[0]
        return f"```{fence['language']} source={fence['source']}\n{source_lines(fence['source'])}```\n"

    return _FENCE.sub(renew, text)


_MARGIN = {"prose": "", "code": "  │ ", "output": "  = ", "source": "  │ "}
_LINK = re.compile(r"!?\[([^\]]+)\]\([^)]+\)")


def page_as_text(block: Block) -> str:
    """The block for a terminal: code and output marked in the margin, links replaced by their text."""
    text = _LINK.sub(r"\1", block.text) if block.kind == "prose" else block.text
    lines = text.strip("\n").splitlines()
    space = "" if block.kind == "code" else "\n"
    return "".join(f"{_MARGIN[block.kind]}{line}".rstrip() + "\n" for line in lines) + space
