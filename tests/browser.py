"""The report in a real browser, without a network: `make test-browser`. Plain `make test` does not come here.

SCREENSHOTS=DIR keeps the pictures and the PDF.
"""

import html
import json
import os
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib.report.page import report_page
from tests.report.test_report import complete, hostile  # noqa: F401 - fixtures

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PHONE = 360  # pixels


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser is on the PATH; one of {', '.join(NAMES)} is needed")
    return found


class Browser:
    """A headless browser that can reach nothing but files."""

    def __init__(self, command: str, folder: Path) -> None:
        self.command, self.folder = command, folder

    def open(self, path: Path, *words: str, query: str = "") -> "subprocess.CompletedProcess[bytes]":
        """Open the page in a profile of its own; its network log is in net.json, its console on stderr."""
        command = [
            self.command,
            "--headless",
            "--disable-gpu",
            "--hide-scrollbars",
            "--no-first-run",
            "--enable-logging=stderr",
        ]
        command += [f"--user-data-dir={self.folder / 'profile'}", f"--log-net-log={self.folder / 'net.json'}"]
        command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking", "--disable-component-update"]
        command += ["--no-sandbox"] if os.geteuid() == 0 else []
        done = subprocess.run(
            [*command, *words, path.resolve().as_uri() + query], capture_output=True, timeout=120, cwd=self.folder
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
        return done

    def picture(self, path: Path, name: str, width: int, *words: str, height: int = 1600) -> tuple[int, int, bytes]:
        """A screenshot: its width, its height, its points."""
        file = self.folder / f"{name}.png"
        self.open(path, f"--screenshot={file}", f"--window-size={width},{height}", *words)
        keep(file)
        return points(file.read_bytes())


def keep(file: Path) -> None:
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder)


@pytest.fixture
def at(browser: str, tmp_path: Path) -> Browser:
    (tmp_path / "browser").mkdir()
    return Browser(browser, tmp_path / "browser")


@pytest.fixture(params=["one", "several", "hostile"])
def report(request: pytest.FixtureRequest, complete: Path, hostile: Path, tmp_path: Path) -> Iterator[Path]:  # noqa: F811
    folders = {"one": [complete], "several": [complete, hostile], "hostile": [hostile]}[request.param]
    path = tmp_path / f"{request.param}.html"
    path.write_bytes(report_page(folders).encode())
    return path


def points(png: bytes) -> tuple[int, int, bytes]:
    """Width, height and the unpacked, still filtered, lines of a PNG."""
    width, height = struct.unpack(">II", png[16:24])
    data, place = b"", 8
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        if png[place + 4 : place + 8] == b"IDAT":
            data += png[place + 8 : place + 8 + length]
        place += 12 + length
    return width, height, zlib.decompress(data)


def requested(net_log: Path) -> set[str]:
    """The addresses that a page asked for; a browser asks for some by itself, on behalf of no page."""
    log = json.loads(net_log.read_text(encoding="utf-8"))
    begun = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    found = [event["params"] for event in log["events"] if event["type"] == begun and "url" in event.get("params", {})]
    return {request["url"] for request in found if request["initiator"] != "not an origin"}


def in_a_frame(report: Path, width: int, script: str) -> Path:
    """A page that shows `report` in a frame of `width` pixels, as a phone would, and does `script` with its `page`."""
    path = report.with_name(f"framed-{report.name}")
    inside = html.escape(report.read_text(encoding="utf-8"))
    path.write_text(
        '<!DOCTYPE html><meta charset="utf-8"><title>frame</title><style>body { margin: 0 } iframe { border: 0 }</style>'
        f'<iframe width="{width}" height="1600" srcdoc="{inside}"></iframe><p id="told"></p><script>'
        f"onload = () => {{ const page = document.querySelector('iframe').contentDocument; "
        f"document.getElementById('told').textContent = String({script}); }}</script>",
        encoding="utf-8",
    )
    return path


def test_the_page_opens_without_an_error_and_loads_nothing(report: Path, at: Browser) -> None:
    done = at.open(report, "--dump-dom")
    console = [line for line in done.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line]
    assert console == []
    assert requested(at.folder / "net.json") == set()
    dom = done.stdout.decode()
    assert "<script" not in dom
    for heading in (
        "Summary",
        "Loss curves",
        "Samples during training",
        "Baselines",
        "Loss by position",
        "Memorization",
    ):
        assert re.search(rf"<h[23] [^>]*>{heading}</h[23]>", dom), heading
    assert dom.count("<main>") == 1


def test_a_page_that_loads_something_is_detected(at: Browser, tmp_path: Path) -> None:
    path = tmp_path / "asks.html"
    path.write_text('<!DOCTYPE html><title>asks</title><img alt="" src="http://makegpt.invalid/x.png"><script>oh(</script>')
    done = at.open(path, "--dump-dom")
    assert requested(at.folder / "net.json") == {"http://makegpt.invalid/x.png"}
    assert b"CONSOLE" in done.stderr


@pytest.mark.parametrize("width", [PHONE, 768, 1280])
def test_nothing_is_wider_than_the_screen(report: Path, at: Browser, width: int) -> None:
    script = "[page.documentElement.scrollWidth, page.documentElement.clientWidth, page.querySelectorAll('h1').length]"
    dom = at.open(in_a_frame(report, width, script), "--dump-dom", "--window-size=1400,900").stdout.decode()
    found = re.search(r'<p id="told">(\d+),(\d+),(\d+)</p>', dom)
    assert found is not None
    assert int(found[1]) <= int(found[2])
    assert found[3] == "1"


def test_the_screen_is_not_blank_in_light_dark_and_on_a_phone(report: Path, at: Browser) -> None:
    light = at.picture(report, f"{report.stem}-light", 1000)
    dark = at.picture(report, f"{report.stem}-dark", 1000, "--blink-settings=preferredColorScheme=0")
    phone = at.picture(in_a_frame(report, PHONE, "1"), f"{report.stem}-phone", PHONE + 140)
    for width, height, lines in (light, dark, phone):
        assert (width, height) in ((1000, 1600), (PHONE + 140, 1600))
        assert len(set(lines)) > 50, "a blank page has few kinds of bytes"
    assert light[2] != dark[2]


def test_it_prints(report: Path, at: Browser) -> None:
    file = at.folder / f"{report.stem}.pdf"
    at.open(report, f"--print-to-pdf={file}", "--no-pdf-header-footer")
    keep(file)
    pdf = file.read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") + pdf.count(b"/Type/Page/") >= 1
