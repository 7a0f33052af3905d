"""How the page of `serve` looks, on phones and projectors and in print, to a screen reader, and how fast it is.

`make test-browser` runs this; SCREENSHOTS=DIR keeps the pictures.
"""

import os
from pathlib import Path

import pytest

from tests.browser import PHONE
from tests.conftest import PROJECT, TEXT
from tests.page.in_browser import (  # noqa: F401 - fixtures
    LONG,
    Open,
    Opened,
    answering,
    browser,
    open_page,
    server,
    trained,
)

TABS = ("Next token", "Attention", "Logit lens", "Tokenizers", "Memorized", "Side by side")
SIZES = {"phone": (PHONE, 740), "tablet": (768, 1024), "laptop": (1280, 800), "projector": (1920, 1080)}
EXAMPLE = "The naïve café — “to be, or not to be” — costs 5 dollars 😀"
AXE = PROJECT / ".axe-core" / "node_modules" / "axe-core" / "axe.min.js"

#: Milliseconds for a text of a thousand tokens; a machine that is busy takes several times what it takes alone.
SLOWEST_SHOW, SLOWEST_POINT = 300, 25


TIMES = """async () => {
  const { TokenList } = await import("/token_list.js");
  const tokens = Array.from({ length: 1000 }, (_, id) => ({ id, bytes: [32, 97 + (id % 26)], surprisal: id % 8, rank: 1 }));
  const list = new TokenList("timed", () => {});
  document.getElementById("tokens").append(list.element);
  const time = (work) => {
    const start = performance.now();
    work();
    list.element.getBoundingClientRect(); // the layout too
    return performance.now() - start;
  };
  const show = time(() => list.show(tokens));
  const shade = time(() => list.shade(tokens.map(({ id }) => id / 1000)));
  list.element.remove();
  const some = [...document.querySelectorAll("#tokens [role=option]")].slice(100, 200);
  const over = () => new PointerEvent("pointerover", { bubbles: true });
  return { show, shade, point: time(() => some.forEach((node) => node.dispatchEvent(over()))) / some.length };
}"""


def keep(opened: Opened, name: str) -> bytes:
    """A picture of the whole page."""
    picture = opened.page.screenshot(full_page=True, animations="disabled")
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"page-{name}.png").write_bytes(picture)
    return picture


def written(open_page: Open, **settings: object) -> Opened:  # noqa: F811
    """A page with a text that the model has continued, and one token pointed at."""
    page = open_page("#seed=3&top_k=20", **settings)
    page.type(EXAMPLE)
    page.write(16)
    page.tokens().nth(12).focus()
    return page


@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_wider_than_the_screen(size: str, open_page: Open) -> None:  # noqa: F811
    width, height = SIZES[size]
    page = written(open_page, viewport={"width": width, "height": height})
    for name in TABS:
        page.tab(name)
        keep(page, f"{size}-{name.lower().replace(' ', '-')}")
        assert page.page.evaluate("document.documentElement.scrollWidth") <= width, name


@pytest.mark.parametrize("choice", ["by the system", "by the page"])
def test_light_and_dark_differ(choice: str, open_page: Open) -> None:  # noqa: F811
    light = written(open_page, color_scheme="light")
    dark = written(open_page, color_scheme="dark" if choice == "by the system" else "light")
    if choice == "by the page":
        dark["#theme"].select_option("dark")
    assert keep(light, "light") != keep(dark, "dark")
    background = "getComputedStyle(document.body).backgroundColor"
    assert light.page.evaluate(background) == "rgb(253, 253, 251)"
    assert dark.page.evaluate(background) == "rgb(23, 24, 26)"


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed: make axe-core")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", [*TABS, "Chat"])
def test_axe_has_no_serious_finding(name: str, scheme: str, open_page: Open) -> None:  # noqa: F811
    page = written(open_page, color_scheme=scheme)
    if name == "Chat":
        page["#model"].select_option("answering")
        page.settle()
    panel = page.tab(name)
    if name == "Chat":
        panel.get_by_label("Message", exact=True).fill("Hello")
        panel.get_by_role("button", name="Send").click()
        panel.get_by_role("button", name="Send").wait_for()
    page.page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
    serious = [
        f"{entry['id']}: {node['html'][:100]}: {node['failureSummary']}"
        for entry in found
        if entry["impact"] in ("serious", "critical")
        for node in entry["nodes"]
    ]
    assert serious == []


def test_a_reader_of_a_screen_hears_the_written_text_once(open_page: Open) -> None:  # noqa: F811
    page = open_page("#greedy=1")
    page.page.evaluate(
        "() => { window.said = []; new MutationObserver(() => said.push(document.getElementById('status').textContent))"
        ".observe(document.getElementById('status'), { childList: true }) }"
    )
    page.write(12)
    said = page.page.evaluate("window.said")
    assert len(said) == 2
    assert said[0] == "Generating …"
    assert said[1].startswith("12 tokens: ")
    live = "[...document.querySelectorAll('[aria-live], [role=status], [role=alert]')].filter((node) => node.contains(tokens))"
    assert page.page.evaluate(f"{live}.length") == 0


def test_a_thousand_tokens_are_shown_and_pointed_at_without_lag(open_page: Open) -> None:  # noqa: F811
    page = open_page("#model=answering")
    page.type(TEXT[:900])
    assert 900 < page.tokens().count() < LONG
    page.tab("Attention")  # a hover shades all tokens
    times = page.page.evaluate(TIMES)
    print({name: f"{milliseconds:.1f} ms" for name, milliseconds in times.items()})
    assert times["show"] < SLOWEST_SHOW
    assert times["shade"] < SLOWEST_POINT
    assert times["point"] < SLOWEST_POINT


def test_it_prints(open_page: Open) -> None:  # noqa: F811
    pdf = written(open_page).page.pdf()
    assert pdf.startswith(b"%PDF-")
    if folder := os.environ.get("SCREENSHOTS"):
        (Path(folder) / "page.pdf").write_bytes(pdf)
