"""The page of `serve` in a real browser, with real small models: `make test-browser`, not plain `make test`."""

import pytest
import torch

from lib.generate.sampling import keep_min_p, keep_top_k, keep_top_p, temperature_scaled
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

PASSAGE = "The naïve café — “to be, or not to be” — costs"


def analysis(opened: Opened, **fields: object) -> dict:
    """What the server says of the text of the page."""
    return opened.server.post("/v1/analyze", {"model": "trained", "prompt": opened["#text"].input_value(), **fields})


#: Clicks on Stop as soon as an answer has a character that is seen; a small model has finished before a test could click.
STOP_AT_FIRST_WORD = """() => new MutationObserver((changes, observer) => {
  if (!document.querySelector(".assistant .body")?.textContent.trim()) return;
  observer.disconnect();
  document.querySelector("#panel-chat button.main").click();
}).observe(document.querySelector(".chat"), { childList: true, subtree: true, characterData: true })"""


def spelled(token: dict) -> str:
    """A token as the page spells it: its text, or its bytes if they are not whole characters."""
    try:
        return bytes(token["bytes"]).decode().replace(" ", "␣").replace("\n", "⏎")
    except UnicodeDecodeError:
        return bytes(token["bytes"]).hex(" ").upper()


def test_a_text_is_shown_token_by_token_as_it_is_typed(open_page: Open) -> None:  # noqa: F811
    page = open_page()
    assert page["#text"].input_value() == "The verdict was"
    assert page.tokens().count() == len("The verdict was")
    page.type("naïve 😀")
    assert page.tokens().all_inner_texts() == ["n", "a", "C3", "ï", "v", "e", " ", "F0", "9F", "98", "😀"]
    scored = analysis(page)["tokens"]
    for token, shown in zip(scored[1:], page.tokens().all()[1:], strict=True):
        assert f", rank {token['rank']}" in (shown.get_attribute("aria-label") or "")
    page["#text"].press_sequentially("!")
    page.tokens().nth(11).wait_for()
    assert page.tokens().last.inner_text() == "!"


def test_a_text_grows_to_what_generate_writes(open_page: Open) -> None:  # noqa: F811
    page = open_page("#text=1.%20The&greedy=1")
    page.write(30)
    body = {"model": "trained", "prompt": "1. The", "temperature": 0, "max_tokens": 30}
    answer = page.server.post("/v1/completions", body)["choices"][0]["text"]
    assert page["#text"].input_value() == "1. The" + answer
    assert page["#status"].text_content() == f"30 tokens: {answer}"
    assert page["#tokens .begins"].inner_text() == answer[0]
    page["#undo"].click()
    page.settle()
    for _ in range(3):
        with page.page.expect_response("**/v1/completions"):
            page["#step"].click()
        page["#step:enabled"].wait_for()
    page.settle()
    assert page["#text"].input_value() == ("1. The" + answer).encode()[: len("1. The") + 3].decode(errors="replace")


def test_a_seed_gives_the_same_text_again_and_undo_takes_it_back(open_page: Open) -> None:  # noqa: F811
    page = open_page("#text=The&seed=7&temperature=2")
    texts = []
    for seed in ("7", "7", "8"):
        page["#seed"].fill(seed)
        page.write(12)
        texts.append(page["#text"].input_value())
        page["#undo"].click()
        page.settle()
        assert page["#text"].input_value() == "The"
    assert texts[0] == texts[1] != texts[2]


def test_stop_ends_a_text(open_page: Open) -> None:  # noqa: F811
    page = open_page("#model=answering&top_k=20")
    page["#max-tokens"].fill("1000")
    page["#run"].click()
    page.tokens().nth(25).wait_for()
    page["#run"].click()
    page.settle()
    count = page.tokens().count()
    assert 25 <= count < 1000
    page.page.wait_for_timeout(300)
    assert page.tokens().count() == count
    assert "then stopped" in page["#status"].inner_text()


def test_a_token_under_the_mouse_or_with_the_focus_is_explained(open_page: Open) -> None:  # noqa: F811
    page = open_page()
    page.type("1. The naïve")
    tokens = analysis(page, counts=True)["tokens"]
    for index, point in ((5, lambda at: page.tokens().nth(at).hover()), (4, lambda at: page.tokens().nth(at).focus())):
        page["h1"].hover()
        point(index)
        token = tokens[index]
        assert page["#token-title"].inner_text() == "Token " + token["text"].replace(" ", "␣")
        assert page.fact("Rank") == f"{token['rank']} of 256"
        assert page.fact("Surprisal").startswith(f"{token['surprisal']:.2f} nats")
        assert page.fact("Entropy").startswith(f"{token['entropy']:.2f} nats")
        assert f"{token['counts']['surprisal']:.2f} nats" in page.fact(token["counts"]["name"])
        assert page["#token .bar"].count() == 10
    page.tokens().first.hover()
    assert "not predict it" in page["#token"].inner_text()


