"""The Makefile from the outside: what runs, what does not, and why. Each test works in its own project folder."""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import pytest

from lib.artifact.manifest import read_manifest
from lib.pipeline.freshness import STAMPS, Freshness
from lib.pipeline.hashes import Hashes
from lib.pipeline.steps import FIGURES, USUAL_DATASET, build_pipeline
from stages import STAGES
from tests import forks
from tests.conftest import BIN, PROJECT, TEXT, Here, Stage, spent

RUN = "artifacts/runs/debug-play"
#: As in a shell: these tests may themselves have been started by make.
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))} | {"PYTHON": sys.executable}
SMALL = "train.max_steps=8 train.eval_interval=4 evaluate.passages=1"


def make(folder: Path, *words: str, code: int = 0, **variables: str) -> "subprocess.CompletedProcess[str]":
    command = ["make", *words, *(f"{name}={value}" for name, value in variables.items())]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def make_all(folder: Path, *words: str, change: str = SMALL, code: int = 0) -> list[str]:
    """The stages that `make all` runs on play.txt with config debug."""
    done = make(folder, "all", *words, CONFIG="debug", TEXT="play.txt", SET=change, code=code)
    stages = [line.split()[0].removeprefix(".venv/bin/") for line in done.stdout.splitlines() if line.startswith(".venv/bin/")]
    return [stage for stage in stages if stage != "python"]  # make -n shows the notes that the plan writes, too


def project(folder: Path) -> Path:
    """A project folder with the committed files, an environment that is set up, and a text.

    Its stages are forked from a process that has loaded torch; a signal to make does not reach them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("Makefile", "params.yaml", "pyproject.toml", "constraints.txt"):
        shutil.copy(PROJECT / name, folder / name)
    for name in ("lib", "stages"):
        (folder / name).symlink_to(PROJECT / name)
    (folder / "play.txt").write_text(TEXT, encoding="utf-8")
    (folder / ".venv").mkdir()
    for name in ("lib", "pyvenv.cfg"):
        (folder / ".venv" / name).symlink_to(BIN.parent / name)
    (folder / ".venv" / "bin").mkdir()
    for entry in BIN.iterdir():
        (folder / ".venv" / "bin" / entry.name).symlink_to(entry)
    for stage in STAGES:
        script = folder / ".venv" / "bin" / stage.replace("_", "-")
        script.unlink()
        script.write_text(forks.CLIENT.format(python=sys.executable, project=str(PROJECT)))
        script.chmod(0o755)
    ENVIRONMENT["MAKEGPT_FORKS"] = forks.shared().address
    (folder / ".venv" / "ready").touch()
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder where everything has been made once; tests that change it leave it as it was."""
    folder = project(tmp_path_factory.mktemp("make") / "project")
    assert make_all(folder) == ["tokenize", "build-dataset", "train", "generate", "evaluate", "plot"]
    return folder


def test_a_run_folder_holds_everything(built: Path) -> None:
    names = {entry.name for entry in (built / RUN).iterdir() if not entry.name.startswith(".")}
    assert names == {
        "model.safetensors", "config.json", "tokenizer.json", "metrics.jsonl", "timings.jsonl", "checkpoint", "manifest.json",
        "evaluation.json", "sample.txt", "samples.jsonl", "loss.png",
    }  # fmt: skip


def test_a_second_make_says_one_line_in_about_a_second(built: Path) -> None:
    before = spent()
    done = make(built, "all", CONFIG="debug", TEXT="play.txt", SET=SMALL)
    assert spent() - before < 2
    assert done.stdout == "make: Nothing to be done for 'all'.\n"
    assert done.stderr == ""


def test_touching_commenting_and_reordering_parameters_runs_nothing(built: Path) -> None:
    params = built / "params.yaml"
    text = params.read_text()
    try:
        params.touch()
        assert make_all(built) == []
        params.write_text("# a comment\n" + text.replace("    seed: 1\n", "    seed: 1  # chosen by lot\n"))
        assert make_all(built) == []
        lines = re.sub(r"(    split: val\n)(    ngram_order: .*\n)", r"\2\1", text)
        assert lines != text
        params.write_text(lines)
        assert make_all(built) == []
    finally:
        params.write_text(text)


