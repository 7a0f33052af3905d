"""The page of a real `serve` in a real browser: fixtures for tests/browser_page.py and tests/browser_page_looks.py."""

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator
from urllib.parse import urlsplit

import pytest
import torch

from lib.artifact.provenance import timestamp
from lib.chat.template import ChatML
from lib.config.params import load_params, resolve_config
from lib.model.registry import build_model
from lib.run.imported import write_imported_run
from tests.chat.test_template import TOKENIZER
from tests.conftest import PROJECT, TEXT, Stage
from tests.serve.running import Running, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
LONG = 1200  # tokens of the context of the second run


@dataclass
class Opened:
    """A page that is open, what it logged, and what it asked for."""

    page: "Page"
    server: Running
    refused: list[int] = field(default_factory=list)  # statuses that the test expects: browsers log them as errors
    logged: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def __getitem__(self, selector: str) -> "Locator":
        return self.page.locator(selector)

    def tokens(self) -> "Locator":
        """The tokens of the text, without the place of the next one."""
        return self.page.locator("#tokens .tokens > :not(.next)")

    def type(self, text: str) -> None:
        """Put a text into the field, and wait until its tokens are shown."""
        with self.page.expect_response("**/v1/analyze"):
            self["#text"].fill(text)
        self.settle()

    def settle(self) -> None:
        """Wait until nothing is asked or written."""
        self["#tokens[aria-busy=false]"].wait_for()
        self["#run:has-text('Continue')"].wait_for()

    def write(self, tokens: int) -> None:
        """Let the model write, and wait for the end."""
        self["#max-tokens"].fill(str(tokens))
        with self.page.expect_response("**/v1/completions"):
            self["#run"].click()
        self.settle()

    def tab(self, name: str) -> "Locator":
        """Choose a tab; its panel."""
        self.page.get_by_role("tab", name=name, exact=True).click()
        self.settle()
        return self.page.get_by_role("tabpanel", name=name, exact=True)

    def fact(self, name: str) -> str:
        """One line of the card of a token."""
        return self[f"#token .facts div:has(dt:text-is('{name}')) dd"].inner_text()


Open = Callable[..., Opened]


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A browser without a network: every name but that of this machine is unknown."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make setup EXTRAS=dev,browser")
    command = next(filter(None, map(shutil.which, NAMES)), None)
    if command is None:
        pytest.skip(f"no browser is on the PATH; one of {', '.join(NAMES)} is needed")
    words = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--disable-gpu", "--no-sandbox"]
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=command, args=words)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, stage: Stage) -> Path:
    """A run of bytes, trained for a second, next to its training text."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "play.txt").write_text(TEXT, encoding="utf-8")
    stage("tokenize", folder / "play.txt", "-o", folder / "tokens", "--config", "debug")
    options = ["--config", "debug", "--val-fraction", 0.2, "--context-length", 128]
    stage("build-dataset", folder / "tokens", "-o", folder / "dataset", *options)
    stage("train", folder / "dataset", "-o", folder / "trained", "--config", "debug", "--set", "model.context_length=128")
    return folder / "trained"


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with random weights and a long context that takes conversations; with top-k 20 (#top_k=20) no text of it ends."""
    debug = resolve_config(load_params(PROJECT / "params.yaml"), "debug").model
    config = replace(debug, vocab_size=TOKENIZER.vocab_size, context_length=LONG)
    model = build_model(config)
    model.initialize(torch.Generator().manual_seed(1))
    folder = tmp_path_factory.mktemp("page") / "answering"
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    weights["out_head.weight"][:3] = 0  # the special tokens, one of which ends a text, are never among the twenty most likely
    facts: dict[str, Any] = {"checkpoint": {}, "inputs": [], "metadata": {}, "started": timestamp()}
    write_imported_run(folder, config, TOKENIZER, weights, chat_template=ChatML().jinja(), **facts)
    return folder


@pytest.fixture(scope="module")
def server(trained: Path, answering: Path) -> Iterator[Running]:
    with running(trained, answering) as server:
        yield server


@pytest.fixture
def open_page(browser: "Browser", server: Running) -> Iterator[Open]:
    """open_page(): the page, its first text analyzed. At the end: no error on its console, no request but to the server."""
    pages: list[Opened] = []

    def open_one(address: str = "", on: Running | None = None, **settings: Any) -> Opened:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}} | settings)
        opened = Opened(context.new_page(), on or server)
        page = opened.page
        page.set_default_timeout(20_000)
        page.on("console", lambda line: opened.logged.append(line.text) if line.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: opened.logged.append(f"{error}"))
        page.on("request", lambda request: opened.requested.append(request.url))
        page.on("dialog", lambda dialog: (opened.logged.append(f"a dialog: {dialog.message}"), dialog.dismiss()))
        pages.append(opened)
        page.goto(f"{opened.server.url}/{address}")
        opened.settle()
        return opened

    yield open_one
    for opened in pages:
        expected = [f"status of {status} " for status in opened.refused]
        unexpected = [line for line in opened.logged if not any(words in line for words in expected)]
        assert not unexpected, unexpected
        elsewhere = [url for url in opened.requested if urlsplit(url).netloc != urlsplit(opened.server.url).netloc]
        assert not elsewhere, elsewhere
        opened.page.context.close()
