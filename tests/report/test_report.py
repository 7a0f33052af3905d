"""The report: one complete page about a run, whatever the run is called and whatever it wrote."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

from lib.artifact.io import read_json, sha256_of, write_json, write_text
from lib.artifact.manifest import MANIFEST, write_manifest
from lib.errors import MakegptError
from lib.report import page
from lib.report.html import escape_html, render_macro, visible_text
from lib.report.page import report_page
from lib.report.run_data import MAX_LINES, thin_lines
from lib.run.folder import CONFIG_FILE, EVALUATION_FILE, IMPORT_STAGE, MODEL_FILE, SAMPLE_FILE, finished_manifest
from lib.run.metrics import METRICS_FILE
from lib.run.samples import SAMPLES_FILE, read_samples
from tests.conftest import Here

NASTY = "</script><script>alert(1)</script> & \"quoted\" 'x' \x00\x07\x1b[31m\r\u202eback\u2066\u200b \ud800 \ufffe $x$ <!-- "


def scores(loss: float, **more: Any) -> dict[str, Any]:
    return {"loss": loss, "perplexity": 2.718281828**loss, "bits_per_byte": loss / 0.6931 / 3.2, **more}


def lead(loss: float, significant: bool) -> dict[str, Any]:
    return {"loss": loss, "standard_error": 0.02, "blocks": 41, "significant": significant}


def evaluation(folder: Path, loss: float = 3.0) -> dict[str, Any]:
    """One of the run in `folder`, with everything in it."""
    errors = {"loss": 0.02, "perplexity": 1.5, "bits_per_byte": 0.009, "top_1": 0.004, "top_5": 0.005}
    copied = {
        "tokens": 2000,
        "longest_run": 7,
        "novel_fraction": {"4": 0.93, "8": 0.998, "16": 1.0},
        "passage": "to be, or\nnot",
    }
    return {
        "split": "val", "tokens": 5360, "bytes": 17471, "text_sha256": "0" * 64, "blocks": 41, **scores(loss),
        "top_1": 0.213, "top_5": 0.405,
        "standard_error": errors,
        "model_sha256": sha256_of(folder / MODEL_FILE), "weights": {"saved": "published", "format": "float32"},
        "loss_by_position": [
            {"from": 1, "to": 1, "loss": 6.1}, {"from": 2, "to": 2, "loss": 5.0},
            {"from": 3, "to": 4, "loss": 4.0}, {"from": 5, "to": 8, "loss": 3.2},
        ],
        "sliding": {"stride": 128, **scores(loss - 0.1), "standard_error": errors},
        "baselines": {
            "uniform": scores(5.545),
            "bigram": scores(loss - 0.5, lead=lead(0.5, True)),
            "trigram": scores(loss + 0.01, lead=lead(-0.01, False)),
            "gzip": scores(loss + 1.0),
        },
        "memorization": {
            "samples": copied, "continuations": copied | {"longest_run": 20}, "validation": copied | {"passage": ""},
        },
        "dataset": "1" * 64,
    }  # fmt: skip


@pytest.fixture(scope="session")
def complete(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything that a report can show."""
    folder = tmp_path_factory.mktemp("complete")
    shutil.copytree(small, folder / "small")
    run = folder / "small" / "run"
    write_json(run / EVALUATION_FILE, evaluation(run))
    (run / SAMPLE_FILE).write_text("\n  To be, or not to be,\nthat is\n", encoding="utf-8")
    return run


@pytest.fixture(scope="session")
def hostile(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, with a name and texts that would break a page."""
    shutil.copytree(small, folder := tmp_path_factory.mktemp("hostile") / "small")
    run = folder / 'run <img src=x onerror=alert(1)> "&\u202e$'
    (folder / "run").rename(run)
    lines = [json.loads(line) | {"text": NASTY * 3, "prompt": NASTY} for line in (run / SAMPLES_FILE).read_text().splitlines()]
    (run / SAMPLES_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / SAMPLE_FILE).write_bytes(NASTY.encode("utf-8", "surrogatepass") + b"\xff\xfe" + b"x" * 3000)
    results = evaluation(run)
    results["baselines"][NASTY] = scores(9.0)
    results["memorization"]["samples"]["passage"] = NASTY
    write_text(run / EVALUATION_FILE, json.dumps(results))
    manifest = json.loads((run / MANIFEST).read_text())
    manifest["command"] = NASTY
    manifest["metadata"][NASTY] = NASTY
    write_text(run / MANIFEST, json.dumps(manifest))
    return run


VOID = {"meta", "link", "img", "br"}


class Outline(HTMLParser):
    """A page as its tags have it; every tag must be closed, in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert len(attrs) == len(dict(attrs)), attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, *names: str) -> list[tuple[str, dict[str, str | None]]]:
        return [(tag, attributes) for tag, attributes in self.tags if tag in names]


