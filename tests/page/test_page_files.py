"""The files of the page: nothing inline, nothing from elsewhere, texts never taken for HTML."""

import re
from html.parser import HTMLParser

import pytest

from lib import PROJECT
from lib.report.surprisal import SURPRISAL_LEVELS

PAGE = PROJECT / "lib" / "page"
MODULES = {path.name: path.read_text(encoding="utf-8") for path in sorted(PAGE.glob("*.js"))}
INDEX = (PAGE / "index.html").read_text(encoding="utf-8")
STYLE = (PAGE / "style.css").read_text(encoding="utf-8")


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text inside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem:
            self.inline += data


@pytest.fixture(scope="module")
def index() -> Elements:
    elements = Elements()
    elements.feed(INDEX)
    return elements


def test_nothing_in_the_page_is_inline(index: Elements) -> None:
    assert index.inline.strip() == ""
    assert [tag for tag, _ in index.all if tag == "style"] == []
    assert [name for _, attributes in index.all for name in attributes if name == "style" or name.startswith("on")] == []


def test_what_the_page_loads_stands_next_to_it(index: Elements) -> None:
    loaded = [address for _, attributes in index.all for name in ("src", "href") if (address := attributes.get(name))]
    assert "style.css" in loaded
    assert [address for address in loaded if not (PAGE / address).is_file()] == []
    sources = {"index.html": INDEX, "style.css": STYLE, **MODULES}
    assert [name for name, text in sources.items() if re.search(r"https?://|@import|url\(", text)] == []


@pytest.mark.parametrize("name", MODULES)
def test_a_text_is_never_taken_for_html(name: str) -> None:
    ways = r"(?i)(inner|outer|adjacent)html|sethtml|parsefromstring|srcdoc|document\.write|\beval\(|new Function|javascript:"
    assert re.findall(ways, MODULES[name]) == []


def test_every_element_that_the_modules_look_up_is_in_the_page(index: Elements) -> None:
    ids = [attributes["id"] for _, attributes in index.all if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = {id for text in MODULES.values() for id in re.findall(r'byId\("([^"]+)"\)', text)}
    assert "tokens" in wanted
    assert wanted <= set(ids)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_short_enough_to_be_read_in_one_sitting(name: str) -> None:
    assert len(MODULES[name].splitlines()) <= 300


def test_the_levels_of_surprisal_are_those_of_the_report() -> None:
    levels = re.search(r"SURPRISAL_LEVELS = \[([^\]]+)\]", MODULES["surprisal.js"])
    assert levels is not None
    assert tuple(map(float, levels[1].split(","))) == SURPRISAL_LEVELS


@pytest.mark.parametrize("name", ["s1", "s2", "s3", "s4", "s5", "on3", "on4", "on5"])
def test_the_colors_of_the_levels_are_those_of_the_report(name: str) -> None:
    light, dark, _ = re.findall(rf"--{name}: (#\w+);", (PROJECT / "lib" / "report" / "style.css").read_text(encoding="utf-8"))
    assert f"--{name}: light-dark({light}, {dark});" in STYLE
