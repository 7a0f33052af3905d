"""The course, the quiz, the lectures, the notebooks and the lab: their numbers are computed, their commands run."""

import importlib
import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.chat import RESULTS as CHAT
from bench.chat import chat_table
from bench.classes import RESULTS as CLASSES
from bench.classes import classes_table
from bench.exports import RESULTS as EXPORTS
from bench.exports import sizes_table
from bench.lora import lora_table
from bench.lstm import RESULTS as LSTM
from bench.lstm import lstm_table
from bench.preferences import RESULTS as PREFERENCES
from bench.preferences import preferences_table
from bench.rewards import RESULTS as REWARDS
from bench.rewards import rewards_table
from docs.notebooks import LAB, notebook
from lib.book import Page, code_blocks, find_page, list_pages, run_page, with_sources
from lib.exercises.catalog import EXERCISES
from tests.compare import assert_same_numbers
from tests.conftest import PROJECT, Stage

DOCS = PROJECT / "docs"
SYLLABUS, QUIZ, ANSWERS, GRADING = (
    (DOCS / "teaching" / f"{name}.md").read_text(encoding="utf-8") for name in ("syllabus", "quiz", "quiz_answers", "grading")
)
LECTURES = [Page(path.stem, path.stem, "", path) for path in sorted((DOCS / "slides").glob("*.md"))]
WEEKS = re.findall(
    r"^\| (\d+) \| .* \| \[(\w+)\]\(\.\./slides/\w+\.md\) \| (.*) \((\d)\) \| (.*) \| (\d+) \|$", SYLLABUS, re.MULTILINE
)


def name_of(page: Page) -> str:
    return page.name


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


# ── the course ──


def test_the_course_has_twelve_weeks_and_each_exercise_and_page_once() -> None:
    assert [int(number) for number, *_ in WEEKS] == list(range(1, 13))
    handed_in = [name for *_, names, _ in WEEKS for name in re.findall(r"`(\w+)`", names)]
    further = re.search(r"^For those who want more: (.*)$", SYLLABUS, re.MULTILINE)
    assert further
    assert sorted([*handed_in, *re.findall(r"`(\w+)`", further[1])]) == sorted(EXERCISES)
    pages = [page for _, _, links, *_ in WEEKS for page in re.findall(r"\(\.\./(\w+)\.md\)", links)]
    assert not [page for page, times in Counter(pages).items() if times > 1]
    assert {*pages, *re.findall(r"\(\.\./(\w+)\.md\)", further[1])} == {page.name for page in list_pages()}


def test_the_points_of_the_course_are_those_of_its_checks() -> None:
    points = {
        number: sum(len(EXERCISES[name].checks) for name in re.findall(r"`(\w+)`", names)) for number, *_, names, _ in WEEKS
    }
    assert points == {number: int(shown) for number, *_, shown in WEEKS}
    total = sum(points.values())
    assert f"Together {total} points." in SYLLABUS
    assert f"points over {total}" in SYLLABUS
    assert f"({sum(len(e.checks) for e in EXERCISES.values()) - total} points)" in SYLLABUS
    changes = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"{len(EXERCISES)} exercises in code, {sum(len(e.checks) for e in EXERCISES.values())} checks" in changes


def test_a_hand_in_comes_in_a_week_that_reads_its_page() -> None:
    for _, _, links, _, names, _ in WEEKS:
        for name in re.findall(r"`(\w+)`", names):
            assert f"(../{EXERCISES[name].page}.md)" in links


def test_every_lecture_is_held() -> None:
    assert {lecture for _, lecture, *_ in WEEKS} == {page.name for page in LECTURES}
    assert len(LECTURES) >= 6