@pytest.fixture(scope="module")
def pages(complete: Path, hostile: Path) -> dict[str, str]:
    return {"one": report_page([complete]), "hostile": report_page([hostile]), "several": report_page([complete, hostile])}


@pytest.mark.parametrize("name", ["one", "hostile", "several"])
def test_a_page_is_whole_and_needs_nothing_but_itself(pages: dict[str, str], name: str) -> None:
    outline = Outline(pages[name])
    assert pages[name].startswith('<!DOCTYPE html>\n<html lang="en">\n')
    assert outline.named("script", "img", "iframe", "object", "form") == []
    for tag, attributes in outline.tags:
        assert not [key for key in attributes if key.startswith("on")], tag
        for key in ("src", "href"):
            assert (attributes.get(key) or "#").startswith(("#", "data:,")), attributes
    assert not re.search(r"url\((?!#)|@import", pages[name])
    assert "default-src 'none'" in dict(outline.named("meta")[2][1])["content"]  # type: ignore[operator]


@pytest.mark.parametrize("name", ["one", "hostile", "several"])
def test_headings_stand_in_order_ids_are_unique_and_links_lead_somewhere(pages: dict[str, str], name: str) -> None:
    outline = Outline(pages[name])
    levels = [int(tag[1]) for tag, _ in outline.named("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {str(a["href"])[1:] for _, a in outline.tags if str(a.get("href", "")).startswith("#")}
    targets |= {str(a["aria-labelledby"]) for _, a in outline.tags if "aria-labelledby" in a}
    targets |= set(re.findall(r"url\(#([^)]+)\)", pages[name]))
    assert targets <= set(ids)
    assert all(attributes["scope"] in ("col", "row") for _, attributes in outline.named("th"))
    assert all(attributes["aria-label"] for _, attributes in outline.named("svg"))
    assert len(outline.named("caption")) == len(outline.named("table"))


def test_every_number_of_the_evaluation_is_shown(pages: dict[str, str], complete: Path) -> None:
    text = " ".join(Outline(pages["one"]).text.split())
    for words in (
        "42,688", "3.000 ± 0.020", "Top-1 accuracy is 21.3 ± 0.4 %",
        "top-5 accuracy 40.5 ± 0.5 %",
        "−0.500 ± 0.020", "+0.010 ± 0.020 (n.s.)", "+1.000", "sliding window, stride 128",
        "bigram (counts)", "6.100 nats/token at 1, 3.200 at 5 to 8",
        "93.0 %", "99.8 %", "to be, or not", "play.txt", "train.learning_rate",
    ):  # fmt: skip
        assert words in text, words
    sources = read_json(complete.parent / "tokens" / MANIFEST)["inputs"]
    assert next(iter(sources.values()))["sha256"] in text
    for sample in read_samples(complete):
        assert f"Step {sample.step}, {sample.tokens:,} tokens" in text


def test_no_text_of_a_run_becomes_markup_or_hides(pages: dict[str, str]) -> None:
    for name in ("hostile", "several"):
        assert "<script" not in pages[name]
        assert "<img" not in pages[name]
        assert "&lt;/script&gt;&lt;script&gt;alert(1)" in pages[name]
        for character in "\x00\x07\x1b\r\u202e\u2066\u200b\ufffe":
            assert character not in pages[name]
        pages[name].encode("utf-8")
    assert "⟨U+202E⟩back⟨U+2066⟩" in pages["hostile"]
    assert "⟨U+D800⟩" in pages["hostile"]


@pytest.mark.parametrize("name", ["one", "several"])
def test_the_same_runs_give_the_same_bytes(pages: dict[str, str], complete: Path, hostile: Path, name: str) -> None:
    assert report_page([complete] if name == "one" else [complete, hostile]) == pages[name]


def test_a_run_with_nothing_but_weights_tells_what_to_run(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small / "run", tmp_path / "my run")
    for name in (SAMPLES_FILE, METRICS_FILE):
        (tmp_path / "my run" / name).unlink()
    text = Outline(report_page([tmp_path / "my run"])).text
    assert text.count(f"evaluate '{tmp_path}/my run' -o '{tmp_path}/my run/evaluation.json'") == 3
    assert "--resume never" in text
    assert f"generate '{tmp_path}/my run' -o" in text
    assert "an artifact that is no longer there" in text


@pytest.mark.parametrize(("interval", "more"), [(0, " --set train.sample_interval=30"), (None, ""), (30, "")])
def test_the_command_that_makes_samples_can_be_pasted(small: Path, tmp_path: Path, interval: int | None, more: str) -> None:
    shutil.copytree(small / "run", tmp_path / "run")
    (tmp_path / "run" / SAMPLES_FILE).unlink()
    manifest = finished_manifest(small / "run")
    manifest.parameters["train"]["sample_interval"] = interval
    write_manifest(tmp_path / "run", replace(manifest, command="train 'my data' -o 'my run' --config debug"))
    text = Outline(report_page([tmp_path / "run"])).text
    assert f"To keep some, run train 'my data' -o 'my run' --config debug{more} --resume never\n" in text


def test_runs_of_different_tokens_are_not_compared_by_the_heights_of_their_curves(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small / "run", tmp_path / "run")
    manifest = finished_manifest(small / "run")
    write_manifest(tmp_path / "run", replace(manifest, metadata=manifest.metadata | {"tokenizer": "0" * 64}))
    assert "compare the shapes of the curves, not their heights" in report_page([small / "run", tmp_path / "run"])
    assert "not their heights" not in report_page([small / "run", small / "run"])


def test_an_imported_run_has_a_page(small: Path, tmp_path: Path) -> None:
    (tmp_path / "imported").mkdir()
    for name in (MODEL_FILE, CONFIG_FILE, "tokenizer.json"):
        shutil.copy(small / "run" / name, tmp_path / "imported")
    manifest = finished_manifest(small / "run")
    metadata = {key: manifest.metadata[key] for key in ("parameters", "tokenizer")}
    imported = replace(manifest, stage=IMPORT_STAGE, inputs={}, metadata=metadata, sessions=())
    write_manifest(tmp_path / "imported", imported)
    text = Outline(report_page([tmp_path / "imported"])).text
    assert "imported, not trained here" in text
    assert "there are no losses of a training" in text
    assert f"evaluate {tmp_path}/imported DATASET -o" in text


def test_runs_that_were_not_evaluated_stand_beside_those_that_were(small: Path, complete: Path) -> None:
    text = " ".join(Outline(report_page([small / "run", complete])).text.split())
    assert "Not evaluated yet: run." in text
    assert "val split, 5,360 tokens; the best first" in text
    assert "Validation loss by step; the stars mark the best steps." in text


def test_an_evaluation_that_does_not_say_which_text_it_is_about_is_to_be_made_again(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small / "run", tmp_path / "run")
    older = {key: value for key, value in evaluation(tmp_path / "run").items() if key != "text_sha256"}
    write_json(tmp_path / "run" / EVALUATION_FILE, older)
    with pytest.raises(MakegptError, match="does not say which text it is about; run `evaluate "):
        report_page([tmp_path / "run"])


@pytest.mark.parametrize(
    ("damage", "place"),
    [
        ({"loss": "low"}, "loss"),
        ({"loss_by_position": [3]}, r"loss_by_position\.0"),
        ({"memorization": {"samples": {"tokens": 3}}}, r"memorization\.samples\.longest_run"),
        ({"sliding": {"stride": "x"}}, r"sliding\.loss"),
        ({"standard_error": 3}, "standard_error"),
        ({"baselines": {"xz": scores(2.0, lead={"standard_error": None})}}, r"baselines\.xz\.lead\.loss"),
    ],
)
def test_a_damaged_evaluation_is_named(complete: Path, tmp_path: Path, damage: dict[str, Any], place: str) -> None:
    shutil.copytree(complete, tmp_path / "run")
    write_json(tmp_path / "run" / EVALUATION_FILE, evaluation(tmp_path / "run") | damage)
    with pytest.raises(
        MakegptError, match=rf"evaluation\.json is damaged: {place} (must be|is missing).*; run `evaluate .* again"
    ):
        report_page([tmp_path / "run"])


METRICS = {"step": 0, "tokens": 0, **dict.fromkeys(("train_loss", "val_loss", "lr", "grad_norm"))}


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        (
            MANIFEST,
            {"parameters": {"train": {}}},
            r"manifest\.json is damaged: parameters\.train\.max_steps is missing; train the run again",
        ),
        (
            METRICS_FILE,
            METRICS | {"val_loss": "low"},
            r"metrics\.jsonl is damaged: line 1: val_loss must be a number; train the",
        ),
        (METRICS_FILE, METRICS, r"metrics\.jsonl is damaged: no line has a val_loss; train the run again"),
        (METRICS_FILE, [], r"metrics\.jsonl is damaged: line 1: must be an object; train the run again"),
    ],
)
def test_another_damaged_file_is_named(small: Path, tmp_path: Path, file: str, content: Any, complaint: str) -> None:
    shutil.copytree(small / "run", tmp_path / "run")
    before = read_json(tmp_path / "run" / file) if file == MANIFEST else {}
    write_text(tmp_path / "run" / file, json.dumps(before | content if before else content) + "\n")
    with pytest.raises(MakegptError, match=complaint):
        report_page([tmp_path / "run"])


