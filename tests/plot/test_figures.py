"""What the figures show: every baseline legible, nothing mixed that cannot be compared, the same bytes for the same input."""

import html
import json
import re
import shutil
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from lib.config.params import load_params, resolve_config
from lib.evaluate.comparison import ComparisonRow
from lib.plot.kinds import KINDS, PICTURES, Request
from lib.plot.loss_curves import Curve, loss_figure, panels_figure
from lib.plot.size_vs_loss import ladder_figure
from lib.plot.style import save_figure, spread_labels, strip_common_suffix
from lib.plot.svg import normalize_svg
from lib.report.surprisal import surprisal_level
from lib.run.metrics import StepMetrics
from stages.shared import tokens
from tests.conftest import FEW, PROJECT, Here, Stage

PLOT = resolve_config(load_params(PROJECT / "params.yaml")).plot
COUNTED = ("uniform", "unigram", "bigram", "trigram", "4-gram", "5-gram", "add-one bigram", "gzip", "xz")


@pytest.fixture(scope="module")
def run(small: Path, tmp_path_factory: pytest.TempPathFactory, stage: Stage) -> Path:
    """An evaluated run."""
    folder = tmp_path_factory.mktemp("figures") / "one-play"
    shutil.copytree(small / "run", folder)
    stage("evaluate", folder, small / "dataset", "-o", folder / "evaluation.json", *FEW)
    return folder


def curve(name: str = "run", batch: int = 100, **baselines: float) -> Curve:
    losses = [(None, 6.0), *((6 - n / 5, 6 - n / 10) for n in range(1, 9))]
    metrics = [
        StepMetrics(step=n, tokens=n * batch, train_loss=train_loss, val_loss=val_loss, lr=None, grad_norm=None)
        for n, (train_loss, val_loss) in enumerate(losses)
    ]
    return Curve(name, metrics, baselines, "words")


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


@given(st.lists(st.floats(-50, 450), min_size=1, max_size=12).map(sorted))
def test_labels_keep_their_order_their_distance_and_the_frame(wanted: list[float]) -> None:
    places = spread_labels(wanted, gap=10, low=0, high=400)
    assert all(above - below >= 10 - 1e-6 for below, above in pairwise(places))
    assert places[0] >= -1e-6
    assert places[-1] <= 400 + 1e-6
    assert spread_labels([10, 52, 54, 90], gap=10, low=0, high=100) == [10, 48, 58, 90]


def test_more_labels_than_there_is_room_for_stand_closer() -> None:
    assert spread_labels([5] * 11, gap=10, low=0, high=50) == pytest.approx([5 * n for n in range(11)])


def test_every_baseline_is_named_and_one_above_the_curves_has_an_arrow() -> None:
    baselines = {name: 4.0 + number / 50 for number, name in enumerate(COUNTED)} | {"uniform": 10.8}
    (axes,) = loss_figure([curve(**baselines)], PLOT).axes
    assert set(texts(axes)) == {f"{name} {loss:.3f}" for name, loss in baselines.items() if loss < 10} | {"↑ uniform 10.800"}
    assert axes.get_ylim()[1] < 10


def test_tokens_stand_above_where_all_runs_read_as_many_a_step_else_in_a_panel_of_their_own() -> None:
    (axes,) = loss_figure([curve("a"), curve("b")], PLOT).axes
    (above,) = axes.child_axes
    assert above.get_xlabel() == "tokens read"
    assert above.get_xlim()[1] == pytest.approx(100 * axes.get_xlim()[1])
    panels = loss_figure([curve("a"), curve("b", batch=50)], PLOT).axes
    assert [axes.get_xlabel() for axes in panels] == ["optimizer steps", "tokens read"]


def test_what_cannot_be_compared_is_said() -> None:
    told = loss_figure([curve("a", unigram=5.5, gzip=5.0), curve("b", unigram=5.6)], PLOT)
    assert "so not drawn: unigram; with --panels" in told.get_supxlabel()
    assert texts(told.axes[0]) == ["gzip 5.000"]
    mixed = loss_figure([curve("a"), replace(curve("b"), tokenizer="letters")], PLOT)
    assert "not their heights" in mixed.get_supxlabel()


def test_panels_have_the_same_axes_and_each_its_own_baselines() -> None:
    found = [curve(name, unigram=5 + number / 10) for number, name in enumerate("abcd")]
    panels = panels_figure(found, PLOT).axes
    assert [axes.get_title() for axes in panels] == ["a", "b", "c", "d"]
    assert [texts(axes) for axes in panels] == [[f"unigram 5.{number}00"] for number in range(4)]
    assert len({axes.get_ylim() for axes in panels}) == 1


def test_the_labels_of_a_panel_stand_where_the_limits_of_all_panels_put_them() -> None:
    close = {f"{number}-gram": 5 + number / 7 for number in range(5)}
    figure = panels_figure([curve("a", **close), curve("b", unigram=0.5), curve("c", **close)], PLOT)
    figure.draw_without_rendering()
    for axes in figure.axes[:3]:
        boxes = sorted((Text.get_window_extent(text) for text in axes.texts), key=lambda box: box.y0)
        assert all(below.y1 <= above.y0 for below, above in pairwise(boxes))


