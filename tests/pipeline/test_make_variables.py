"""The variables of make: names, values, and the errors for wrong ones and for unreadable files."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lib.config import params
from lib.config.params import config_names, load_params
from lib.data.downloads import load_inputs
from lib.pipeline.steps import build_pipeline, text_name
from tests.conftest import PROJECT, TEXT
from tests.pipeline.test_make import ENVIRONMENT, make, project


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with play.txt, where nothing was made yet."""
    return project(tmp_path_factory.mktemp("make") / "a project")


def refused(folder: Path, *words: str, **variables: str) -> str:
    """The one line that make says."""
    done = make(folder, *words, code=2, **variables)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


# ── names ──


def test_two_paths_never_get_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    taken = load_inputs(load_params(PROJECT / "params.yaml"))
    paths = [
        "книга.txt", "слово.txt", "_____.txt", "my.txt", "My.txt", "my.md", "my", "a/my.txt", "b/my.txt", "../my.txt",
        "a b.txt", "a_b.txt", "a  b.txt", "caf\u00e9.txt", "cafe\u0301.txt", ".txt", "..txt", "\udcff.txt", "\udcfe.txt",
        "hamlet.txt", "-.txt",
        "n" * 240 + ".txt", "n" * 241 + ".txt", "my.txt.txt", "my..txt", "data/hamlet.txt", "\n.txt", "$.txt",
    ]  # fmt: skip
    names = [text_name(path, taken) for path in paths]
    assert len({name.lower() for name in names}) == len(paths)
    assert not set(names) & set(taken)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,80}", name), name
    digits = names[paths.index("a/my.txt")].removeprefix("my-")
    assert text_name(f"my-{digits}.txt", taken) != f"my-{digits}", "a file that is called like that has a name of its own"


def test_a_plain_name_is_kept_and_one_file_has_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("my.txt", "./my.txt", "a/../my.txt", str(tmp_path / "my.txt")):
        assert text_name(path, ["hamlet"]) == "my"
    assert text_name("chapter-2_v1.0.txt", ["hamlet"]) == "chapter-2_v1.0"
    assert text_name("a/my.txt") == text_name(str(tmp_path / "a" / "my.txt"))


def test_two_pairs_of_config_and_text_never_get_the_same_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    text = (PROJECT / "params.yaml").read_text(encoding="utf-8")
    names = ["a", "a-b", "A", "a_b"]
    added = "".join(f"  {name}:\n    extends: debug\n" for name in names)
    (folder / "own.yaml").write_text(text.replace("\nconfigs:\n", f"\nconfigs:\n{added}", 1), encoding="utf-8")
    monkeypatch.setattr(params, "find_params", lambda: folder / "own.yaml")
    for name in ("c.txt", "b-c.txt", "b_c.txt"):
        (folder / name).write_text(TEXT, encoding="utf-8")
    made = [build_pipeline(name, "hamlet", text, "") for name in names for text in ("c.txt", "b-c.txt", "b_c.txt", "")]
    assert len({str(each.run).lower() for each in made}) == len(made)
    assert len({str(each.figure).lower() for each in made}) == len(made)


def test_the_names_of_the_pinned_inputs_and_configs_are_plain() -> None:
    tree = load_params(PROJECT / "params.yaml")
    for config in config_names(tree):
        assert str(build_pipeline(config, "moby_dick", "", "").run) == f"artifacts/runs/{config}-moby_dick"


# ── variables ──


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["all", "CONFIG=debug", "TXT=my.txt"], "make knows no variable TXT; did you mean 'TEXT'?"),
        (["all", "text=my.txt"], "make knows no variable text; did you mean 'TEXT'?"),
        (["help", "CONFG=debug"], "did you mean 'CONFIG'?"),
        (["ladder", "LADER=bigram", "SET=train.seed=2 train.max_steps=3"], "did you mean 'LADDER'?"),
        (["study", "STUDY_BUGET=1m"], "did you mean 'STUDY_BUDGET'?"),
        (["test", "TEST=1"], "make knows no variable TEST;"),
        (["why", "DATASETS:=moby_dick"], "did you mean 'DATASET'?"),
    ],
)
def test_a_variable_that_make_does_not_know_is_refused_with_the_nearest(folder: Path, words: list[str], says: str) -> None:
    line = refused(folder, *words)
    assert says in line
    assert "; one of the environment stands before make: " in line