def test_a_defect_of_our_own_is_not_taken_for_a_damaged_file(
    complete: Path, monkeypatch: pytest.MonkeyPatch, here: Here
) -> None:
    def broken(_: Any) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(page, "SECTIONS", (("broken", "Broken", broken),))
    assert "this is a bug in makegpt: KeyError: 'ours'" in here("report", complete, "-o", "-", code=1).err


def test_many_samples_are_thinned_out_the_first_and_the_last_stay() -> None:
    lines = [{"step": step} for step in range(1000)]
    shown = [line["step"] for line in thin_lines(lines)]
    assert (len(shown), shown[0], shown[-1]) == (MAX_LINES, 0, 999)
    assert len(set(shown)) == MAX_LINES
    assert thin_lines(lines[:3]) == lines[:3]


def test_the_command_writes_a_file_or_stdout(complete: Path, tmp_path: Path, here: Here) -> None:
    written = here("report", complete, "-o", "-")
    assert here("report", complete, "-o", tmp_path / "page.html").out == ""
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == written.out == report_page([complete])
    assert "holds tokens, not a run" in here("report", complete.parent / "tokens", "-o", "-", code=1).err
    assert "does not exist" in here("report", tmp_path / "nothing", "-o", "-", code=1).err
    here("report", "-o", "-", code=2)