def test_a_dataset_that_all_share_is_said_once() -> None:
    assert strip_common_suffix(["big-play", "small-play"]) == (["big", "small"], " on play")
    assert strip_common_suffix(["gpt_balanced-my-text", "decoder-my-text"]) == (["gpt_balanced", "decoder"], " on my-text")
    for names in (["-play", "big-play"], ["big-", "small-"], ["big-play"], ["big-play", "small-novel"], ["big", "small"]):
        assert strip_common_suffix(names) == (names, "")


def test_the_ladder_has_a_panel_for_each_text() -> None:
    def row(name: str, n_tokens: int, bits: float, parameters: int | None = None) -> ComparisonRow:
        return ComparisonRow(name, "val", n_tokens, 400, "a", 2.0, None, bits, parameters)

    rows = [row("a-play", 100, 3.0, 5000), row("b-play", 100, 2.0, 90_000), row("uniform", 100, 6.0), row("c", 40, 2.5, 70)]
    first, second = ladder_figure(rows, PLOT).axes
    assert first.get_title() == "play: val split, 100 tokens, 400 bytes"
    assert sorted(texts(first)) == ["a\n3.000", "b\n2.000", "uniform 6.000"]
    assert texts(second) == ["c\n2.500"]
    low, high = second.get_xlim()
    assert high / low > 10


@pytest.mark.parametrize("words", ["loss RUN", "ladder RUN", "model RUN", "attention RUN"])
def test_the_same_input_gives_the_same_bytes_which_tell_what_it_was(words: str, run: Path, here: Here, tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        here("plot", *[str(run) if word == "RUN" else word for word in words.split()], "-o", tmp_path / name)
    content = (tmp_path / "a.svg").read_text()
    assert content == (tmp_path / "b.svg").read_text()
    manifest = json.loads((run / "manifest.json").read_text())
    found = re.search(r"<dc:description>(.*?)</dc:description>", content)
    assert found
    told = json.loads(html.unescape(found[1]))
    assert told["kind"] == words.split()[0]
    one = told["runs"][0]
    assert (one["run"], one["commit"]) == ("one-play", manifest["versions"]["commit"])
    assert one["dataset"] == {"dataset": manifest["metadata"]["dataset"]}
    assert one["files"]["model.safetensors"] == manifest["outputs"]["model.safetensors"]["sha256"]
    assert len(one["files"]["evaluation.json"]) == 64


@pytest.mark.parametrize("name", PICTURES)
def test_the_words_of_a_picture_stand_inside_it_and_apart(name: str) -> None:
    figure = KINDS[name].draw(Request(config=resolve_config(load_params(PROJECT / "params.yaml"), "smollm2")))
    figure.draw_without_rendering()
    ticks = {label for axes in figure.axes for label in (*axes.get_xticklabels(), *axes.get_yticklabels())}
    visible = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible() and text not in ticks]
    boxes = {text: text.get_window_extent() for text in visible}
    width, height = figure.bbox.size
    for text, box in boxes.items():
        assert 0 <= box.x0 < box.x1 <= width, text
        assert 0 <= box.y0 < box.y1 <= height, text
    for text, other in combinations(boxes, 2):
        assert not overlap(boxes[text], boxes[other]), f"{text} and {other}"


def overlap(box: Bbox, other: Bbox) -> bool:
    """Whether two boxes share more than a line."""
    return min(box.x1, other.x1) - max(box.x0, other.x0) > 0.5 and min(box.y1, other.y1) - max(box.y0, other.y0) > 0.5


def test_words_that_overlap_are_detected() -> None:
    figure = Figure()
    first, second = figure.text(0.5, 0.5, "first"), figure.text(0.5, 0.5, "second")
    figure.draw_without_rendering()
    assert overlap(first.get_window_extent(), second.get_window_extent())


def test_an_svg_shows_no_last_bit_of_where_things_stand(tmp_path: Path) -> None:
    contents, untouched = set(), set()
    for number, bit in enumerate((0.0, 1e-15, -1e-15)):
        figure = Figure(figsize=(4, 3))
        axes = figure.add_axes((0.1 + bit, 0.1, 0.8, 0.8))
        axes.plot([0, 1, 2], [0.1, 0.7 + bit, 0.3 - bit], marker="o")
        axes.plot([0, 2], [0.3, 0.2], marker="s")
        save_figure(figure, tmp_path / f"{number}.svg", PLOT, {})
        contents.add((tmp_path / f"{number}.svg").read_bytes())
        figure.savefig(tmp_path / "untouched.svg", metadata={"Date": None})
        untouched.update(re.findall("<clipPath id=.*?>", (tmp_path / "untouched.svg").read_text()))
    assert len(contents) == 1
    assert len(untouched) == 3, "matplotlib alone shows them"


