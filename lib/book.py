"""The book in `docs/`: its pages, and their code, run.

A page is Markdown. Its Python blocks are one program, from the first to the last; the `text` block after a block holds what
that prints. So the example on the page and the one in the terminal are the same, and a test compares the output with the page.
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
    """A page of the book: its name in `explain`, its title, its subject, its file."""

    name: str
    title: str
    about: str
    path: Path


@dataclass(frozen=True)
class Block:
    """A part of a page: "prose", "code", or "output" of the code before it. `line` is the line on which its text begins."""

    kind: str
    text: str
    line: int
    section: str


def list_pages() -> list[Page]:
    """The pages in the order of the table of contents."""
    docs = PROJECT / "docs"
    if not (docs / CONTENTS).is_file():
        raise MakegptError(f"the book is missing: {docs / CONTENTS} does not exist")
    entries = _ENTRY.finditer((docs / CONTENTS).read_text(encoding="utf-8"))
    return [Page(entry["name"], entry["title"], entry["about"], docs / f"{entry['name']}.md") for entry in entries]


def find_page(name: str) -> Page:
    """The page called `name`, with - or _; UsageError if there is none."""
    pages = {page.name: page for page in list_pages()}
    key = name.replace("-", "_")
    if key not in pages:
        raise UsageError(f"there is no page {name!r}; {nearest(key, pages)}")
    return pages[key]


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
        if kind := _KINDS.get(fence["language"]):
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
    project = page.path.parent.parent
    folder = project if (project / "params.yaml").is_file() and (project / "stages").is_dir() else Path.cwd()
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


def page_example(page: Page) -> Iterator[Block]:
    """The page's worked example, as `run_page` gives it. The code before it also runs, the code after it does not."""
    started = False
    for block in run_page(page):
        if block.section == EXAMPLE:
            started = True
            yield block
        elif started:
            return


_MARGIN = {"prose": "", "code": "  │ ", "output": "  = "}
_LINK = re.compile(r"!?\[([^\]]+)\]\([^)]+\)")


def page_as_text(block: Block) -> str:
    """The block for a terminal: code and output marked in the margin, links replaced by their text."""
    text = _LINK.sub(r"\1", block.text) if block.kind == "prose" else block.text
    lines = text.strip("\n").splitlines()
    return "".join(f"{_MARGIN[block.kind]}{line}".rstrip() + "\n" for line in lines) + ("\n" if block.kind != "code" else "")