def test_text_is_escaped_and_markup_is_not() -> None:
    assert escape_html("<b>") == "&lt;b&gt;"
    assert escape_html(Markup("<b>")) == "<b>"
    assert escape_html(3) == "3"
    assert render_macro("sections.html", "text", "\nx").strip() == '<pre dir="auto">\n\nx</pre>'
    assert '<pre dir="auto">\n<b>&lt;</b>&amp;\u27e8U+202E\u27e9</pre>' in render_macro("sections.html", "text", "&\u202e", "<")
    table = render_macro("sections.html", "table", '"&\u202e', ("", "n"), [("x", "1"), ("y", "<")], marked=["y"])
    assert '<th scope="row">x</th><td>1</td>' in table
    assert '<tr class="marked"><th scope="row">y</th><td>&lt;</td>' in table
    assert 'aria-label="&#34;&amp;⟨U+202E⟩"' in table


@pytest.mark.parametrize("text", ["plain\n\ttext", "naïve — “café” 中文 עברית العربية", "👩\u200d💻", "ne\u0301e"])
def test_what_can_be_seen_stays_as_it_is(text: str) -> None:
    assert visible_text(text) == text


def test_a_baseline_has_its_loss_minus_the_models(copied: Path, here: Here) -> None:
    folder = copied / "run"
    write_json(folder / "evaluation.json", evaluation(folder))
    here("report", folder, "-o", folder / "report.html")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "−0.500 ± 0.020<" in page
    assert "+0.010 ± 0.020 (n.s.)<" in page
    assert "+1.000 (too short to tell)<" in page or "+1.000 ± " in page
