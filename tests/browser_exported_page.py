"""A page of `export-page` in a real browser, opened as a file: `make test-browser`, not plain `make test`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator

import pytest
import torch

from lib.evaluate.analysis import analyze
from lib.page.export import export_page
from lib.run.folder import TrainedModel, load_run
from lib.tokenizer.word import WordTokenizer
from tests.conftest import Stage
from tests.gguf.test_export import LLAMA, model_config, write_run
from tests.page.in_browser import browser, trained  # noqa: F401 - fixtures
from tests.page.test_export import HOSTILE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page


@dataclass
class Exported:
    """An exported page that is open, what it logged, and what it asked for."""

    page: "Page"
    logged: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def __getitem__(self, selector: str) -> "Locator":
        return self.page.locator(selector)

    def tokens(self) -> "Locator":
        """The tokens of the text, without the place of the next one."""
        return self["#tokens .tokens > :not(.next)"]

    def write(self, count: int) -> None:
        """Let the model write `count` tokens, and wait for the end."""
        before = self.tokens().count()
        self["#max-tokens"].fill(str(count))
        self["#run"].click()
        self.tokens().nth(before + count - 1).wait_for()
        self["#run:has-text('Continue')"].wait_for()


OpenFile = Callable[..., Exported]


@pytest.fixture
def open_file(browser: "Browser", tmp_path: Path) -> Iterator[OpenFile]:  # noqa: F811
    """open_file(RUN): the exported page, from a file. At the end: no error on its console, no request but for the file."""
    pages: list[Exported] = []

    def open_one(run: Path, address: str = "", weights: str = "float32", **settings: Any) -> Exported:
        path = tmp_path / "page.html"
        path.write_text(export_page(run, weights).html, encoding="utf-8")
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, "offline": True} | settings)
        opened = Exported(context.new_page())
        page = opened.page
        page.set_default_timeout(30_000)
        page.on("console", lambda line: opened.logged.append(line.text) if line.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: opened.logged.append(f"{error}"))
        page.on("request", lambda request: opened.requested.append(request.url))
        page.on("dialog", lambda dialog: (opened.logged.append(f"a dialog: {dialog.message}"), dialog.dismiss()))
        pages.append(opened)
        page.goto(path.as_uri() + address)
        opened.tokens().first.wait_for()
        return opened

    yield open_one
    for opened in pages:
        assert opened.logged == []
        assert [url for url in opened.requested if not url.startswith(("file:", "data:image/svg+xml;base64,"))] == []
        opened.page.context.close()


@pytest.fixture
def model(trained: Path) -> TrainedModel:  # noqa: F811
    return load_run(trained, torch.device("cpu"))


def test_a_greedy_text_is_that_of_generate(open_file: OpenFile, trained: Path, stage: Stage) -> None:  # noqa: F811
    page = open_file(trained, "#text=1.%20The&greedy=1")
    page.write(200)  # of a context of 128 tokens
    text = stage("generate", trained, "1. The", "--temperature", 0, "--max-new-tokens", 200, "--echo").stdout
    assert page["#text"].input_value() == text.removesuffix("\n")


def test_a_token_is_explained_as_pytorch_does(open_file: OpenFile, trained: Path, model: TrainedModel) -> None:  # noqa: F811
    page = open_file(trained, "#text=1.%20The%20naive")
    ours = analyze(model.model, model.tokenizer, model.tokenizer.encode("1. The naive"), torch.device("cpu"))
    assert page.tokens().count() == len(ours.tokens)
    for index in (3, 7):
        page.tokens().nth(index).hover()
        shown = page["#token"].inner_text()
        token = ours.tokens[index]
        assert token.surprisal is not None
        assert f"{token.rank} of 256" in shown
        assert f"{token.surprisal:.2f} nats" in shown
        assert "does not hold the counts" not in shown


#: A part of each panel that only an answer gives.
ANSWERS = {
    "Next token": ".bar .number",
    "Attention": "canvas",
    "Logit lens": "tbody td",
    "Tokenizers": ".cut span",
}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_panel_shows_what_the_page_computes(open_file: OpenFile, trained: Path, name: str) -> None:  # noqa: F811
    page = open_file(trained, "#text=1.%20The")
    page.page.get_by_role("tab", name=name, exact=True).click()
    page.page.get_by_role("tabpanel", name=name, exact=True).locator(ANSWERS[name]).first.wait_for()
    assert page["#alert"].is_hidden()


def test_panels_that_need_a_server_are_hidden(open_file: OpenFile, trained: Path) -> None:  # noqa: F811
    page = open_file(trained, "#text=1.%20The")
    assert set(page.page.get_by_role("tab").all_inner_texts()) == ANSWERS.keys()


def test_a_character_that_has_no_token_is_named(open_file: OpenFile, tmp_path: Path) -> None:
    from lib.tokenizer.char import CharTokenizer

    tokenizer = CharTokenizer(" Taeghirstuvwdc.\n")
    write_run(tmp_path / "run", tokenizer, model_config(tokenizer, **LLAMA))
    page = open_file(tmp_path / "run")
    page["#text"].fill("The vérdict")
    page["#alert:visible"].wait_for()
    assert '"é" at position 5 is not among the 17 tokens' in page["#alert"].inner_text()


def test_hostile_names_and_tokens_are_shown_as_text(open_file: OpenFile, tmp_path: Path) -> None:
    tokenizer = WordTokenizer([*HOSTILE, "<|endoftext|>", "<unk>"])
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    write_run(folder, tokenizer, model_config(tokenizer))
    page = open_file(folder, "#temperature=2")
    page["#text"].fill(" ".join(HOSTILE[:2]))
    page.tokens().nth(1).wait_for()
    assert page.page.title() == f"{folder.name} · makegpt"
    page["summary"].click()
    assert folder.name in page["#provenance"].inner_text()
    assert page["img"].count() == 0


def test_the_page_says_where_the_model_comes_from(open_file: OpenFile, trained: Path) -> None:  # noqa: F811
    page = open_file(trained, weights="int8")
    assert "parameters in int8" in page["#note"].inner_text()
    assert "trained on play.txt. Everything is computed in this page" in page["#note"].inner_text()
    page["summary"].click()
    assert '"commit"' in page["#provenance"].inner_text()


def test_nothing_is_wider_than_a_phone(open_file: OpenFile, trained: Path) -> None:  # noqa: F811
    page = open_file(trained, viewport={"width": 360, "height": 640})
    page["summary"].click()
    sizes = page.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert sizes[0] <= sizes[1]