def test_variables_of_other_programs_are_accepted_on_the_command_line(folder: Path) -> None:
    done = make(folder, "-n", "test", "OMP_NUM_THREADS=1", "https_proxy=x", "PYTEST_ADDOPTS=-x", "LC_ALL=C", "SHELL=/bin/sh")
    assert "pytest" in done.stdout


def test_every_documented_variable_is_known_to_make() -> None:
    text = (PROJECT / "Makefile").read_text(encoding="utf-8")
    known = re.search(r"^KNOWN := ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert known
    names = set(known[1].replace("\\", " ").split()) | {"CONFIG", "DATASET", "TEXT", "SET"}
    assigned = set(re.findall(r"^(?:\w[\w-]*: (?:export )?)?([A-Z_0-9]+) *[:?]?=", text, re.MULTILINE))
    used = set(re.findall(r"\$\(([A-Z_0-9]{2,})\)", re.sub(r"(?m)^#.*$", "", text))) - {
        "TEXTS",
        "BASE",
        "CONVERSATIONS",
        "LAYOUT",
        "KIND",
        "DRAWN",
        "WEIGHTS",
        "TOKENS",
        "WINDOWS",
        "FIGURE",
        "VOCABULARY",
        "RUN",
    }
    assert used - assigned - {"MAKE", "MAKECMDGOALS"} <= names
    optional = set(re.findall(r"^([A-Z_0-9]+) *\?=", text, re.MULTILINE))
    documented = set(re.findall(r"\b([A-Z_]{3,})=", "\n".join(line for line in text.splitlines() if line.startswith("##"))))
    assert optional | documented <= names


def test_environment_variables_never_choose_a_training(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "DATASET", "moby_dick")
    monkeypatch.setitem(ENVIRONMENT, "TEXT", "play.txt")
    done = make(folder, "-n", "all", CONFIG="debug")
    assert "DATASET=moby_dick TEXT=play.txt of the environment is not used; write it after make" in done.stderr
    assert "-- data/hamlet.txt" in done.stdout or f"-- {PROJECT}/data/hamlet.txt" in done.stdout
    done = make(folder, "-n", "all", CONFIG="debug", DATASET="hamlet", TEXT="")
    assert done.stderr == ""
    done = make(folder, "-n", "-e", "train", CONFIG="debug")
    assert (done.stderr, "debug-play" in done.stdout) == ("", True)


@pytest.mark.parametrize("variable", ["TEXT=a$b.txt", "TEXT=$.txt", "SET=train.seed=$1", "CONFIG=a$$$b"])
def test_a_single_dollar_sign_is_reported(folder: Path, variable: str) -> None:
    (folder / "a.txt").write_text(TEXT, encoding="utf-8")
    assert "write $$ for $" in refused(folder, "all", variable)


def test_a_doubled_dollar_sign_is_one(folder: Path) -> None:
    (folder / "a$b.txt").write_text(TEXT, encoding="utf-8")
    done = make(folder, "-n", "train", "CONFIG=debug", "TEXT=a$$b.txt")
    assert "-- 'a$b.txt'" in done.stdout


# ── troubles while make reads the Makefile ──


def test_an_unreadable_text_is_one_line_with_the_reason(folder: Path) -> None:
    (folder / "dir.txt").mkdir()
    os.symlink("loop.txt", folder / "loop.txt")
    for name, says in {
        "n" * 300 + ".txt": "File name too long",
        "dir.txt": "TEXT=dir.txt does not exist, or is no file",
        "loop.txt": "loop.txt",
        "play.txt/x.txt": "TEXT=play.txt/x.txt does not exist",
        "\udcff.txt": ".txt does not exist",
    }.items():
        done = subprocess.run(
            ["make", "all", "CONFIG=debug", f"TEXT={name}"], cwd=folder, env=ENVIRONMENT, capture_output=True, errors="replace"
        )
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
        assert says in done.stderr
        assert "Python 3.11" not in done.stderr


def test_a_long_name_of_a_text_is_shortened(folder: Path) -> None:
    name = "n" * 240 + ".txt"
    (folder / name).write_text(TEXT, encoding="utf-8")
    done = make(folder, "-n", "train", CONFIG="debug", TEXT=name)
    assert max(len(part) for part in done.stdout.replace(name, "").split("/")) < 200


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("params.yaml", "params.yaml"),
        ("artifacts", "artifacts is a file, but the pipeline keeps its folders there; move it away"),
        ("lib", "the plan gave no answer; `.venv/bin/python -m lib.pipeline.plan configs` may show why"),
    ],
)
def test_a_damaged_project_is_one_line_with_the_reason(tmp_path: Path, damage: str, says: str) -> None:
    folder = project(tmp_path / "project")
    if damage == "lib":
        (folder / "lib").unlink()
        shutil.copytree(PROJECT / "lib", folder / "lib", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "lib" / "pipeline" / "hashes.py").write_text("def (:\n", encoding="utf-8")
    else:
        (folder / damage).write_text("defaults:\n  model: [\n", encoding="utf-8")
    line = refused(folder, "all", CONFIG="debug", TEXT="play.txt")
    assert says in line
    assert "Python 3.11" not in line