def test_touching_the_text_runs_nothing(built: Path) -> None:
    (built / "play.txt").touch()
    assert make_all(built) == []


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ("train.learning_rate=1e-4", ["train", "generate", "evaluate", "plot"]),
        ("model.n_heads=4", ["train", "generate", "evaluate", "plot"]),
        ("build-dataset.val_fraction=0.2", ["build-dataset", "train", "generate", "evaluate", "plot"]),
        ("build-dataset.test_fraction=0.2", ["build-dataset", "train", "generate", "evaluate", "plot"]),
        ("evaluate.split=train", ["evaluate", "plot"]),
        ("tokenize.errors=replace", ["tokenize", "build-dataset", "train", "generate", "evaluate", "plot"]),
        ("generate.temperature=0", ["generate", "evaluate", "plot"]),
        ("evaluate.ngram_order=1", ["evaluate", "plot"]),
        ("plot.width=7", ["plot"]),
        ("train.checkpoint_interval=5", []),
        ("train.sample_interval=5", []),
    ],
)
def test_a_parameter_runs_the_stages_that_read_it_and_those_after(built: Path, change: str, stages: list[str]) -> None:
    assert make_all(built, "-n", change=f"{SMALL} {change}") == stages
    output = make(built, "why", CONFIG="debug", TEXT="play.txt", SET=f"{SMALL} {change}").stdout
    assert (change.split("=")[0] in output) == bool(stages)
    assert make_all(built) == [], "asking must not change anything"


def test_parameters_changed_back_run_the_stages_again(built: Path) -> None:
    stages = ["generate", "evaluate", "plot"]  # an evaluation looks into samples for what was copied
    assert make_all(built, change=f"{SMALL} generate.seed=7") == stages
    assert make_all(built, change=f"{SMALL} generate.seed=7") == []
    assert make_all(built) == stages


def test_the_test_split_is_evaluated_if_there_is_one(built: Path) -> None:
    done = make(built, "all", CONFIG="debug", TEXT="play.txt", SET=f"{SMALL} evaluate.split=test", code=2)
    assert "evaluate.split=test needs a test split; add build-dataset.test_fraction=0.1 to SET" in done.stderr
    change = f"{SMALL} build-dataset.test_fraction=0.1 evaluate.split=test"
    done = make(built, "all", CONFIG="debug", TEXT="play.txt", SET=change)
    assert "test split, 398 tokens" in done.stderr
    assert make_all(built, change=change) == []
    assert make_all(built, change=f"{SMALL} build-dataset.test_fraction=0.1") == ["evaluate", "plot"]
    assert make_all(built) == ["build-dataset", "train", "generate", "evaluate", "plot"]


def test_a_deleted_sample_is_the_only_thing_generated_again(built: Path) -> None:
    sample = (built / RUN / "sample.txt").read_text()
    (built / RUN / "sample.txt").unlink()
    assert make_all(built) == ["generate"]
    assert (built / RUN / "sample.txt").read_text() == sample


def test_the_figure_is_copied_under_the_name_of_its_config(built: Path) -> None:
    figure = built / "artifacts" / "plots" / "DEBUG-play.png"
    assert figure.read_bytes() == (built / RUN / "loss.png").read_bytes()
    figure.unlink()
    output = make(built, "why", CONFIG="debug", TEXT="play.txt", SET=SMALL).stdout
    assert "plot           runs: artifacts/plots/DEBUG-play.png is not" in output
    assert make_all(built) == [], "it is copied, not drawn again"
    assert figure.is_file()
    assert make(built, "all", CONFIG="debug", TEXT="play.txt", SET=SMALL).stdout == "make: Nothing to be done for 'all'.\n"


