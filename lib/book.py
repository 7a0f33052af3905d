"""The book in `docs/`: its pages, and their code, run.

A page is Markdown. Its Python blocks are one program, from the first to the last; what a block prints stands in
the `text` block behind it. So the example on the page and the one in the terminal are the same, and a
test compares what is printed with what stands there.
"""

import contextlib
import io
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Iterator

from lib import PROJECT
from lib.errors import MakegptError, UsageError, nearest

CONTENTS = "README.md"
EXAMPLE = "A worked example"

_ENTRY = re.compile(r"^\d+\. \[(?P<title>[^\]]+)\]\((?P<name>\w+)\.md\): (?P<about>.+)$", re.MULTILINE)
_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$\n?", re.MULTILINE | re.DOTALL)
_KINDS = {"python": "code", "text": "output"}


@dataclass(frozen=True)
class Page:
    """A page of the book: the name `explain` knows it by, its title, what it is about, its file."""

    name: str
    title: str
    about: str
    path: Path


@dataclass(frozen=True)
class Block:
    """A piece of a page: "prose", "code", or "output", what the code before it prints. `line` is where its text begins."""

    kind: str
    text: str
    line: int
    section: str


def list_pages() -> list[Page]:
    """The pages, in the order of the contents."""
    docs = PROJECT / "docs"
    if not (docs / CONTENTS).is_file():
        raise MakegptError(f"the book is missing; looked for {docs}")
    found = _ENTRY.finditer((docs / CONTENTS).read_text(encoding="utf-8"))
    return [Page(entry["name"], entry["title"], entry["about"], docs / f"{entry['name']}.md") for entry in found]


def find_page(name: str) -> Page:
    """The page called `name`, with - or _; UsageError where there is none."""
    known = {page.name: page for page in list_pages()}
    if (wanted := name.replace("-", "_")) not in known:
        raise UsageError(f"there is no page {name!r}; {nearest(wanted, known)}")
    return known[wanted]


def code_blocks(page: Page) -> list[Block]:
    """The page cut into its blocks; fences in other languages, or in none, are prose."""
    text = page.path.read_text(encoding="utf-8")
    found: list[Block] = []
    section = ""

    def add(kind: str, start: int, stop: int) -> None:
        nonlocal section
        for piece in re.split(r"(?m)(?=^## )", text[start:stop]) if kind == "prose" else [text[start:stop]]:
            if heading := re.match(r"## (.+)", piece):
                section = heading[1]
            if piece.strip():
                found.append(Block(kind, piece, text.count("\n", 0, start) + 1, section))
            start += len(piece)

    at = 0
    for fence in _FENCE.finditer(text):
        if kind := _KINDS.get(fence["language"]):
            add("prose", at, fence.start())
            add(kind, *fence.span("text"))
            at = fence.end()
    add("prose", at, len(text))
    return found


def run_page(page: Page) -> Iterator[Block]:
    """The blocks of the page with the output that its code gives here and now; an error of the code's is raised as it is.

    In a checkout the code runs in the project's folder, on its params.yaml and data, wherever it is asked for.
    """
    namespace: dict[str, object] = {"__name__": page.name}
    project = page.path.parent.parent
    where = project if (project / "params.yaml").is_file() and (project / "stages").is_dir() else Path.cwd()
    for block in code_blocks(page):
        if block.kind != "output":
            yield block
        if block.kind == "code":
            printed = io.StringIO()
            source = "\n" * (block.line - 1) + block.text  # so that a traceback names the page's own line
            with contextlib.redirect_stdout(printed), contextlib.chdir(where):
                exec(compile(source, str(page.path), "exec"), namespace)
            if printed.getvalue():
                yield replace(block, kind="output", text=printed.getvalue())


def page_example(page: Page) -> Iterator[Block]:
    """The page's worked example, as `run` gives it. The code before it is run as well, what comes after it is not."""
    found = False
    for block in run_page(page):
        if block.section == EXAMPLE:
            found = True
            yield block
        elif found:
            return


_MARGIN = {"prose": "", "code": "  │ ", "output": "  = "}
_LINK = re.compile(r"!?\[([^\]]+)\]\([^)]+\)")


def page_as_text(block: Block) -> str:
    """The block as a terminal shows it: code and output by their margins, links by their text."""
    text = _LINK.sub(r"\1", block.text) if block.kind == "prose" else block.text
    lines = text.strip("\n").splitlines()
    return "".join(f"{_MARGIN[block.kind]}{line}".rstrip() + "\n" for line in lines) + ("\n" if block.kind != "code" else "")