def test_make_plans_on_a_full_disk(folder: Path) -> None:
    """A limit on a file's size stands for the disk's end: nothing that make reads needs to be written."""
    words = "ulimit -f 0; exec make -n train CONFIG=debug TEXT=play.txt"
    done = subprocess.run(["bash", "-c", words], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert ".venv/bin/train " in done.stdout


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (None, "Python 3.11 or later is needed, not ./python; make PYTHON=python3.12 names one"),
        ("exit 1", "Python 3.11 or later is needed, not ./python;"),
        ("echo 3.9", "Python 3.11 or later is needed, not 3.9;"),
    ],
)
@pytest.mark.parametrize("goal", ["all", "setup", "lint"])
def test_a_python_that_cannot_be_used_is_named_before_anything_is_installed(
    tmp_path: Path, script: str | None, says: str, goal: str
) -> None:
    folder = project(tmp_path / "project")
    shutil.rmtree(folder / ".venv")
    if script:
        (folder / "python").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "python").chmod(0o755)
    assert says in refused(folder, goal, PYTHON="./python")
    assert not (folder / ".venv").exists()


@pytest.mark.parametrize("script", [None, "exit 137"])
def test_an_environment_with_a_broken_python_is_reported_as_such(tmp_path: Path, script: str | None) -> None:
    folder = project(tmp_path / "project")
    (folder / ".venv" / "bin" / "python").unlink()
    if script:
        (folder / ".venv" / "bin" / "python").write_text(f"#!/bin/sh\n{script}\n")
        (folder / ".venv" / "bin" / "python").chmod(0o755)
    line = refused(folder, "all", CONFIG="debug", TEXT="play.txt")
    assert "the plan gave no answer; " in line
    assert "`rm -r .venv` lets make set up again" in line
    assert "3.11" not in line


def test_the_version_check_of_make_runs_on_an_old_python() -> None:
    (question,) = re.findall(r"^TOO_OLD = .*? -c '(.*?)'", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    ast.parse(question, feature_version=(3, 7))
    for version, answer in {(2, 7): "2.7", (3, 9): "3.9", (3, 11): "", (3, 13): ""}.items():
        other = f"import sys; sys.version_info = {(*version, 0)}; {question}"
        assert subprocess.run([sys.executable, "-c", other], capture_output=True, text=True).stdout == f"{answer}\n"
