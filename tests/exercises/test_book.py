"""The exercises on the pages: their number, their names, their commands, and solutions that print what they show."""

import re
import shlex
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import click
import pytest

from lib.book import Page, code_blocks, list_pages, list_solutions, run_page
from lib.config.params import load_params, resolve_config
from lib.data.downloads import load_inputs
from lib.exercises.catalog import EXERCISES
from stages.__main__ import STAGES
from tests.compare import assert_same_numbers
from tests.conftest import PROJECT

WITHOUT = {"figures", "report"}  # pages about files that the program writes
PAGES = [page for page in list_pages() if page.name not in WITHOUT]
TREE = load_params(PROJECT / "params.yaml")


def exercises(page: Page) -> list[str]:
    """The numbered exercises of a page, in order."""
    _, section = page.path.read_text(encoding="utf-8").split("\n## Exercises\n")
    assert section.rstrip().endswith(f"[Solutions](solutions/{page.name}.md)")
    return re.split(r"^\d\. ", section.split("\n[Solutions]")[0], flags=re.MULTILINE)[1:]


def page_id(page: Page) -> str:
    return page.name


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_a_page_has_two_exercises_by_hand_one_in_code_and_one_experiment(page: Page) -> None:
    *by_hand, code, experiment = exercises(page)
    assert len(by_hand) == 2
    assert all(len(text) > 80 for text in by_hand)
    assert code.startswith("In code: ")
    assert experiment.startswith("Experiment: ")
    names = re.findall(r"`(?:practise|check) (\w+)`", code)
    assert names
    assert set(names) <= set(EXERCISES)


def test_every_exercise_in_code_is_on_its_page() -> None:
    on_pages = {
        name: set(re.findall(r"`(?:practise|check) (\w+)`", exercises(page)[2])) for page in PAGES for name in [page.name]
    }
    assert [name for name, exercise in EXERCISES.items() if name not in on_pages[exercise.page]] == []


def test_every_page_with_exercises_has_solutions_and_no_other() -> None:
    assert [page.name for page in list_solutions()] == [page.name for page in PAGES]
    assert {path.stem for path in (PROJECT / "docs" / "solutions").iterdir()} == {page.name for page in PAGES}


@pytest.mark.parametrize("page", list_solutions(), ids=page_id)
def test_the_code_of_solutions_prints_what_they_show(
    page: Page, fetched: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    if page.name == "tokens":
        fetched("gpt2")
    monkeypatch.chdir(PROJECT)
    text = page.path.read_text(encoding="utf-8")
    assert text.startswith(f"# Solutions: {page.title}\n")
    assert re.findall(r"^(\d)\. ", text, re.MULTILINE) == ["1", "2", "3", "4"]
    blocks = code_blocks(page)
    assert sum(block.kind == "output" for block in blocks) >= 2
    for ran, stands in zip(run_page(page), blocks, strict=True):
        assert ran.kind == stands.kind
        assert_same_numbers(ran.text, stands.text)


def commands(text: str) -> list[str]:
    """The commands in a text: of make, or of a stage with arguments."""
    names = "|".join(["make", *STAGES])
    return [command for command in re.findall(r"`([^`]+)`", text) if re.match(rf"({names}) \S", command)]


def set_words(words: list[str], config: str) -> list[str]:
    """Changes of parameters, each single capital letter replaced by the value that the parameter has."""
    resolved = resolve_config(TREE, config)
    changes = []
    for change in words:
        key, value = change.split("=", 1)
        if re.fullmatch(r"[A-Z]", value):
            section, name = key.split(".")
            value = str(getattr(getattr(resolved, section.replace("-", "_")), name)).replace("None", "null")
        changes.append(f"{key}={value}")
    return changes


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_the_commands_of_an_experiment_can_be_run(page: Page) -> None:
    """make's variables are resolved, and options of commands parsed; nothing is trained."""
    for command in commands(exercises(page)[3]):
        name, *words = shlex.split(command.replace("…", "DATASET -o RUN" if command.startswith("train") else ""))
        if name == "make":
            given = dict(word.split("=", 1) for word in words if "=" in word)
            goals = [word for word in words if "=" not in word]
            makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
            assert all(re.search(rf"^##.*\b{goal}\b", makefile, re.MULTILINE) for goal in goals), command
            config = given.get("CONFIG", "reward" if "reward" in goals else "gpt_balanced")
            assert given.get("DATASET", "hamlet") in load_inputs(TREE)
            resolve_config(TREE, config, set_words(given.get("SET", "").split(), config))
            continue
        stage = import_module(f"stages.{name.replace('-', '_')}").main
        assert isinstance(stage, click.Command)
        words = [re.sub(r"=[A-Z]$", "=2", word) for word in words]
        stage.make_context(name, words)