def test_the_name_of_a_figure_includes_a_dataset_that_is_not_the_default() -> None:
    figures = [build_pipeline("gpt_balanced", dataset, "", "").figure for dataset in ("hamlet", "moby_dick")]
    assert figures == [FIGURES / "GPT_BALANCED.png", FIGURES / "GPT_BALANCED-moby_dick.png"]
    assert f"DATASET := {USUAL_DATASET}\n" in (PROJECT / "Makefile").read_text()


def test_the_comparison_draws_finished_runs_and_reports_missing_ones(built: Path) -> None:
    nothing = make(built, "comparison", TEXT="play.txt", code=2)
    assert "artifacts/runs/gpt_real-play is missing; make all CONFIG=gpt_real TEXT='play.txt' trains it" in nothing.stderr
    assert "none of these runs is finished" in nothing.stderr
    done = make(built, "comparison", TEXT="play.txt", COMPARED="gpt_real debug")
    assert done.stdout == "artifacts/plots/COMPARISON.png\n"
    assert "gpt_real-play is missing" in done.stderr
    assert (built / "artifacts" / "plots" / "COMPARISON.png").is_file()


def test_the_comparison_suggests_the_training_with_its_own_variables(built: Path) -> None:
    output = make(built, "comparison", DATASET="the_verdict", SET="train.seed=2 train.max_steps=9", code=2).stderr
    assert "gpt_real DATASET='the_verdict' SET='train.seed=2 train.max_steps=9' trains it" in output
    assert "make all CONFIG=gpt_real trains it" in make(built, "comparison", code=2).stderr


def test_a_report_is_written_only_on_request_and_once(built: Path) -> None:
    words: dict[str, str] = {"CONFIG": "debug", "TEXT": "play.txt", "SET": SMALL}
    assert make(built, "-n", "report", **words).stdout.startswith(f".venv/bin/report {RUN} -o {RUN}/report.html\n")
    make(built, "report", **words)
    try:
        assert "debug-play" in (built / RUN / "report.html").read_text(encoding="utf-8")
        assert make(built, "report", **words).stdout == "make: Nothing to be done for 'report'.\n"
        assert make_all(built) == []
    finally:
        (built / RUN / "report.html").unlink()


def test_a_run_of_another_text_is_never_replaced(built: Path) -> None:
    everything = {
        path: path.read_bytes() for path in (built / "artifacts").rglob("*") if path.name != "hashes.json" and path.is_file()
    }
    (built / "play.txt").write_text(TEXT + "more", encoding="utf-8")
    try:
        for goal in ("all", "build-dataset", "why"):
            result = make(built, goal, CONFIG="debug", TEXT="play.txt", SET=SMALL, code=2)
            line = (result.stdout if goal == "why" else result.stderr).splitlines()[0]
            assert f"{RUN} holds a run of another text" in line
            assert "move it away or remove it, or give the text another name" in line
        assert {path: path.read_bytes() for path in everything} == everything
    finally:
        (built / "play.txt").write_text(TEXT, encoding="utf-8")


def test_deleted_tokens_do_not_repeat_the_training(built: Path) -> None:
    before = (built / RUN / "model.safetensors").read_bytes()
    shutil.rmtree(built / "artifacts" / "tokens")
    done = make(built, "all", CONFIG="debug", TEXT="play.txt", SET=SMALL)
    assert "is finished already with these parameters" in done.stderr
    assert (built / RUN / "model.safetensors").read_bytes() == before
    assert make_all(built) == []


def reasons(change: str = SMALL) -> dict[str, str]:
    """Why `make all report` in the current folder, on play.txt with config debug, runs the stages that it runs."""
    hashes = Hashes(STAMPS / "hashes.json")
    found = Freshness(build_pipeline("debug", "hamlet", "play.txt", change, hashes), hashes).reasons()
    hashes.save()
    return {stage: reason for stage, reason in found.items() if reason and stage != "report"}


