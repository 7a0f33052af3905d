"""The site: README.md and docs/ as pages. These tests need the extra `site`: make setup EXTRAS=dev,site."""

import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from lib.book import list_pages
from tests.conftest import PROJECT

pytest.importorskip("material", reason="make setup EXTRAS=dev,site installs what builds the site")

from docs.website import LANGUAGES, ROOT_PAGES, contents, linked_files, shown_as

PARTS = contents((PROJECT / "docs" / "README.md").read_text(encoding="utf-8"))


def build_site(project: Path, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Build the site of `project` into `folder`, as `make site` does; a warning is an error."""
    words = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(project), "NO_COLOR": "1"}
    return subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    done = build_site(PROJECT, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, str]:
    """The HTML of every page, by its path on the site."""
    return {path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in sorted(site.rglob("*.html"))}


def article(page: str) -> str:
    """What stands on a page, without the navigation around it."""
    (inside,) = re.findall(r"<article.*?</article>", page, re.DOTALL)
    return inside


def test_next_leads_from_the_first_page_through_the_book_in_order(pages: dict[str, str]) -> None:
    path, visited = "index.html", []
    while following := re.search(r'<a href="([^"]+)" class="md-footer__link md-footer__link--next"', pages[path]):
        path = os.path.normpath(os.path.join(os.path.dirname(path), following[1]))
        visited.append(path)
    listed = [f"docs/{file.removesuffix('.md')}.html" for part in PARTS.values() for _, file in part]
    assert visited == ["docs/index.html", *listed, "EXPERIMENTS.html", "CONTRIBUTING.html", "CHANGELOG.html"]
    assert [f"docs/{page.name}.html" for page in list_pages()] == [path for path in listed if path in visited][
        : len(list_pages())
    ]


def test_the_navigation_has_the_parts_of_the_book(pages: dict[str, str]) -> None:
    for part in PARTS:
        assert re.search(rf">\s*{re.escape(html.escape(part))}\s*<", pages["docs/index.html"]), part


def test_every_link_has_a_target_on_the_site(site: Path, pages: dict[str, str]) -> None:
    ids = {path: set(re.findall(r'\bid="([^"]*)"', page)) for path, page in pages.items()}
    for path, page in pages.items():
        if path == "404.html":  # its links begin at the root of a server
            continue
        shown = re.sub(r"(?s)<pre.*?</pre>", "", page)  # code may hold HTML of its own
        for link in set(re.findall(r'\b(?:href|src)="([^"]*)"', shown)):
            target, anchor = urldefrag(html.unescape(link))
            if re.match(r"[a-z]+:", target):
                continue
            name = os.path.normpath(os.path.join(os.path.dirname(path), unquote(target))) if target else path
            assert (site / name).is_file(), f"{path}: {link}"
            assert not anchor or name not in ids or unquote(anchor) in ids[name] | {"__skip", "__search"}, f"{path}: {link}"


def test_a_page_loads_nothing_from_the_network(site: Path, pages: dict[str, str]) -> None:
    for path, page in pages.items():
        loaded = re.findall(r'<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)="([^"]*)"', page)
        assert loaded
        assert not [link for link in loaded if re.match(r"(https?:)?//", link)], path
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_no_markdown_is_left_as_it_was(pages: dict[str, str]) -> None:
    for path, page in pages.items():
        prose = re.sub(r"(?s)<pre.*?</pre>|<code>.*?</code>", "", article(page)) if path != "404.html" else ""
        for paragraph in re.findall(r"(?s)<(?:p|li|td)\b.*?</(?:p|li|td)>", prose):
            assert not re.search(r"\n(- |\d+\. |\|)|\*\*|```|\]\(|^<p>\|", paragraph), f"{path}: {paragraph[:200]}"


def test_a_page_shows_each_file_that_is_linked_to(pages: dict[str, str]) -> None:
    linked = linked_files((PROJECT / "docs" / "rotary.md").read_text(encoding="utf-8"), "docs/rotary.md")
    assert ("../lib/model/positions.py", "lib/model/positions.py") in linked
    assert shown_as("lib/model/positions.py") == "lib/model/positions.py.md"
    assert shown_as("docs/rotary.md") is shown_as("docs/figures/loss.svg") is None
    shown = html.unescape(re.sub(r"<[^>]+>", "", pages["lib/model/positions.py.html"]))
    for line in (PROJECT / "lib" / "model" / "positions.py").read_text(encoding="utf-8").splitlines():
        assert line in shown
    listed = pages["lib/model/index.html"]
    for path in (PROJECT / "lib" / "model").iterdir():
        assert (path.suffix not in LANGUAGES) or f'href="{path.name}.html"' in listed


def test_the_lists_of_the_contents_continue_their_numbers(pages: dict[str, str]) -> None:
    starts = re.findall(r'<ol(?: start="(\d+)")?>', article(pages["docs/index.html"]))
    numbered = [part for part in PARTS.values() if part[0][0][0].isdigit()]
    assert [int(start or 1) for start in starts] == [int(part[0][0].partition(".")[0]) for part in numbered]


@pytest.mark.parametrize("link", ["[a](missing.md)", "[a](rotary.md#missing)", "[a](../lib/missing.py)"])
def test_a_link_without_a_target_stops_the_build(link: str, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(PROJECT / "lib", project / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PROJECT / "docs" / "theme", project / "docs" / "theme")
    for name in ("mkdocs.yml", "docs/website.py"):
        shutil.copy(PROJECT / name, project / name)
    for name in (*ROOT_PAGES, "docs/rotary.md"):
        (project / name).write_text(f"# {name}\n", encoding="utf-8")
    (project / "docs" / "README.md").write_text("# Contents\n\n## Part\n\n1. [Page](page.md): about\n2. [R](rotary.md): r\n")
    (project / "docs" / "page.md").write_text("# Page\n\n[Rotary](rotary.md)\n", encoding="utf-8")
    good = build_site(project, tmp_path / "good")
    assert good.returncode == 0, good.stderr
    (project / "docs" / "page.md").write_text(f"# Page\n\n{link}\n", encoding="utf-8")
    bad = build_site(project, tmp_path / "bad")
    assert bad.returncode == 1
    assert "missing" in bad.stderr
