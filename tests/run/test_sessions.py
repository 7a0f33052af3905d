"""A run tells where its inputs are now, and with what each of its steps was trained."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lib.artifact.io import read_json
from lib.artifact.manifest import Manifest, read_manifest, write_manifest
from lib.artifact.provenance import software_versions
from lib.run.folder import EVALUATION_FILE, MODEL_FILE, dataset_folder, sessions_of
from lib.run.sessions import all_versions
from tests.conftest import FEW, PROJECT, TINY, Here

CONFIG = ["--config", "debug"]
TRAIN = [*CONFIG, *TINY]


@pytest.fixture
def stopped(copied: Path, here: Here) -> Path:
    """A copy of `small` whose run was stopped after its first step."""
    here("train", copied / "dataset", "-o", copied / "run", *TRAIN, "--resume", "never", "--stop-after", "0")
    return copied


def manifest_of(folder: Path) -> Manifest:
    return read_manifest(folder, "run")


def steps_of(folder: Path) -> list[tuple[int, int | None]]:
    return [(session.from_step, session.to_step) for session in sessions_of(folder, manifest_of(folder))]


def test_a_run_lists_the_sessions_it_was_trained_in_and_ends_with_the_same_bytes(
    stopped: Path, small: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert steps_of(stopped / "run") == [(0, 1)]
    versions = software_versions() | {"torch": "99.0", "commit": "abcdef012345", "dirty": False, "processor": "2 cores of X"}
    monkeypatch.setattr("lib.run.sessions.software_versions", lambda: versions)
    told = here("train", stopped / "dataset", "-o", stopped / "run", *TRAIN).err
    notice = next(line for line in told.splitlines() if line.startswith("the steps so far were done"))
    assert ", not with torch 99.0" in notice
    assert ", not on X" in notice
    assert ", not with commit abcdef0123" in notice or not (PROJECT / ".git").exists()
    assert steps_of(stopped / "run") == [(0, 1), (1, 12)]
    first, second = manifest_of(stopped / "run").sessions
    assert (first.versions["torch"] != "99.0", second.versions["torch"]) == (True, "99.0")
    assert first.ended is not None
    assert all_versions(manifest_of(stopped / "run"))["torch"] == f"{first.versions['torch']} or 99.0"
    assert (stopped / "run" / MODEL_FILE).read_bytes() == (small / "run" / MODEL_FILE).read_bytes()
    shown = json.loads(here("inspect", stopped / "run", "--json").out)["made_by"]["sessions"]
    assert [each["to_step"] for each in shown] == [1, 12]
    here("report", stopped / "run", "-o", stopped / "report.html")
    page = (stopped / "report.html").read_text(encoding="utf-8")
    assert re.search(r"sessions</dt>\s*<dd>(?:<code>)?2\b", page), "both are listed"
    assert "torch 99.0" in page


def test_a_session_that_was_killed_is_there_up_to_its_last_saved_step(stopped: Path, here: Here) -> None:
    manifest = manifest_of(stopped / "run")
    killed = replace(manifest.sessions[0], to_step=None, ended=None)  # what stands there while it trains
    write_manifest(stopped / "run", replace(manifest, sessions=(killed,)))
    assert steps_of(stopped / "run") == [(0, 1)]
    here("train", stopped / "dataset", "-o", stopped / "run", *TRAIN)
    assert steps_of(stopped / "run") == [(0, 1), (1, 12)]
    assert manifest_of(stopped / "run").sessions[0].ended is None


def test_a_session_of_which_no_step_is_kept_is_left_out(stopped: Path, here: Here) -> None:
    manifest = manifest_of(stopped / "run")
    lost = replace(manifest.sessions[0], from_step=1, to_step=None)
    write_manifest(stopped / "run", replace(manifest, sessions=(*manifest.sessions, lost)))
    here("train", stopped / "dataset", "-o", stopped / "run", *TRAIN)
    assert steps_of(stopped / "run") == [(0, 1), (1, 12)]


def test_a_manifest_of_a_training_without_sessions_is_damaged(stopped: Path, here: Here) -> None:
    manifest = manifest_of(stopped / "run")
    write_manifest(stopped / "run", replace(manifest, sessions=()))
    error = here("train", stopped / "dataset", "-o", stopped / "run", *TRAIN, code=2).err
    assert "its manifest.json is damaged" in error


# Where the inputs are.


def moved_dataset(folder: Path) -> Path:
    """Move the dataset and the tokens it is made of; return where the dataset is now, which has an odd name."""
    new = folder / os.fsdecode(b"new \xff place")
    new.mkdir()
    for name in ("tokens", "dataset"):
        (folder / name).rename(new / name)
    return new / "dataset"


def test_a_dataset_that_moved_is_recorded_when_the_training_goes_on(
    stopped: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = moved_dataset(stopped)
    monkeypatch.chdir(dataset.parent)
    here("train", "dataset", "-o", "../run", *TRAIN)
    assert dataset_folder(stopped / "run").resolve() == dataset.resolve()
    monkeypatch.chdir("/")
    here("evaluate", stopped / "run", "-o", stopped / "evaluation.json", *FEW)
    here("evaluate", stopped / "run", "--text", stopped / "play.txt", "-o", stopped / "text.json")
    assert "bigram" in read_json(stopped / "text.json")["baselines"]


def test_a_finished_run_is_told_where_its_dataset_is_now(copied: Path, here: Here) -> None:
    dataset, before = moved_dataset(copied), (copied / "run" / MODEL_FILE).stat()
    told = here("evaluate", copied / "run", code=1).err
    assert f"at {(copied / 'dataset').resolve()}, which does not exist; name it: `evaluate {copied / 'run'} DATASET`" in told
    here("evaluate", copied / "run", dataset, "-o", copied / "named.json", *FEW)
    assert "memorization" in read_json(copied / "named.json"), "it is the run's own, wherever it is"
    assert "recorded that its inputs are now at" in here("train", dataset, "-o", copied / "run", *TRAIN).err
    assert "nothing to do" in here("train", dataset, "-o", copied / "run", *TRAIN).err
    here("evaluate", copied / "run", "-o", copied / "found.json", *FEW)
    assert (copied / "found.json").read_bytes() == (copied / "named.json").read_bytes()
    after = (copied / "run" / MODEL_FILE).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def rebuild(folder: Path, here: Here) -> None:
    here("build-dataset", folder / "elsewhere", "-o", folder / "dataset", *CONFIG, "--val-fraction", "0.2")


def retrain(folder: Path, here: Here) -> None:
    here("train", folder / "elsewhere", "-o", folder / "run", *TRAIN)


#: What moved, a command that needs it, what it says then (None: it goes on without), what mends it.
MOVED: list[tuple[str, list[str], str | None, Any]] = [
    ("tokens", ["evaluate", "run", "--set", "evaluate.passages=0"], "rebuild it with `build-dataset TOKENS -o", rebuild),
    ("tokens", ["train", "dataset", "-o", "run2", *TRAIN], "rebuild it with `build-dataset TOKENS -o", rebuild),
    ("tokens", ["inspect", "dataset", "--verify"], None, rebuild),
    ("tokens", ["evaluate", "run", "--text", "play.txt"], None, rebuild),
    ("dataset", ["evaluate", "run", "--set", "evaluate.passages=0"], "name it: `evaluate", retrain),
    ("dataset", ["evaluate", "run", "--text", "play.txt"], None, retrain),
    ("dataset", ["inspect", "run", "--verify"], None, retrain),
    ("dataset", ["report", "run", "-o", "report.html"], None, retrain),
]


@pytest.mark.parametrize(("what", "words", "says", "mend"), MOVED)
def test_what_moved_alone_is_named_and_its_new_place_can_be_recorded(
    what: str, words: list[str], says: str | None, mend: Any, copied: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied)
    (copied / what).rename(copied / "elsewhere")
    told = here(*words, code=0 if says is None else 1)
    assert says is None or says in told.err
    assert "../" not in told.err, "nobody wants it at run/../dataset"
    if says is None and words[0] != "report":
        assert str(copied / what) in told.err, "what is not there is not passed over in silence"
    mend(copied, here)
    told = here(*words)
    assert str(copied / what) not in told.err
    if words[-1] == "--verify":
        assert f"{copied.resolve() / 'elsewhere'}: every file is as it was written" in told.err


@pytest.mark.parametrize("how", ["moved together", "the run copied beside", "behind a link", "the run alone, deeper"])
def test_a_way_that_still_leads_to_the_dataset_is_gone(how: str, copied: Path, here: Here, tmp_path: Path) -> None:
    folder, code = copied / "run", 0
    match how:
        case "moved together":
            folder = copied.rename(tmp_path / "x\nwith a break") / "run"
        case "the run copied beside":
            folder = Path(shutil.copytree(copied / "run", copied / "copy"))
        case "behind a link":
            (tmp_path / "deep" / "er").mkdir(parents=True)
            folder = tmp_path / "deep" / "er" / "link"
            folder.symlink_to(copied / "run")
        case _:
            (copied / "deep").mkdir()
            folder, code = (copied / "run").rename(copied / "deep" / "run"), 1
    told = here("evaluate", folder, *FEW, *(["-o", folder / EVALUATION_FILE] if not code else []), code=code)
    assert code == 0 or f"name it: `evaluate {folder} DATASET`" in told.err


def test_another_dataset_in_the_place_of_a_runs_own_is_not_taken_for_it(copied: Path, here: Here) -> None:
    here("build-dataset", copied / "tokens", "-o", copied / "dataset", *CONFIG, "--val-fraction", "0.3")
    assert "has changed since" in here("evaluate", copied / "run", code=1).err
    here("evaluate", copied / "run", copied / "dataset", "-o", copied / "named.json", *FEW)


def test_an_export_tells_that_its_run_moved_and_made_again_where_it_is(copied: Path, here: Here) -> None:
    here("export-weights", copied / "run", "-o", copied / "export")
    (copied / "run").rename(copied / "elsewhere")
    assert f"{copied / 'run'}: it no longer exists" in here("inspect", copied / "export", "--verify").err
    here("export-weights", copied / "elsewhere", "-o", copied / "export")
    assert "no longer exists" not in here("inspect", copied / "export", "--verify").err
