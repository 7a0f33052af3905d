"""What several tests need: a text, the pipeline's artifacts of a small run, the stages as real commands."""

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

#: An evaluation of which most time goes into passages to search for what was copied, with one of each kind instead of eight.
FEW = ["--passages", "1"]


forks.remember_params()


def pytest_configure(config: pytest.Config) -> None:
    """One server of forked stages for all workers, which begins to load torch while they collect the tests."""
    if not hasattr(config, "workerinput") and getattr(config.option, "numprocesses", None):
        forks.share()


@pytest.fixture(scope="session")
def fetched() -> Callable[[str], Path]:
    """fetched("hamlet"): the data folder, that input in it; the test is skipped where it cannot be had."""

    def fetch(name: str) -> Path:
        folder = PROJECT / "data"
        try:
            list(fetch_input(find_input(load_params(PROJECT / "params.yaml"), name), folder))
        except MakegptError as error:
            pytest.skip(f"{name} cannot be had here: {error}")
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
    """stage("train", ...): the same, forked from a process that has loaded torch already."""
    server = forks.shared()

    def run(name: str, *words: Any, code: int = 0, **settings: Any) -> "subprocess.CompletedProcess[str]":
        settings = {"cwd": PROJECT, "input": None, "timeout": 300} | settings
        return checked(server.run([name, *map(str, words)], **settings), code)

    return run


def checked(done: "subprocess.CompletedProcess[str]", code: int) -> "subprocess.CompletedProcess[str]":
    """What a command came to, if it ended with `code`, and with one line where that is an error."""
    assert done.returncode == code, f"{done.args} ended with {done.returncode}: {done.stderr}"
    if code:
        assert len(done.stderr.strip().splitlines()[-1:]) == 1
        assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Here:
    """here("train", ...): the same without a process of its own, which saves the time to load torch; stdout and stderr."""

    def run(name: str, *words: Any, code: int = 0) -> "pytest.CaptureResult[str]":
        before = signal.getsignal(signal.SIGTERM)
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            import_module(f"stages.{name.replace('-', '_')}").main([str(word) for word in words])
        signal.signal(signal.SIGTERM, before)
        choose_params(None)
        told = capsys.readouterr()
        assert left.value.code == code, told.err
        return told

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
    """Seconds of processor time of all commands that have ended: what they took, however busy the machine is."""
    times = os.times()
    return times.children_user + times.children_system


@pytest.fixture(autouse=True)
def no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