def test_a_chosen_alternative_is_continued(open_page: Open) -> None:  # noqa: F811
    page = open_page("#text=The%20naive&greedy=1&max_tokens=8")
    page.tokens().nth(4).hover()
    second = page["#token .bar:has(code:text-matches('^[a-z]$'))"].nth(1)
    character = second.locator("code").inner_text()
    with page.page.expect_response("**/v1/completions"):
        second.click()
    page.settle()
    assert page.tokens().count() == 4 + 1 + 8
    assert page["#text"].input_value().startswith("The " + character.replace("␣", " "))
    assert page["#tokens .begins"].count() == 1


def test_the_sliders_draw_the_distribution_that_generate_samples_from(open_page: Open) -> None:  # noqa: F811
    page = open_page("#temperature=1.5&top_p=0.8&min_p=0.05&top_k=19")  # the nearest position is 20
    assert page["output[for=top_k]"].inner_text() == "20"
    logits = torch.tensor(analysis(page, full=True)["next"]["logits"])
    left = keep_min_p(keep_top_p(keep_top_k(temperature_scaled(logits, 1.5), 20), 0.8), 0.05)
    expected = torch.softmax(left, dim=-1)
    bars = page["#panel-sampling .bar"]
    assert bars.count() == 20
    shown = bars.locator(".number").all_inner_texts()
    drawn = [text for text in shown if text.endswith("%")]
    assert len(drawn) == int((expected > 0).sum())
    for text, p in zip(drawn, expected.sort(descending=True).values.tolist(), strict=False):
        assert abs(float(text.removesuffix("%")) / 100 - p) <= 0.006 * p
    assert shown[-1] in ("filtered out: top-p", "filtered out: min-p")
    assert page["#panel-sampling .quiet"].first.inner_text().startswith(f"{len(drawn)} of 256 tokens")
    page["#greedy"].check()
    assert bars.locator(".number").all_inner_texts()[:2] == ["100 %", "filtered out: greedy"]
    assert page["#temperature"].is_disabled()


def test_a_bar_of_the_next_token_adds_it(open_page: Open) -> None:  # noqa: F811
    page = open_page()
    bar = page["#panel-sampling .bar"].nth(2)
    character = bar.locator("code").inner_text()
    with page.page.expect_response("**/v1/analyze"):
        bar.click()
    page.settle()
    assert page["#tokens .tokens > *"].count() == len("The verdict was") + 2
    assert page["#tokens .begins"].inner_text().strip() == character.replace("␣", "").replace("⏎", "⏎\n").strip()


def test_attention_is_shaded_in_the_text(open_page: Open) -> None:  # noqa: F811
    page = open_page()
    page.tab("Attention")
    assert page["#panel-attention canvas"].count() == 4
    page["#panel-attention .head"].nth(2).click()
    page.tokens().nth(9).hover()
    row = analysis(page, attention=True)["attention"][1][0][9]
    shades = [
        float((token.get_attribute("style") or "").partition("--weight:")[2].rstrip("%; ") or 0)
        for token in page.tokens().all()
    ]
    assert shades[:10] == pytest.approx([100 * (weight / max(row)) ** 0.5 for weight in row[:10]], abs=1.01)
    assert set(shades[10:]) == {0}
    first = page["#panel-attention .bars li"].first.inner_text()
    assert f"token {row.index(max(row)) + 1}:" in first
    page.tab("Next token")
    assert page["#tokens .shaded"].count() == 0


def test_the_lens_ends_with_what_the_model_predicts(open_page: Open) -> None:  # noqa: F811
    page = open_page()
    page.tab("Logit lens")
    said = analysis(page, lens=True)
    rows = page["#panel-lens tbody tr"]
    assert rows.count() == 3
    top = [cell.inner_text() for cell in rows.first.locator("td").all()]
    assert top[: len(said["tokens"]) - 1] == [spelled(token["alternatives"][0]) for token in said["tokens"][1:]]
    right = [(cell.get_attribute("class") or "").startswith("right") for cell in rows.first.locator("td").all()]
    assert right[: len(said["tokens"]) - 1] == [token["rank"] == 1 for token in said["tokens"][1:]]


