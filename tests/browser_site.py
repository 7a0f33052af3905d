"""The site in a real browser, opened from disk, without a network: `make test-browser`, not plain `make test`."""

import re
from pathlib import Path

import pytest

from tests.browser import PHONE, Browser, at, browser, requested  # noqa: F401 - fixtures
from tests.test_site import site  # noqa: F401 - a fixture

PAGES = ("index.html", "docs/index.html", "docs/attention.html", "docs/gpt.html", "lib/model/attention.py.html")
SCRIPTS = "--virtual-time-budget=5000"  # ms: the page's scripts run


@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_without_an_error_and_loads_files_alone(page: str, site: Path, at: Browser) -> None:  # noqa: F811
    done = at.open(site / page, "--dump-dom", SCRIPTS)
    assert [line for line in done.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line] == []
    assert {address.partition(":")[0] for address in requested(at.folder / "net.json")} <= {"file"}
    assert done.stdout.decode().count("<h1") == 1


def test_a_search_gives_the_page_about_it(site: Path, at: Browser) -> None:  # noqa: F811
    dom = at.open(site / "docs" / "index.html", "--dump-dom", SCRIPTS, query="?q=rotary+positions").stdout.decode()
    results = re.findall(r'<a href="([^"]+)" class="md-search-result__link"', dom)
    assert results
    assert "docs/rotary.html" in results[0]


@pytest.mark.parametrize("page", PAGES)
def test_light_and_dark_screens_and_phones_show_a_page(page: str, site: Path, at: Browser) -> None:  # noqa: F811
    name = page.replace("/", "-").removesuffix(".html")
    light = at.picture(site / page, f"{name}-light", 1280, SCRIPTS)
    dark = at.picture(site / page, f"{name}-dark", 1280, SCRIPTS, "--blink-settings=preferredColorScheme=0")
    assert len(set(light[2])) > 50, "a blank page has few kinds of bytes"
    assert len(set(dark[2])) > 50
    assert light[2] != dark[2]
    framed = site / f"framed-{name}.html"
    framed.write_text(
        '<!DOCTYPE html><meta charset="utf-8"><title>frame</title><style>body { margin: 0 } iframe { border: 0 }</style>'
        f'<iframe width="{PHONE}" height="1600" src="{page}"></iframe><p id="width"></p><script>'
        "onload = () => { const page = document.querySelector('iframe').contentDocument.documentElement; "
        "document.getElementById('width').textContent = `${page.scrollWidth},${page.clientWidth}` }</script>",
        encoding="utf-8",
    )
    words = ("--allow-file-access-from-files", SCRIPTS)
    at.picture(framed, f"{name}-phone", PHONE + 140, *words)
    width = re.search(r'<p id="width">(\d+),(\d+)</p>', at.open(framed, "--dump-dom", *words).stdout.decode())
    assert width is not None
    assert int(width[1]) <= int(width[2]) == PHONE