def test_the_quiz_has_sixty_questions_with_four_options_and_an_answer_each() -> None:
    questions, answers = QUIZ, ANSWERS
    assert [int(n) for n in re.findall(r"^(\d+)\. ", questions, re.MULTILINE)] == list(range(1, 61))
    assert len(re.findall(r"^## Week \d+: ", questions, re.MULTILINE)) == 12
    blocks = re.split(r"^\d+\. ", questions, flags=re.MULTILINE)[1:]
    options = [dict(re.findall(r"^ +- ([a-d])\) (.*)$", block, re.MULTILINE)) for block in blocks]
    assert all(len(set(four.values())) == 4 for four in options)
    right = re.findall(r"^\d+\. \*\*([a-d])\*\* (.*)$", answers, re.MULTILINE)
    assert len(right) == 60
    for four, (letter, answer) in zip(options, right, strict=True):
        assert answer.startswith(four[letter].rstrip("?"))
    assert min(Counter(letter for letter, _ in right).values()) >= 10


@pytest.mark.parametrize("path", sorted([*DOCS.glob("*/*.md")]), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_links_of_the_teaching_pages_have_targets(path: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


# ── grading ──


def test_the_keys_of_the_json_are_those_of_the_page(stage: Stage, tmp_path: Path) -> None:
    whole = json.loads(stage("check", "--all", ".", "--json", "--seconds", "5", cwd=tmp_path, code=1).stdout)
    assert list(whole) == ["points", "max_points", "exercises"]
    documented = set(re.findall(r"^\| `(?:checks\[\]\.)?(\w+)`", GRADING, re.MULTILINE)) | {"file", "max_points"}
    entry = whole["exercises"][0]
    assert documented == {*entry, *entry["checks"][0]}
    (code,) = re.findall(r"```python\n(.*?)```", GRADING, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    tests = names["gradescope"](whole, ["softmax", "loss"])["tests"]
    assert len(tests) == len(EXERCISES["softmax"].checks) + len(EXERCISES["loss"].checks)
    assert tests[0]["score"] == 0
    assert "practise loss" in tests[0]["output"]


# ── lectures ──


@pytest.mark.parametrize("page", LECTURES, ids=name_of)
def test_the_code_of_a_lecture_prints_what_it_shows(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    text = page.path.read_text(encoding="utf-8")
    assert text.startswith("---\nmarp: true\n")
    assert len(text.split("\n---\n")) >= 7
    assert with_sources(text) == text
    for ran, stands in zip(run_page(page), code_blocks(page), strict=True):
        assert ran.kind == stands.kind
        assert_same_numbers(ran.text, stands.text)
    for name in re.findall(r"`explain (\w+)`", text):
        assert find_page(name).name == name
    hand_in = " ".join(re.findall(r"^- Hand in: (.*)$", text, re.MULTILINE))
    names = re.findall(r"`(?:practise )?(\w+)`", hand_in)
    assert names
    assert set(names) <= set(EXERCISES)


def test_the_tables_of_the_lectures_are_those_of_the_results() -> None:
    tables = {
        "attention": [lstm_table(read(LSTM))],
        "modern": [sizes_table(read(EXPORTS)["quantized"])],
        "finetuning": [
            chat_table(read(CHAT)["rows"]),
            lora_table(read(PROJECT / "bench" / "results" / "lora.json")),
            classes_table(read(CLASSES)),
        ],
        "preferences": [preferences_table(read(PREFERENCES)), rewards_table(read(REWARDS))],
    }
    for name, expected in tables.items():
        text = (DOCS / "slides" / f"{name}.md").read_text(encoding="utf-8")
        assert all(table in text for table in expected), name
    ladder = re.findall(r"```\n(val split, 111,539 tokens.*?)```", (DOCS / "ladder.md").read_text(encoding="utf-8"), re.DOTALL)[
        0
    ]
    assert ladder in (DOCS / "slides" / "evaluation.md").read_text(encoding="utf-8")
    tokens = (DOCS / "tokens.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| (?:words|GPT-2's|characters|bytes) \| ([\d,]+) \| ([\d,]+) \|",
        (DOCS / "slides" / "text.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(rows) == 4
    assert all(f"| {vocabulary} | {count} |" in tokens for vocabulary, count in rows)


# ── notebooks and the lab ──


@pytest.mark.parametrize("page", [*list_pages(), LAB], ids=name_of)
def test_a_page_becomes_a_notebook_with_its_code_and_its_output(page: Page) -> None:
    cells = notebook(page, "")["cells"]
    code = [cell["source"] for cell in cells if cell["cell_type"] == "code"][1:]
    shown = [block.text.strip() for block in code_blocks(page) if block.kind == "code"]
    assert [source for source in code if not source.startswith("%%bash")] == shown
    outputs = "".join(output["text"] for cell in cells for output in cell.get("outputs", []))
    assert outputs == "".join(block.text for block in code_blocks(page) if block.kind == "output")
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        for target in re.findall(r"\]\(\.\./([^)#]+)", cell["source"]) if cell["cell_type"] == "markdown" else []:
            assert (PROJECT / target).exists(), target


def test_a_notebook_opens_in_colab_from_the_repository_that_is_named() -> None:
    badge, setup, *_ = notebook(find_page("attention"), "someone/fork")["cells"]
    assert "github/someone/fork/blob/main/notebooks/attention.ipynb" in badge["source"]
    assert "git clone --quiet --depth 1 https://github.com/someone/fork makegpt" in setup["source"]
    setup, first, *_ = notebook(find_page("attention"), "")["cells"]
    assert "git clone" not in setup["source"]
    assert first["cell_type"] == "markdown"


@pytest.mark.parametrize("name", ["shortcut", "attention", "lab"])
def test_a_notebook_runs_from_the_first_cell_to_the_last(name: str) -> None:
    nbformat, nbclient = (pytest.importorskip(module) for module in ("nbformat", "nbclient"))
    pytest.importorskip("ipykernel")
    page = LAB if name == "lab" else find_page(name)
    cells = notebook(page, "")["cells"]
    cells = [cell for cell in cells if not cell["source"].startswith("%%bash")]  # the commands have a test of their own
    book = nbformat.from_dict({**notebook(page, ""), "cells": cells})
    nbformat.validate(book)
    nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(DOCS)}}).execute()
    printed = "".join(output["text"] for cell in book.cells for output in cell.get("outputs", []) if output["name"] == "stdout")
    assert_same_numbers(printed, "".join(block.text for block in code_blocks(page) if block.kind == "output"))


def test_the_commands_of_the_lab_run_on_a_cpu_in_float16(tmp_path: Path, fetched: Callable[[str], Path]) -> None:
    """Two steps of each training, a hundred thousand characters, a few tokens; otherwise as they stand."""
    text = LAB.path.read_text(encoding="utf-8")
    commands = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert len(commands) > 15
    source = (fetched("tiny_shakespeare") / "tiny_shakespeare.txt").read_text(encoding="utf-8")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tiny_shakespeare.txt").write_text(source[:20_000], encoding="utf-8")
    small = {
        "train": " --max-steps 2 --set train.sample_interval=0 --quiet",
        "generate": " --max-new-tokens 8",
        "evaluate": " --set evaluate.passages=1 --set generate.max_new_tokens=4 --quiet",
    }
    for command in commands[1:]:  # the first gets the whole text
        name, rest = command.split(" ", 1)
        assert importlib.import_module(f"stages.{name.replace('-', '_')}")
        rest = re.sub(r" --max-new-tokens \d+", "", rest)
        line = f"python -m stages.{name.replace('-', '_')} {rest}{small.get(name, '')}"
        done = subprocess.run(
            ["bash", "-c", line.replace("python", f"{PROJECT}/.venv/bin/python", 1)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    manifest = read(tmp_path / "artifacts" / "runs" / "lab-decoder" / "manifest.json")
    assert "float16" in json.dumps(manifest)
