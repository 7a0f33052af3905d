"""The published numbers: each row that takes seconds passes, and a wrong value or formula fails."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import pytest
import torch
from torch.nn import functional as F

from lib.errors import UsageError
from lib.model import feed_forward
from lib.model.attention import MultiHeadAttention
from lib.model.gpt import GPT
from lib.reproduce.checks import CHECKS, CheckContext
from lib.reproduce.outcomes import FAIL, NOT_CHECKED, PASS, Outcome, format_value, measure_references
from lib.reproduce.references import Reference, Value, load_references
from tests.conftest import PROJECT, TEXT, Here

ROWS = load_references(CHECKS)
RUN_CHECKS = ("best_loss", "lowest_and_last_loss", "greedy")
QUICK = [row for row in ROWS.values() if row.check and row.check not in RUN_CHECKS]
TOKEN_CHECKS = ("ids", "end_of_text", "tokens_of_parts", "tokens", "first_window")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> CheckContext:
    return CheckContext(tmp_path_factory.mktemp("scratch"))


def outcome(row: Reference, context: CheckContext) -> Outcome:
    return next(measure_references([row], context))


def wrong(value: Value, tolerance: float, sign: int) -> Value:
    """Another value, just beyond the tolerance."""
    return f"{value}x" if isinstance(value, str) else value + sign * (1.01 * tolerance or 1)


@pytest.mark.parametrize("row", QUICK, ids=lambda row: row.name)
def test_a_published_value_passes_and_any_other_fails(
    row: Reference, context: CheckContext, fetched: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    if row.check in TOKEN_CHECKS or row.arguments.get("tokenizer") == "gpt2":
        fetched("gpt2")
    if row.check not in ("ids", "end_of_text") and "text" in row.arguments:
        fetched(row.arguments["text"])
    monkeypatch.chdir(PROJECT)
    result = outcome(row, context)
    assert result.result == PASS, result.measured
    assert result.measured is not None
    for index, value in enumerate(result.measured):
        for sign in (-1, 1):
            other = (*result.measured[:index], wrong(value, row.tolerance, sign), *result.measured[index + 1 :])
            assert replace(result, reference=replace(row, expected=other)).result == FAIL
    assert replace(result, measured=result.measured[:-1]).result == FAIL


def broken_gelu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_forward, "gelu", F.gelu)  # the exact one, not the tanh form


def broken_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    unscaled = lambda q, k, mask: torch.softmax((q @ k.mT).masked_fill(mask, -math.inf), dim=-1)  # noqa: E731
    monkeypatch.setattr("lib.model.attention.attention_weights", unscaled)


def broken_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MultiHeadAttention, "_mask", lambda self, q, k, others: torch.zeros_like(self.mask))


def broken_init(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GPT, "init_std", lambda self, name, weight: 0.02)


def broken_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GPT, "init_std", lambda self, name, weight: 1.0)


@pytest.mark.parametrize(
    ("name", "break_formula"),
    [
        ("gelu", broken_gelu),
        ("attention", broken_attention),
        ("attention", broken_mask),
        ("residual-init", broken_init),
        ("first-loss-65", broken_head),
    ],
)
def test_a_formula_that_is_not_the_published_one_fails(
    name: str, break_formula: Callable[[pytest.MonkeyPatch], None], context: CheckContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_formula(monkeypatch)
    assert outcome(ROWS[name], context).result == FAIL


def test_nan_agrees_with_nothing() -> None:
    assert not ROWS["gelu"].agrees((math.nan,))


# Rows about runs.


@pytest.fixture
def trained(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CheckContext:
    """A CheckContext with the small run, and a params.yaml with its config as `tiny`."""
    config = "  tiny:\n    extends: debug\n    train:\n      max_steps: 12\n      eval_interval: 4\n      batch_size: 4\n"
    config += "    build-dataset:\n      val_fraction: 0.2\n"
    text = (PROJECT / "params.yaml").read_text(encoding="utf-8").replace("configs:\n", f"configs:\n{config}", 1)
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "play.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "tiny-play").symlink_to(small / "run")
    (tmp_path / "runs" / "debug-play").symlink_to(small / "run")
    monkeypatch.chdir(tmp_path)
    return CheckContext(tmp_path / "scratch", tmp_path / "runs")


def row(check: str, expected: tuple[Value, ...], **arguments: Any) -> Reference:
    return replace(ROWS["char-recipe"], check=check, expected=expected, tolerance=1e-9, arguments=arguments)


def test_a_trainings_losses_are_those_of_its_metrics(trained: CheckContext, small: Path) -> None:
    lines = map(json.loads, (small / "run" / "metrics.jsonl").read_text().splitlines())
    losses = [line["val_loss"] for line in lines if line["val_loss"] is not None]
    best = row("best_loss", (min(losses[1:]),), config="tiny", text="play")
    assert outcome(best, trained).result == PASS
    assert outcome(replace(best, expected=(min(losses) + 0.01,)), trained).result == FAIL
    both = row("lowest_and_last_loss", (min(losses), losses[-1]), config="tiny", text="play")
    assert outcome(both, trained).result == PASS


@pytest.mark.parametrize(
    ("config", "message"), [("debug", "with other parameters"), ("decoder", "is missing; train it with `make")]
)
def test_a_missing_run_or_one_with_other_parameters_is_not_measured(config: str, message: str, trained: CheckContext) -> None:
    result = outcome(row("best_loss", (1.0,), config=config, text="play"), trained)
    assert result.result == NOT_CHECKED
    assert message in str(result.reason)


def test_a_run_of_another_text_is_not_measured(trained: CheckContext, tmp_path: Path) -> None:
    (tmp_path / "data" / "play.txt").write_text(TEXT + "Exeunt.", encoding="utf-8")
    result = outcome(row("best_loss", (1.0,), config="tiny", text="play"), trained)
    assert (result.result, "(another dataset)" in str(result.reason)) == (NOT_CHECKED, True)


def test_a_greedy_text_is_that_of_generate(trained: CheckContext, here: Here) -> None:
    text = here("generate", trained.runs / "tiny-play", "to be", "--temperature", 0, "--max-new-tokens", 9).out
    greedy = row("greedy", (text.removesuffix("\n"),), model="tiny-play", prompt="to be", tokens=9)
    assert outcome(greedy, trained).result == PASS
    assert outcome(replace(greedy, expected=("or not",)), trained).result == FAIL
    assert outcome(replace(greedy, arguments=greedy.arguments | {"model": "none"}), trained).result == NOT_CHECKED


# The command.


def test_reproduce_shows_a_table_and_what_was_not_checked(here: Here) -> None:
    head, *lines = here("reproduce", "parameters-small", "gelu", "depth-and-width").out.splitlines()
    assert head.split() == ["row", "expected", "measured", "tolerance", "source"]
    assert lines[0].split()[:5] == ["pass", "parameters-small", "124,439,808", "124,439,808", "exact"]
    assert lines[1].split()[:3] == ["pass", "gelu", "0"]
    assert lines[2:4] == ["", "not checked:"]
    assert lines[4].startswith("  depth-and-width  neither data nor steps")


def test_reproduce_gives_json_with_every_digit(here: Here) -> None:
    lines = here("reproduce", "residual-init", "char-recipe-large", "--json").out.splitlines()
    first, second = map(json.loads, lines)
    assert first["measures"].startswith("init std")
    assert first["measured"] == pytest.approx(first["expected"], abs=first["tolerance"])
    assert first["measured"] != first["expected"]
    assert (first["result"], first["reason"]) == ("pass", None)
    assert (second["result"], second["measured"]) == ("not checked", None)


WRONG = """
right: {measures: a, expected: 124439808, source: s, check: parameters, with: {config: gpt2_small}}
wrong: {measures: a, expected: 124439809, source: s, check: parameters, with: {config: gpt2_small}}
"""


def test_reproduce_fails_if_a_row_fails(here: Here, tmp_path: Path) -> None:
    (tmp_path / "rows.yaml").write_text(WRONG)
    result = here("reproduce", "--references", tmp_path / "rows.yaml", code=1)
    assert [line.split()[:2] for line in result.out.splitlines()[1:]] == [["pass", "right"], ["FAIL", "wrong"]]
    assert result.err == "reproduce: error: 1 of 2 checks failed: wrong\n"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{measures: a, source: s, check: gelu_error}", "expected is missing"),
        ("{measures: a, expected: 1, source: s}", "give either check or not_checked"),
        ("{measures: a, expected: 1, source: s, check: gelu_error, not_checked: b}", "give either"),
        ("{measures: a, expected: 1, source: s, check: gelu_eror}", "did you mean 'gelu_error'"),
        ("{measures: a, expected: 1, source: s, check: gelu_error, tolerence: 1}", "did you mean 'tolerance'"),
        ("{measures: a, expected: 1, source: s, check: gelu_error, tolerance: nan}", "tolerance=nan must be 0 or more"),
        ("{measures: a, expected: 1, source: s, check: gelu_error, tolerance: -1}", "must be 0 or more"),
        ("{measures: a, expected: 1, source: s, check: gelu_error, with: {x: 1}}", "gelu_error: unknown argument 'x'"),
        ("{measures: a, expected: 1, source: s, check: best_loss, with: {text: x}}", "best_loss: argument 'config' is missing"),
        ("{measures: a, expected: 1, source: s, check: words, with: {text: [x]}}", "text=['x'] is not a text"),
        ("{measures: a, expected: 1, source: s, check: first_loss, with: {config: c, vocabulary: v}}", "is not a whole number"),
        ("{measures: a, expected: {x: 1}, source: s, check: gelu_error}", "expected must be a number"),
        ("{measures: a, expected: 1, source: [s], check: gelu_error}", "source must be"),
        ("text", "must be a row"),
    ],
)
def test_an_invalid_row_is_refused(row: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "rows.yaml").write_text(f"name: {row}\n")
    with pytest.raises(UsageError, match=f"name.*{re.escape(message)}"):
        load_references(CHECKS, tmp_path / "rows.yaml")


def test_a_missing_text_is_reported(context: CheckContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "lib.data.downloads.params_candidates", lambda name: [Path(name)] * 2
    )  # the project's own data/ may have it
    result = outcome(ROWS["verdict-words"], CheckContext(tmp_path))
    assert result.reason == "data/the_verdict.txt is missing; get it with `fetch the_verdict`"


# The documentation of the rows.


@pytest.mark.parametrize("row", [row for row in ROWS.values() if row.check], ids=lambda row: row.name)
def test_every_source_of_a_row_is_in_the_bibliography(row: Reference) -> None:
    bibliography = (PROJECT / "docs" / "bibliography.md").read_text(encoding="utf-8")
    cited = re.match(r"([A-Z]\w+)(?: et al\.| and [A-Z]\w+)? \((\d{4})\)", row.source)
    assert cited is not None
    assert re.search(rf"^- {cited[1]}.*\b{cited[2]}\b", bibliography, re.MULTILINE)


def test_the_page_shows_every_row() -> None:
    page = (PROJECT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"## Measured\n\n```\n(.*?)```", page, re.DOTALL)
    measured, not_checked = table.split("\nnot checked:\n")
    _, *lines = measured.splitlines()
    names = [line.split()[1] for line in lines if line] + [line.split()[0] for line in not_checked.splitlines()]
    assert sorted(names) == sorted(ROWS)
    for line in filter(None, lines):
        row = ROWS[line.split()[1]]
        assert line.startswith(f"{PASS}  {row.name}")
        assert f"  {format_value(row.expected, row)} " in line
        assert line.endswith(f"  {row.source}")


def test_every_check_is_used() -> None:
    assert {row.check for row in ROWS.values()} - {None} == set(CHECKS)
