"""Hooks of MkDocs for `make site`: README.md, docs/ and the code that they link to, as pages of one site.

Every page keeps its path in the repository, so the links between the Markdown files are those of the site. The navigation is
the table of contents in docs/README.md. A file that is not Markdown gets a page that shows it, if a page links to it.
"""

import ast
import re
from itertools import compress
from pathlib import Path, PurePosixPath
from posixpath import normpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from lib import PROJECT

ROOT_PAGES = ("README.md", "CONTRIBUTING.md", "EXPERIMENTS.md", "CHANGELOG.md")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".cpp": "cpp", ".h": "cpp", ".toml": "toml"}
#: Where links are looked for: outside of fences.
_FENCES = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?://|#)([^)\s#]+)(#[^)\s]*)?\)")
_SOURCE = re.compile(r"^```python source=(\S+)$", re.MULTILINE)


def contents(text: str) -> dict[str, list[tuple[str, str]]]:
    """The sections of docs/README.md that list pages: (title, file name) of each page, numbered if the list is."""
    sections = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        entries = re.findall(r"^(?:(\d+\.)|-) \[([^\]]+)\]\(([\w/]+\.md)\): ", section, re.MULTILINE)
        if entries:
            sections[section.partition("\n")[0]] = [(f"{number} {title}".strip(), file) for number, title, file in entries]
    return sections


def linked_files(text: str, page: str) -> list[tuple[str, str]]:
    """The links of the Markdown `text` to files and folders of the project: the link, and its path in the project."""
    prose = "".join(_FENCES.split(text)[::2])
    paths = [(target, normpath((PurePosixPath(page).parent / target).as_posix())) for target, _ in _LINK.findall(prose)]
    return [(target, path) for target, path in paths if not path.startswith("..") and (PROJECT / path).exists()]


def shown_as(path: str) -> str | None:
    """The page that shows the file or folder `path` of the project; None if it is a page or a picture itself."""
    if (PROJECT / path).is_dir():
        return f"{path}/index.md"
    return None if PurePosixPath(path).suffix in (".md", ".svg", ".png") else f"{path}.md"


def about(path: Path) -> str:
    """The first line of a module's docstring, "" for other files."""
    if path.is_dir():
        path = path / "__init__.py"
    if path.suffix != ".py" or not path.is_file():
        return ""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def source_page(path: str) -> str:
    """The Markdown of the page that shows the file or the folder `path`."""
    file = PROJECT / path
    head = f"---\nsearch:\n  exclude: true\nhide: [toc, navigation]\n---\n\n# {path}\n\n"
    if not file.is_dir():
        language = LANGUAGES.get(file.suffix, {"Makefile": "make"}.get(file.name, "text"))
        return f'{head}~~~~~~~~ {{ .{language} linenums="1" }}\n{file.read_text(encoding="utf-8").rstrip()}\n~~~~~~~~\n'
    paths = sorted(entry for entry in file.iterdir() if entry.suffix in LANGUAGES or (entry / "__init__.py").is_file())
    return head + "".join(f"- [`{entry.name}`]({entry.name}): {about(entry)}".rstrip(": ") + "\n" for entry in paths)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The navigation, from the contents of the book."""
    sections = contents((PROJECT / "docs" / "README.md").read_text(encoding="utf-8"))
    parts = [{part: [{title: f"docs/{file}"} for title, file in pages]} for part, pages in sections.items()]
    numbered = [pages[0][0][0].isdigit() for pages in sections.values()]  # those of the book
    config.nav = [
        {"Home": "README.md"},
        {"The book": ["docs/README.md", *compress(parts, numbered)]},
        *(part for part, of_book in zip(parts, numbered, strict=True) if not of_book),
        {"Project": [{"Experiments": "EXPERIMENTS.md"}, {"Contributing": "CONTRIBUTING.md"}, {"Changelog": "CHANGELOG.md"}]},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Every page at its path in the repository, and a page for each file that one of them links to."""

    def project_file(path: str) -> File:
        return File(path, str(PROJECT), config.site_dir, use_directory_urls=False)

    moved = Files([])
    for file in files:
        of_docs = file.src_dir == config.docs_dir and file.inclusion.is_included()
        moved.append(project_file(f"docs/{file.src_uri}") if of_docs else file)
    for page in ROOT_PAGES:
        moved.append(project_file(page))
    waiting = [file for file in moved if file.is_documentation_page()]
    while waiting:
        file = waiting.pop()
        for _, path in linked_files(file.content_string, file.src_uri):
            name = shown_as(path)
            if name and moved.get_file_from_path(name) is None:
                shown = File.generated(config, name, content=source_page(path), inclusion=InclusionLevel.NOT_IN_NAV)
                moved.append(shown)
                waiting.append(shown)
    return moved


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files lead to the pages that show them; a fence with a source has it as its title."""

    def target(link: re.Match[str]) -> str:
        path = normpath((PurePosixPath(page.file.src_uri).parent / link[1]).as_posix())
        name = shown_as(path) if (PROJECT / path).exists() else None
        suffix = "" if name is None else "/index.md" if name == f"{path}/index.md" else ".md"
        return f"]({link[1].rstrip('/')}{suffix}{link[2] or ''})"

    parts = _FENCES.split(markdown)
    parts[::2] = [_LINK.sub(target, prose) for prose in parts[::2]]
    return _SOURCE.sub(r'```python title="\1"', "".join(parts))