def test_every_tokenizer_cuts_the_text(open_page: Open) -> None:  # noqa: F811
    page = open_page()
    page.type("naïve café")
    panel = page.tab("Tokenizers")
    expected = page.server.post("/v1/tokenizations", {"text": "naïve café"})["tokenizers"]
    assert panel.locator("section").count() == len(expected) >= 2
    for section, tokenizer in zip(panel.locator("section").all(), expected, strict=True):
        if "tokens" in tokenizer:
            assert f"{len(tokenizer['tokens'])} tokens" in section.locator("h3").inner_text()
            assert section.locator(".cut span").count() == len(tokenizer["tokens"])


def test_a_passage_of_the_training_text_is_underlined(open_page: Open) -> None:  # noqa: F811
    page = open_page()
    page.type("zzz " + PASSAGE)
    underlined = page["#tokens .copied-0"]
    assert underlined.count() > 20
    panel = page.tab("Memorized")
    assert panel.locator("mark").first.inner_text().strip() in PASSAGE
    assert "in the training text from token" in panel.inner_text()


def test_two_runs_stand_side_by_side(open_page: Open) -> None:  # noqa: F811
    page = open_page("#top_k=20")
    panel = page.tab("Side by side")
    assert panel.locator("h3").all_inner_texts() == ["trained", "answering"]
    assert "expects this text better" in panel.inner_text()
    lists = panel.locator(".tokens").all()
    before = [tokens.locator("> *").count() for tokens in lists]
    page["#max-tokens"].fill("6")
    for _ in range(2):  # both times from the text
        with page.page.expect_response("**/v1/completions"):
            panel.get_by_role("button", name="Continue both").click()
        panel.get_by_role("button", name="Continue both").wait_for()
    assert [tokens.locator("> *").count() for tokens in lists] == [count + 6 for count in before]


def test_a_model_with_a_template_answers(open_page: Open) -> None:  # noqa: F811
    page = open_page("#model=answering&top_k=20")
    panel = page.tab("Chat")
    panel.get_by_label("Message", exact=True).fill("Hi <b>you</b>")
    page.page.evaluate(STOP_AT_FIRST_WORD)
    panel.get_by_label("Message", exact=True).press("Enter")
    page["#panel-chat .assistant .body:not(:empty)"].wait_for()
    panel.get_by_role("button", name="Send").wait_for()
    assert panel.locator(".user .body").inner_text() == "Hi <b>you</b>"
    assert 0 < len(panel.locator(".assistant .body").inner_text()) < LONG
    panel.get_by_label("Message", exact=True).fill("Again")
    panel.get_by_role("button", name="Send").click()
    page["#panel-chat .assistant >> nth=1"].wait_for()
    panel.get_by_role("button", name="New conversation").click()
    assert panel.locator("li").count() == 0
    page["#model"].select_option("trained")
    page.settle()
    assert page.page.get_by_role("tab", name="Chat").count() == 0


def test_the_keyboard_alone_is_enough(open_page: Open) -> None:  # noqa: F811
    page = open_page("#greedy=1&max_tokens=4")
    keys = page.page.keyboard
    page["#text"].focus()
    while page["#tokens .next:focus"].count() == 0:
        keys.press("Tab")
    keys.press("ArrowLeft")
    keys.press("ArrowLeft")
    assert page["#token-title"].inner_text() == "Token a"
    keys.press("Enter")
    assert page["#token button:focus"].count() == 1
    with page.page.expect_response("**/v1/completions"):
        keys.press("Enter")
    page.settle()
    assert page["#token button:focus"].count() == 1
    assert page.tokens().count() == len("The verdict was") - 2 + 1 + 4
    page["[role=tab][aria-selected=true]"].focus()
    keys.press("ArrowRight")
    assert page["#tab-attention"].get_attribute("aria-selected") == "true"
    page.settle()
    assert page["#panel-attention"].is_visible()
    keys.press("End")
    page.settle()
    assert page["[role=tab]:focus"].get_attribute("aria-selected") == "true"


def test_a_hostile_text_is_a_text(open_page: Open) -> None:  # noqa: F811
    page = open_page()
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202e\u200b"
    page.type(hostile)
    assert "".join(page.tokens().all_inner_texts()[: len("<script>alert(1)</script>")]) == "<script>alert(1)</script>"
    assert page["#tokens script, #tokens img"].count() == 0
    assert page.tokens().all_inner_texts()[-6:] == ["E2", "80", "U+202E", "E2", "80", "U+200B"]
    for name in ("Tokenizers", "Memorized", "Logit lens", "Attention", "Side by side"):
        assert page.tab(name).locator("script, img").count() == 0