@pytest.fixture
def project_copy(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `built`, as the current folder."""
    folder = tmp_path / "copy"
    shutil.copytree(built, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


AFTER = {
    "tokenize": ["tokenize", "build-dataset", "train", "generate", "evaluate", "plot"],
    "build-dataset": ["build-dataset", "train", "generate", "evaluate", "plot"],
    "train": ["train", "generate", "evaluate", "plot"],
    "evaluate": ["evaluate", "plot"],
    "generate": ["generate"],
    "plot": ["plot"],
}
TOKENS, WINDOWS = "artifacts/tokens/play.bytes", "artifacts/datasets/play.bytes.32"
EVALUATION = f"{RUN}/evaluation.json"
DEBUG = ["--config", "debug", *(word for parameter in SMALL.split() for word in ("--set", parameter))]


@pytest.mark.parametrize(
    ("stage", "words", "says"),
    [
        ("tokenize", ["tokenize", "play.txt", "-o", TOKENS, *DEBUG, "--errors", "replace"], "tokenize.errors was replace, is "),
        ("tokenize", ["tokenize", "other.txt", "-o", TOKENS, *DEBUG], "text was "),
        ("build-dataset", ["build-dataset", TOKENS, "-o", WINDOWS, *DEBUG, "--stride", "5"], "build-dataset.stride was 5, is "),
        ("train", ["train", WINDOWS, "-o", RUN, *DEBUG, "--set", "train.max_steps=3"], "train.max_steps was 3, is 8"),
        ("evaluate", ["evaluate", RUN, "-o", EVALUATION, *DEBUG, "--ngram-order", "1"], "evaluate.ngram_order was 1, is "),
        ("evaluate", ["evaluate", RUN, "--text", "other.txt", "-o", EVALUATION, *DEBUG], "it is of another text"),
        ("generate", ["generate", RUN, "-o", f"{RUN}/sample.txt", "--seed", "9"], "sample.txt has changed since make made it"),
        ("plot", ["plot", "loss", RUN, "-o", f"{RUN}/loss.png", "--width", "5"], "loss.png has changed since make made it"),
    ],
)  # fmt: skip
def test_an_artifact_that_was_rebuilt_by_hand_is_noticed(
    project_copy: Path, here: Here, stage: str, words: list[str], says: str
) -> None:
    (project_copy / "other.txt").write_text(TEXT[::-1], encoding="utf-8")
    here(*words)
    assert says in reasons()[stage]
    assert set(reasons()) == set(AFTER[stage])


def test_make_runs_what_it_says_after_a_stage_was_run_by_hand(project_copy: Path, here: Here) -> None:
    assert make_all(project_copy) == [], "a project that was copied is as it was"
    here("train", WINDOWS, "-o", RUN, *DEBUG, "--set", "train.max_steps=3")
    output = make(project_copy, "why", CONFIG="debug", TEXT="play.txt", SET=SMALL).stdout
    assert "train          runs: train.max_steps was 3, is 8" in output
    assert make_all(project_copy, "-n") == AFTER["train"]


def test_a_byte_pair_vocabulary_has_its_own_tokens_and_is_learned_again_if_the_split_changes(project_copy: Path) -> None:
    bpe = f"{SMALL} tokenize.tokenizer=bpe tokenize.vocab_size=300"

    def stages(change: str) -> list[str]:
        lines = make(project_copy, "build-dataset", CONFIG="debug", TEXT="play.txt", SET=change).stdout.splitlines()
        return [line.split()[0].removeprefix(".venv/bin/") for line in lines if line.startswith(".venv/bin/")]

    assert stages(bpe) == ["tokenize", "build-dataset"]
    manifest = read_manifest(project_copy / "artifacts/tokens/play.bpe300", "tokens")
    assert manifest.metadata["vocab_size"] == 300
    assert (project_copy / "artifacts/datasets/play.bpe300.32/manifest.json").is_file()
    assert stages(bpe) == []
    assert stages(SMALL) == [], "the tokens of another tokenizer stay"
    assert "build-dataset.val_fraction was 0.1, is 0.2" in reasons(f"{bpe} build-dataset.val_fraction=0.2")["tokenize"]
    assert "tokenize" not in reasons(f"{SMALL} build-dataset.val_fraction=0.2"), "no other tokenizer depends on the split"


def damages(folder: Path) -> dict[str, tuple[str, Callable[[], object]]]:
    """Ways in which an artifact comes to be another than make left it: the first stage that has to repair it, and how."""
    run, weights = folder / RUN, (folder / RUN / "model.safetensors").read_bytes()
    shard = folder / TOKENS / "shard-00000.npy"
    other = weights[:-4] + bytes(4)

    def aged(path: Path, content: bytes) -> None:  # of the same size, and no newer
        times = path.stat()
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    return {
        "other weights in their place": ("train", lambda: aged(run / "model.safetensors", other)),
        "weights that were deleted": ("train", (run / "model.safetensors").unlink),
        "a shard of other tokens": ("tokenize", lambda: aged(shard, shard.read_bytes()[:-2] + bytes(2))),
        "an evaluation of other weights": (
            "evaluate",
            lambda: aged(
                run / "evaluation.json",
                (run / "evaluation.json").read_bytes().replace(hashlib.sha256(weights).hexdigest().encode(), b"0" * 64),
            ),
        ),
        "an evaluation that is no JSON": ("evaluate", lambda: aged(run / "evaluation.json", b"[")),
        "a list in place of an evaluation": ("evaluate", lambda: aged(run / "evaluation.json", b"[]")),
        "a sample that was edited": ("generate", lambda: aged(run / "sample.txt", b"mine")),
        "a figure of another run": ("plot", lambda: aged(run / "loss.png", b"PNG")),
        "a note that is damaged": ("generate", lambda: aged(folder / "artifacts/stamps/debug-play.generate.json", b"\xff{")),
        "a note of another shape": ("generate", lambda: aged(folder / "artifacts/stamps/debug-play.generate.json", b"[1]")),
        "hashes that are damaged": ("nothing", lambda: aged(folder / "artifacts/stamps/hashes.json", b"[[\xff")),
        "hashes of another shape": (
            "nothing",
            lambda: aged(folder / "artifacts/stamps/hashes.json", b'{"play.txt": 5, "artifacts": [1]}'),
        ),
        "the times of all files": ("nothing", lambda: [os.utime(path) for path in sorted((folder / "artifacts").rglob("*.*"))]),
    }


def test_an_artifact_that_make_did_not_write_is_noticed_whatever_its_age(project_copy: Path) -> None:
    kept = {path: path.read_bytes() for path in project_copy.joinpath("artifacts").rglob("*") if path.is_file()}
    assert reasons() == {}
    for name, (stage, damage) in damages(project_copy).items():
        damage()
        assert set(reasons()) == set(AFTER.get(stage, [])), name
        for path, content in kept.items():
            path.write_bytes(content)


def test_weights_that_were_replaced_are_published_again_without_training(project_copy: Path, here: Here) -> None:
    weights = Path(RUN, "model.safetensors")
    right = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(right[:-4] + bytes(4))
    assert "resuming after step 8 of 8" in here("train", WINDOWS, "-o", RUN, *DEBUG).err
    assert weights.read_bytes() == right
    assert reasons() == {}
    Path(RUN, "metrics.jsonl").write_text("mine")
    assert "metrics.jsonl is damaged" in here("train", WINDOWS, "-o", RUN, *DEBUG, code=1).err


def test_train_never_replaces_a_training_on_another_text(project_copy: Path, here: Here) -> None:
    (project_copy / "other.txt").write_text(TEXT[::-1], encoding="utf-8")
    here("tokenize", "other.txt", "-o", "tokens", *DEBUG)
    here("build-dataset", "tokens", "-o", "windows", *DEBUG)
    weights = Path(RUN, "model.safetensors").read_bytes()
    said = here("train", "windows", "-o", RUN, *DEBUG, code=2).err
    assert f"{RUN} holds a finished training on another text; use another -o, or replace it with --resume never" in said
    assert Path(RUN, "model.safetensors").read_bytes() == weights
    Path(RUN, "model.safetensors").unlink()
    assert f"{RUN} holds a training on another text" in here("train", "windows", "-o", RUN, *DEBUG, code=2).err
    here("build-dataset", TOKENS, "-o", "windows", *DEBUG, "--val-fraction", "0.2")
    said = here("train", "windows", "-o", RUN, *DEBUG, "--stop-after", "0s").err
    assert "starting over" in said, "another split of the same text is a parameter like others"
    here("train", WINDOWS, "-o", RUN, *DEBUG, "--resume", "never", "--stop-after", "0s")


def test_why_reports_each_stage(built: Path) -> None:
    lines = make(built, "why", CONFIG="debug", TEXT="play.txt", SET=f"{SMALL} train.seed=5").stdout.splitlines()
    assert lines[0] == "tokenize       is up to date"
    assert lines[2] == "train          runs: train.seed was 1, is 5"
    assert lines[3] == "evaluate       runs: train runs before it"


def test_an_interrupted_training_resumes_to_the_same_bytes(built: Path, tmp_path: Path, stage: Stage) -> None:
    folder = project(tmp_path / "project")
    make(folder, "build-dataset", CONFIG="debug", TEXT="play.txt")
    train = folder / ".venv" / "bin" / "train"
    train.rename(train.with_name("forked"))
    train.symlink_to(BIN / "train")  # in make's process group
    change = "train.max_steps=120 train.eval_interval=60 train.checkpoint_interval=10"
    words = ["make", "train", "CONFIG=debug", "TEXT=play.txt", f"SET={change}"]
    running = subprocess.Popen(
        words, cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while not (folder / RUN / "checkpoint" / "state.json").exists():
        time.sleep(0.01)
    os.killpg(running.pid, 9)
    running.wait()
    assert not (folder / RUN / "model.safetensors").exists()
    train.with_name("forked").replace(train)
    done = make(folder, "train", CONFIG="debug", TEXT="play.txt", SET=change)
    assert done.stdout.startswith(".venv/bin/train "), "what was made before it is kept"
    assert "resuming after step" in done.stderr
    settings = [word for parameter in change.split() for word in ("--set", parameter)]
    stage("train", built / "artifacts/datasets/play.bytes.32", "-o", tmp_path / "whole", "--config", "debug", *settings)
    for name in ("model.safetensors", "metrics.jsonl", "samples.jsonl"):
        assert (folder / RUN / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_make_j_works(tmp_path: Path) -> None:
    folder = project(tmp_path / "project")
    assert sorted(make_all(folder, "-j", "4")) == sorted(["tokenize", "build-dataset", "train", "generate", "evaluate", "plot"])
    assert make_all(folder) == []


@pytest.mark.parametrize("name", ["the play.txt", "naïve, 2nd (draft).txt"])
def test_a_text_may_have_an_odd_name(tmp_path: Path, name: str) -> None:
    folder = project(tmp_path / "project")
    (folder / name).write_text(TEXT, encoding="utf-8")
    make(folder, "build-dataset", CONFIG="debug", TEXT=name)
    assert len(list((folder / "artifacts" / "datasets").iterdir())) == 1
    assert make(folder, "build-dataset", CONFIG="debug", TEXT=name).stdout == "make: Nothing to be done for 'build-dataset'.\n"


#: A Python that sets up `.venv` from the folder `prepared` and installs nothing, but writes down that it was asked to.
INSTALLER = """#!/bin/sh
case "$*" in
    "-m venv"*) test -d .venv || mv prepared .venv;;
    "-m pip"*) echo "$*" >> installed;;
    *) exec '{python}' "$@";;