def test_settling_an_svg_changes_places_and_ids_alone() -> None:
    text = (
        '<svg width="576pt"><!-- x="0.123456" --><path id="m0123456789" d="M 1.23456 -0.00001 L 12 -0 "/>\n'
        '<g clip-path="url(#pabcdefabcd)" transform="translate(0.0005 2.5) scale(0.015625)"><use href="#m0123456789"/></g>'
        '<text style="font: 8.12345px">y="7.654321" #m0123456789</text><clipPath id="pabcdefabcd"/></svg>'
    )
    assert normalize_svg(text) == (
        '<svg width="576pt"><!-- x="0.123456" --><path id="m-1" d="M 1.235 0 L 12 0 "/>\n'
        '<g clip-path="url(#p-2)" transform="translate(0.001 2.5) scale(0.015625)"><use href="#m-1"/></g>'
        '<text style="font: 8.12345px">y="7.654321" #m0123456789</text><clipPath id="p-2"/></svg>'
    )


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_run_whose_name_is_no_unicode_is_drawn(small: Path, here: Here, tmp_path: Path, ending: str) -> None:
    shutil.copytree(small / "run", odd := tmp_path / "caf\udce9-play")
    here("plot", "loss", odd, "-o", tmp_path / f"figure.{ending}")
    assert b"caf\\udce9-play" in (tmp_path / f"figure.{ending}").read_bytes()


HOSTILE = "<script>alert('1')</script> &amp; \"naïve\" 中\x1b[31m\u202e\x00\r\n\t</pre>"


@pytest.fixture(scope="module")
def page_of(run: Path, tmp_path_factory: pytest.TempPathFactory, stage: Stage) -> str:
    folder = tmp_path_factory.mktemp("page")
    stage("plot", "tokens", run, "--prompt", HOSTILE.replace("\x00", ""), "-o", folder / "page.html")
    return (folder / "page.html").read_text()


def test_a_page_of_tokens_holds_the_text_and_nothing_that_acts(page_of: str) -> None:
    body = page_of[page_of.index("<pre>") :]
    assert "<script" not in page_of
    assert body.count("</pre>") == 1
    shown = html.unescape(re.sub(r"<[^>]*>", "", body)).strip("\n")
    marked = {"\x00": "", "\x1b": "⟨U+001B⟩", "\u202e": "⟨U+202E⟩", "\r": "⟨U+000D⟩", "\n": "⏎\n", "\t": "⇥\t"}
    assert shown == HOSTILE.translate({ord(sign): mark for sign, mark in marked.items()})
    assert not set(page_of) & {"\x1b", "\u202e", "\r", "\x00"}


def test_tokens_of_one_character_are_shown_together_and_each_is_told_of(page_of: str) -> None:
    found = re.search(r'<span class="s\d" title="([^"]*)">中</span>', page_of)
    assert found
    head, *lines = html.unescape(found[1]).split("\n")
    assert re.fullmatch(r"3 tokens, together \d+\.\d\d nats", head)
    assert [line.startswith('"\\\\x') for line in lines] == [True, False] * 3
    assert re.fullmatch(r'"\\\\xe4": \d+\.\d\d nats, \d+\.\d\d%, rank \d+', lines[0])
    assert lines[1].startswith("most likely: ")
    total = sum(float(re.search(r"(\d+\.\d\d) nats", line)[1]) for line in lines[::2])  # type: ignore[index]
    assert total == pytest.approx(float(head.split()[3]), abs=0.02)


def test_the_page_and_the_evaluation_find_the_same_loss(run: Path, here: Here, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("to be, or not to be: that is the question")
    here("plot", "tokens", run, "--text", tmp_path / "text", "-o", tmp_path / "page.html")
    loss = json.loads(here("evaluate", run, "--text", tmp_path / "text").out)["loss"]
    assert f"40 tokens, {loss:.3f} nats/token" in (tmp_path / "page.html").read_text()


def test_without_colours_each_token_has_a_line(run: Path, here: Here) -> None:
    head, *lines = here("plot", "tokens", run, "--prompt", "to be").out.splitlines()
    assert head == tokens.HEAD
    assert [line.split()[0] for line in lines[:1]] == ['"o"']
    assert len(lines) == 4


def test_a_coloured_passage_ends_at_the_end_of_its_line() -> None:
    assert tokens.passage("be\n", 0) == "\x1b[0m".join(["be", "\n"])
    assert tokens.passage("be\nor", 3).count("\x1b[0m") == 2
    assert "\x1b[0m\n\x1b[" in tokens.passage("be\nor", 3)


@pytest.mark.parametrize(("nats", "level"), [(0.0, 0), (0.69, 0), (0.7, 1), (2.0, 2), (4.0, 3), (5.0, 4), (7.0, 5), (99.0, 5)])
def test_the_levels_of_surprisal(nats: float, level: int) -> None:
    assert surprisal_level(nats) == level


def test_rows_that_stand_for_no_text_are_named(run: Path, monkeypatch: pytest.MonkeyPatch, here: Here, tmp_path: Path) -> None:
    monkeypatch.setattr(
        "lib.plot.size_vs_loss.comparison_rows", lambda _: [ComparisonRow("odd", "val", 3, 0, "a", 1.0, None, None, 5)]
    )
    assert "stand for no text" in here("plot", "ladder", run, "-o", tmp_path / "a.svg", code=1).err
