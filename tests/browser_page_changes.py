"""The page of `serve` while the text, the model or the panel changes, and when something goes wrong: `make test-browser`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tests.page.in_browser import Open, answering, browser, open_page, server, trained  # noqa: F401 - fixtures
from tests.serve.running import running

if TYPE_CHECKING:
    from playwright.sync_api import Route


def test_the_answer_to_an_older_text_is_not_taken_for_the_new_one(open_page: Open) -> None:  # noqa: F811
    page = open_page()
    held: list[Route] = []
    page.page.route("**/v1/analyze", lambda route: route.continue_() if held else held.append(route))
    with page.page.expect_request("**/v1/analyze"):
        page["#text"].fill("older")
    page["#text"].fill("a new text")
    with page.page.expect_response(lambda response: "a new text" in (response.request.post_data or "")):
        held[0].continue_()
    page.settle()
    assert "".join(page.tokens().all_inner_texts()) == "a new text"


def test_a_cleared_text_stays_empty(open_page: Open) -> None:  # noqa: F811
    page = open_page()
    with page.page.expect_request("**/v1/analyze"):
        page["#text"].fill("gone")
    page["#clear"].click()
    page.page.wait_for_timeout(500)
    assert page.tokens().count() == 0
    assert page["#run"].is_disabled()
    page["#undo"].click()
    page.settle()


def test_undo_after_a_change_of_the_model_keeps_the_text(open_page: Open) -> None:  # noqa: F811
    page = open_page()
    page.write(3)
    page["#model"].select_option("answering")
    page.settle()
    page["#undo"].click()
    page.settle()
    assert page["#text"].input_value() == "The verdict was"
    assert "".join(page.tokens().all_inner_texts()) == "The verdict was"


def test_a_text_grows_beyond_the_context(open_page: Open) -> None:  # noqa: F811
    page = open_page("#greedy=1")
    page.type("1. The " * 17)
    for _ in range(3):
        page.write(20)
    assert page.tokens().count() == 7 * 17 + 60
    assert page["#alert"].is_hidden()
    assert page["#summary"].inner_text().endswith("; the model sees the last 128")
    body = {"model": "trained", "prompt": "1. The " * 17, "temperature": 0, "max_tokens": 60}
    assert page["#text"].input_value() == "1. The " * 17 + page.server.post("/v1/completions", body)["choices"][0]["text"]
    assert page["#panel-sampling .bar"].count() == 20
    page.tokens().nth(150).hover()
    assert page.fact("Position").startswith("151 of 179")
    page.tab("Attention")
    page.tab("Logit lens")
    assert page["#alert"].is_hidden()


def test_pointing_at_a_token_does_not_move_the_page(open_page: Open) -> None:  # noqa: F811
    page = open_page(viewport={"width": 900, "height": 500})
    page.tab("Logit lens")
    page.page.evaluate("scrollTo(0, 0)")
    for at in (2, 9, 14):
        page.tokens().nth(at).dispatch_event("pointerover")
    assert page["#token-title"].inner_text() == "Token s"
    assert page.page.evaluate("scrollY") == 0


def test_another_panel_leaves_no_shade(open_page: Open) -> None:  # noqa: F811
    page = open_page()
    held: list[Route] = []
    page.page.route("**/v1/analyze", lambda route: held.append(route))
    with page.page.expect_request("**/v1/analyze"):
        page.page.get_by_role("tab", name="Attention").click()
    page.page.get_by_role("tab", name="Memorized").click()
    held[0].continue_()
    page.settle()
    assert page["#tokens .shaded"].count() == 0


def test_the_tokens_of_an_older_text_cannot_be_chosen(open_page: Open) -> None:  # noqa: F811
    page = open_page()
    page.page.route("**/v1/analyze", lambda route: None)
    page["#text"].fill("A new text")
    page["#panel-sampling .bar"].first.click()
    page["#token .bar"].first.click()
    assert page["#text"].input_value() == "A new text"


def test_the_address_keeps_the_text_and_the_sliders(open_page: Open) -> None:  # noqa: F811
    page = open_page()
    page.type("To be & not = #be")
    page["#temperature"].fill("0.5")
    page.tab("Logit lens")
    page.page.wait_for_timeout(400)  # the address is written after a pause
    other = open_page(page.page.url.partition("/#")[2] and "#" + page.page.url.partition("#")[2])
    assert other["#text"].input_value() == "To be & not = #be"
    assert other["output[for=temperature]"].inner_text() == "0.50"
    assert other["#panel-lens"].is_visible()


def test_a_link_in_the_same_tab_is_followed(open_page: Open) -> None:  # noqa: F811
    page = open_page("#text=One&top_k=50")
    page.page.evaluate("location.hash = '#text=Two&tab=lens'")
    page["#tokens [aria-label^='w']"].wait_for()
    assert page["output[for=top_k]"].text_content() == "off"
    page["#panel-lens td"].first.wait_for()


def test_errors_are_said_in_words(open_page: Open) -> None:  # noqa: F811
    page = open_page()
    page.refused.append(400)
    page.type("To be. " * 40)
    alert = page["#alert"]
    assert re.search(r"\b280\b.*\b128\b", alert.inner_text())
    page.type("To be")
    assert alert.is_hidden()


def test_a_server_with_a_key_is_asked_with_it(open_page: Open, trained: Path) -> None:  # noqa: F811
    with running(trained, "--api-key", "open-sesame") as locked:
        page = open_page(on=locked)
        page.refused.append(401)
        page["#key-form"].wait_for()
        assert page.tokens().count() == 0
        page["#key"].fill("wrong")
        page["#key"].press("Enter")
        page["#key-form"].wait_for()
        page["#key"].fill("open-sesame")
        page["#key"].press("Enter")
        page.tokens().nth(3).wait_for()
        assert page["#alert"].is_hidden()


def test_a_server_that_is_gone_is_said_to_be(open_page: Open, trained: Path) -> None:  # noqa: F811
    with running(trained) as short_lived:
        page = open_page(on=short_lived)
    page["#text"].fill("Still there?")
    page["#alert"].wait_for()
    assert "Is it still running?" in page["#alert"].inner_text()
    page.logged[:] = [line for line in page.logged if "ERR_CONNECTION_REFUSED" not in line]


def test_a_server_that_loads_its_models_is_asked_again(open_page: Open) -> None:  # noqa: F811
    page = open_page()
    page.refused.append(503)
    refused: list[int] = []

    def refuse_once(route: "Route") -> None:
        if refused:
            route.continue_()
        else:
            refused.append(503)
            route.fulfill(status=503, json={"error": {"message": "loading"}})

    page.page.route("**/v1/models", refuse_once)
    page.page.evaluate("location.hash = '#text=Loaded'")
    page["#tokens [aria-label^='L']"].wait_for()
    assert refused == [503]