esac
"""


def fresh(folder: Path) -> Path:
    """A project folder as a clone is; its `./python` sets up an environment."""
    project(folder)
    (folder / ".venv" / "ready").unlink()
    (folder / ".venv" / "bin" / "python").unlink()
    for path in (folder / "python", folder / ".venv" / "bin" / "python"):
        path.write_text(INSTALLER.format(python=sys.executable))
        path.chmod(0o755)
    (folder / ".venv").rename(folder / "prepared")
    return folder


def test_before_anything_is_installed_make_n_says_what_it_would_set_up_and_changes_nothing(tmp_path: Path) -> None:
    folder = fresh(tmp_path / "project")
    done = make(folder, "-n", "all", CONFIG="debug", TEXT="play.txt", PYTHON="./python")
    install, touch, again = done.stdout.splitlines()[1:]
    assert done.stdout.startswith("./python -m venv .venv\n")
    assert "pip install" in install
    assert "touch .venv/ready" in touch
    assert again.endswith(" all")
    assert "configs:  those of params.yaml; `make setup` lets make list them here\n" in make(folder).stdout
    assert not (folder / ".venv").exists()


@pytest.mark.parametrize("words", [["train"], ["-j4", "tokenize", "train"]])
def test_a_fresh_clone_is_set_up_once_and_make_starts_over(tmp_path: Path, words: list[str]) -> None:
    folder = fresh(tmp_path / "project")
    (folder / "play.txt").rename(folder / "the $ play.txt")
    variables = {"CONFIG": "debug", "TEXT": "the $$ play.txt", "SET": SMALL, "PYTHON": "./python"}
    lines = make(folder, *words, **variables).stdout.splitlines()
    commands = [line.split()[0] for line in lines if line.startswith(".venv/bin/")]
    assert commands == [".venv/bin/python", *(f".venv/bin/{stage}" for stage in ("tokenize", "build-dataset", "train"))]
    assert make(folder, "train", **variables).stdout == "make: Nothing to be done for 'train'.\n"
    assert len((folder / "installed").read_text().splitlines()) == 1


def test_an_environment_that_is_outdated_is_set_up_again_before_the_plan(tmp_path: Path) -> None:
    folder = fresh(tmp_path / "project")
    words: dict[str, str] = {"CONFIG": "debug", "TEXT": "play.txt", "PYTHON": "./python"}
    make(folder, "tokenize", **words)
    later = (folder / ".venv" / "ready").stat().st_mtime_ns + 10**9
    os.utime(folder / "pyproject.toml", ns=(later, later))
    assert ".venv/bin/build-dataset" in make(folder, "-n", "build-dataset", **words).stdout
    os.utime(folder / "pyproject.toml")
    assert "make: Nothing to be done" not in make(folder, "tokenize", **words).stdout
    assert len((folder / "installed").read_text().splitlines()) == 2
    assert make(folder, "tokenize", **words).stdout == "make: Nothing to be done for 'tokenize'.\n"


def test_a_folder_called_lib_on_pythonpath_does_no_harm(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__init__.py").write_text("raise SystemExit('somebody else')\n")
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(tmp_path))
    assert make_all(built) == []
    assert "is up to date" in make(built, "why", CONFIG="debug", TEXT="play.txt", SET=SMALL).stdout


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"CONFIG": "gpt_balancd"}, "unknown config 'gpt_balancd'; did you mean 'gpt_balanced'?"),
        ({"DATASET": "hamlte"}, "did you mean 'hamlet'?"),
        ({"TEXT": "it's.txt"}, "a quote cannot stand in CONFIG, DATASET, TEXT or SET"),
        ({"TEXT": "nothing.txt"}, "TEXT=nothing.txt does not exist"),
        ({"SET": "train.lerning_rate=1"}, "did you mean 'learning_rate'?"),
        ({"SET": "model.emb_dim=100"}, "must be divisible by model.n_heads=6"),
    ],
)
def test_a_wrong_variable_is_one_line(tmp_path: Path, variables: dict[str, str], says: str) -> None:
    done = make(project(tmp_path / "project"), "all", **variables, code=2)
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_make_alone_lists_targets_and_configs(tmp_path: Path) -> None:
    output = make(project(tmp_path / "project")).stdout
    for word in ("make all CONFIG=gpt_balanced", "test", "why", "clean", "gpt_real", "decoder", "moby_dick"):
        assert word in output


def test_make_all_trains_the_model_that_is_ahead_of_counts(built: Path) -> None:
    assert "artifacts/runs/gpt_pointer-hamlet" in make(built, "-n", "all").stdout
    row = json.loads((PROJECT / "bench" / "results" / "learning.json").read_text(encoding="utf-8"))["hamlet_pointer"]
    assert row["config"] == "gpt_pointer"
    assert row["lead"] > 2 * row["standard_error"]
    assert max(row["seconds"]) <= 600


def test_the_ladder_trains_model_by_model_and_prints_one_table(tmp_path: Path) -> None:
    folder = project(tmp_path / "project")
    variables = {
        "LADDER": "bigram single_head",
        "TEXT": "play.txt",
        "SET": "train.max_steps=4 generate.max_new_tokens=5 evaluate.passages=1",
    }
    done = make(folder, "ladder", **variables)
    assert done.stderr.index("bigram:") < done.stderr.index("single_head:")
    head, *lines = done.stdout.splitlines()
    assert head.startswith("val split")
    names = [re.split(r"  +", line)[0] for line in lines[: lines.index("")]]
    assert set(names) == {
        "bigram-play", "single_head-play", "uniform", "gzip", "xz", "add-one bigram (counts)",
        *(f"{name} (counts)" for name in ("unigram", "bigram", "trigram", "4-gram", "5-gram", "6-gram", "7-gram")),
    }  # fmt: skip
    for name in ("bigram-play", "single_head-play"):
        assert (folder / "artifacts" / "runs" / name / "sample.txt").is_file()
    again = make(folder, "ladder", **variables)
    assert again.stdout == done.stdout, "nothing is trained again"
    assert "validation loss" not in again.stderr


def test_the_ladder_uses_tiny_shakespeare_by_default(built: Path) -> None:
    for words, dataset in [([], "tiny_shakespeare"), (["DATASET=hamlet"], "hamlet")]:
        output = make(built, "-n", "ladder", *words).stdout
        for model in ("bigram", "single_head", "multi_head", "single_block", "decoder"):
            assert f"artifacts/runs/{model}-{dataset}" in output


def test_the_demo_falls_back_to_the_own_run_if_smollm2_is_not_available(built: Path) -> None:
    other = built / "data" / "smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"  # not the pinned file, so that fetch fails
    other.parent.mkdir(parents=True)
    other.write_bytes(b"other")
    done = make(built, "demo", CONFIG="debug", TEXT="play.txt", SET=SMALL)
    other.unlink()
    other.parent.rmdir()
    assert "SmolLM2's weights cannot be had here" in done.stderr
    assert done.stdout.startswith("token")
    assert "\n\nThe capital of France is" in done.stdout


def test_make_serve_serves_the_run_of_the_config(built: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # so that the server ends at once
        port = taken.getsockname()[1]
        done = make(built, "serve", CONFIG="debug", TEXT="play.txt", SET=SMALL, PORT=str(port), code=2)
    assert f"serve: error: 127.0.0.1, port {port}: Address already in use" in done.stderr


def test_make_page_exports_the_run_of_the_config(built: Path) -> None:
    done = make(built, "page", CONFIG="debug", TEXT="play.txt", SET=SMALL)
    assert "artifacts/pages/debug-play.html: 0." in done.stderr
    assert (built / "artifacts" / "pages" / "debug-play.html").is_file()
    assert "artifacts/runs/decoder_fast-tiny_shakespeare" in make(built, "-n", "page").stdout
