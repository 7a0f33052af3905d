"""The guide for teachers says what the page has, and its example prints what it shows."""

import re

from lib.book import Page, code_blocks, run_page
from tests.conftest import PROJECT

PATH = PROJECT / "docs" / "live_page.md"
GUIDE = PATH.read_text(encoding="utf-8")
SOURCES = [path.read_text(encoding="utf-8") for path in (PROJECT / "lib" / "page").glob("*_panel.js")]


def test_the_guide_has_every_panel() -> None:
    titles = {re.findall(r'this\.title = "([^"]+)"', source)[0] for source in SOURCES}
    rows = re.findall(r"^\| ([A-Z][\w ]+) \| .* \| \[", GUIDE, re.MULTILINE)
    assert sorted(rows) == sorted(titles)


def test_the_lesson_has_45_minutes() -> None:
    assert sum(map(int, re.findall(r"^\| (\d+) \| ", GUIDE, re.MULTILINE))) == 45


def test_the_code_of_the_guide_prints_what_it_shows() -> None:
    page = Page("live_page", "The live page", "", PATH)
    assert "3 bits, 2.08 nats" in GUIDE
    for ran, stands in zip(run_page(page), code_blocks(page), strict=True):
        assert (ran.kind, ran.text) == (stands.kind, stands.text)
