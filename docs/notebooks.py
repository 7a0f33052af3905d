"""Notebooks from the pages of the book and from the lab: `make notebooks` writes them to notebooks/.

A page's prose becomes Markdown cells, its code cells with the output that the page shows. The shell blocks of the lab become
cells of %%bash; those of a page, which may train for an hour, stay prose. The first cell finds this project, or installs it.
"""

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib.book import Block, Page, code_blocks, list_pages

DOCS = Path(__file__).resolve().parent
LAB = Page("lab", "The ladder on a T4", "the models of the ladder in float16, on a free GPU", DOCS / "teaching" / "lab.md")
_COLAB = "https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name}.ipynb"

_SETUP = """\
import os
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
if not any((folder / "lib" / "book.py").is_file() for folder in folders):
{install}
os.chdir(next(folder for folder in [Path.cwd(), *Path.cwd().parents] if (folder / "lib" / "book.py").is_file()))"""
_INSTALL = """\
    !git clone --quiet --depth 1 https://github.com/{repository} makegpt
    os.chdir("makegpt")
    %pip install --quiet --editable ."""
_NO_INSTALL = '    raise SystemExit("open this notebook in a folder of makegpt, after `make setup`")'


def notebook(page: Page, repository: str) -> dict[str, Any]:
    """The page as a notebook of format 4.5; `repository`, owner/name on GitHub, is where Colab gets it, or empty."""
    install = _INSTALL.format(repository=repository) if repository else _NO_INSTALL
    setup = _SETUP.format(install=install)
    cells = [_cell(number, block, page) for number, block in enumerate([Block("code", setup, 0, ""), *_blocks(page)])]
    if repository:
        badge = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
        link = f"{badge}({_COLAB.format(repository=repository, name=page.name)})\n"
        cells.insert(0, _cell(len(cells), Block("prose", link, 0, ""), page))
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": python}, "nbformat": 4, "nbformat_minor": 5}


def _blocks(page: Page) -> list[Block]:
    """The blocks of the page, each output as the `section` of the code before it; of the lab those of the shell too."""
    blocks: list[Block] = []
    for block in code_blocks(page):
        parts = (
            re.split(r"^```sh\n(.*?)^```\n", block.text, flags=re.MULTILINE | re.DOTALL)
            if page == LAB and block.kind == "prose"
            else []
        )
        if len(parts) > 1:
            kinds = ("prose", "shell")
            blocks += [
                replace(block, kind=kinds[at % 2], text=part, section="") for at, part in enumerate(parts) if part.strip()
            ]
        elif block.kind == "output" and blocks and blocks[-1].kind == "code":
            blocks[-1] = replace(blocks[-1], section=block.text)
        else:
            blocks.append(block if block.kind == "output" else replace(block, section=""))
    return blocks


def _cell(number: int, block: Block, page: Page) -> dict[str, Any]:
    """A cell; the `section` of a block of code holds its output."""
    cell: dict[str, Any] = {"id": f"cell-{number}", "metadata": {}}
    if block.kind in ("code", "shell"):
        text = f"%%bash\n{block.text}" if block.kind == "shell" else block.text
        stream = [{"output_type": "stream", "name": "stdout", "text": block.section}] if block.section else []
        return {**cell, "cell_type": "code", "execution_count": None, "outputs": stream, "source": text.strip()}
    text = f"```python\n{block.text}```" if block.kind == "source" else _with_links(block.text, page)
    return {**cell, "cell_type": "markdown", "source": text.strip()}


def _with_links(text: str, page: Page) -> str:
    """Links to files of the project as seen from notebooks/."""

    def moved(link: re.Match[str]) -> str:
        return f"](../{os.path.relpath(page.path.parent / link[1], DOCS.parent)}{link[2] or ''})"

    return re.sub(r"\]\((?!http|#)([^)#]+)(#[^)]*)?\)", moved, text)


def main() -> None:
    """Write all notebooks to the folder of the first argument, for the repository of the second."""
    folder, repository = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""
    folder.mkdir(parents=True, exist_ok=True)
    for page in [*list_pages(), LAB]:
        text = json.dumps(notebook(page, repository), indent=1, ensure_ascii=False) + "\n"
        (folder / f"{page.name}.ipynb").write_text(text, encoding="utf-8")
    print(f"{folder}: {len(list_pages()) + 1} notebooks")


if __name__ == "__main__":
    main()
