"""Shared fixtures: a text, the artifacts of a small run, the stages as real commands."""

import os
import shutil
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Callable

from lib.config.params import choose_params

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: small models are faster on one thread

import pytest

from lib.config.params import load_params
from lib.data.downloads import fetch_input, find_input
from lib.errors import MakegptError
from tests import forks

PROJECT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

#: A text of 3,600 bytes with two-, three- and four-byte characters.
TEXT = "".join(f"{n}. The naïve café — “to be, or not to be” — costs 5 € 😀 today.\n\n" for n in range(50))

#: Small enough that a training takes a second.
TINY = [
    "--set", "train.max_steps=12", "--set", "train.eval_interval=4", "--set", "train.batch_size=4",
]  # fmt: skip

#: An evaluation with one passage of each kind instead of eight; the search for copied passages takes most of its time.
FEW = ["--passages", "1"]


forks.remember_params()


def pytest_configure(config: pytest.Config) -> None:
    """One server of forked stages for all workers, which loads torch while they collect the tests."""
    if not hasattr(config, "workerinput") and getattr(config.option, "numprocesses", None):
        forks.share()


@pytest.fixture(scope="session")
def fetched() -> Callable[[str], Path]:
    """fetched("hamlet"): the data folder with that input; the test is skipped if it is not available."""

    def fetch(name: str) -> Path:
        folder = PROJECT / "data"
        try:
            list(fetch_input(find_input(load_params(PROJECT / "params.yaml"), name), folder))
        except MakegptError as error:
            pytest.skip(f"{name} is not available here: {error}")
        return folder

    return fetch


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "play.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


Stage = Callable[..., "subprocess.CompletedProcess[str]"]
Here = Callable[..., "pytest.CaptureResult[str]"]


@pytest.fixture(scope="session")
def command() -> Stage:
    """command("train", ...): run a stage as the command on the PATH; it must end with `code`."""

    def run(name: str, *words: Any, code: int = 0, **settings: Any) -> "subprocess.CompletedProcess[str]":
        settings = {"cwd": PROJECT, "capture_output": True, "text": True, "timeout": 300} | settings
        return checked(subprocess.run([str(BIN / name), *map(str, words)], **settings), code)

    return run


@pytest.fixture(scope="session")
def stage() -> Stage:
    """stage("train", ...): the same, forked from a process that has already loaded torch."""
    server = forks.shared()

    def run(name: str, *words: Any, code: int = 0, **settings: Any) -> "subprocess.CompletedProcess[str]":
        settings = {"cwd": PROJECT, "input": None, "timeout": 300} | settings
        return checked(server.run([name, *map(str, words)], **settings), code)

    return run


def checked(done: "subprocess.CompletedProcess[str]", code: int) -> "subprocess.CompletedProcess[str]":
    """The completed command, which must have ended with `code`, and with one line if that is an error."""
    assert done.returncode == code, f"{done.args} ended with {done.returncode}: {done.stderr}"
    if code:
        assert len(done.stderr.strip().splitlines()[-1:]) == 1
        assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Here:
    """here("train", ...): the same in this process, which saves the time to load torch; stdout and stderr."""

    def run(name: str, *words: Any, code: int = 0) -> "pytest.CaptureResult[str]":
        before = signal.getsignal(signal.SIGTERM)
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            import_module(f"stages.{name.replace('-', '_')}").main([str(word) for word in words])
        signal.signal(signal.SIGTERM, before)
        choose_params(None)
        output = capsys.readouterr()
        assert exit.value.code == code, output.err
        return output

    return run


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, stage: Stage) -> Path:
    """A folder with tokens/, dataset/ and a finished run/ of config debug; 796 tokens are predicted. Copy what you change."""
    return train_debug(tmp_path_factory.mktemp("small"), stage, *TINY)


def train_debug(folder: Path, stage: Stage, *settings: str) -> Path:
    """Make tokens/, dataset/ and a finished run/ of config debug over `TEXT` in `folder`."""
    (folder / "play.txt").write_text(TEXT, encoding="utf-8")
    stage("tokenize", folder / "play.txt", "-o", folder / "tokens", "--config", "debug")
    stage("build-dataset", folder / "tokens", "-o", folder / "dataset", "--config", "debug", "--val-fraction", 0.2)
    stage("train", folder / "dataset", "-o", folder / "run", "--config", "debug", *settings)
    return folder


@pytest.fixture
def copied(small: Path, tmp_path: Path) -> Path:
    """A copy of `small` to damage."""
    shutil.copytree(small, tmp_path / "copy")
    return tmp_path / "copy"


def spent() -> float:
    """CPU seconds of all commands that have ended, which do not depend on the load of the machine."""
    times = os.times()
    return times.children_user + times.children_system


@pytest.fixture(autouse=True)
def no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
