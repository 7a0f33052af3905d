"""The environment of a command: terminals, encodings, home folders, caches, and errors of the system."""

import io
import logging
import os
import pty
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

from lib.artifact.tensors import load_tensors, open_safetensors
from lib.data.shards import open_shard
from lib.errors import MakegptError
from lib.generate.kernel import _kernel_or_reason, load_kernel, why_no_kernel
from stages.shared import terminal
from stages.shared.streams import replace_unencodable_characters, silence_other_packages
from tests.conftest import FEW, PROJECT, TINY, Here, Stage


def test_a_run_folder_with_a_name_that_is_not_unicode_works_in_every_stage(small: Path, tmp_path: Path, here: Here) -> None:
    folder = tmp_path / os.fsdecode(b"run\xff")
    here("train", small / "dataset", "-o", folder, "--config", "debug", *TINY, "--stop-after", "0")
    here("train", small / "dataset", "-o", folder, "--config", "debug", *TINY)
    here("generate", folder, "To", "--max-new-tokens", 2, "-o", tmp_path / "text")
    here("generate", folder, "To", "--max-new-tokens", 2, "--weights", "last", "-o", tmp_path / "text")
    here("evaluate", folder, "-o", folder / "evaluation.json", *FEW)
    here("inspect", folder / "model.safetensors")
    here("compare", folder)
    here("report", folder, "-o", folder / "report.html")
    here("plot", "loss", folder, "-o", folder / "loss.png")
    here("train", small / "dataset", "-o", tmp_path / "on", "--init-from", folder, "--config", "debug", *TINY)
    assert (folder / "model.safetensors").read_bytes() == (small / "run" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("read", [load_tensors, open_shard])
def test_an_error_of_the_system_is_not_reported_as_damage(read: Any, tmp_path: Path) -> None:
    path = tmp_path / "file.npy"
    path.symlink_to("/proc/version")  # it can be read, and not mapped
    if read is open_shard:
        path.unlink()
        path.mkdir()
    with pytest.raises((OSError, MakegptError)) as refused:
        read(path)
    assert "damaged" not in str(refused.value)
    assert "not a token shard" not in str(refused.value)
    assert str(path) in str(refused.value)


def test_bytes_that_are_not_safetensors_are_reported_as_damage(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    with pytest.raises(MakegptError, match="is damaged: it cannot be read as safetensors"):
        load_tensors(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_file_without_read_permission_is_reported_as_such(tmp_path: Path) -> None:
    save_file({}, tmp_path / "m.safetensors")
    (tmp_path / "m.safetensors").chmod(0)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setuid(65534)
            with open_safetensors(tmp_path / "m.safetensors"):
                pass
        except PermissionError:
            code = 0
        except BaseException:
            code = 2
        os._exit(code)
    tmp_path.chmod(0o755)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# Homes and caches.


@pytest.fixture
def forgotten() -> Any:
    """The kernel is looked for again, and again afterwards."""
    _kernel_or_reason.cache_clear()
    yield
    _kernel_or_reason.cache_clear()


def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", home)


@pytest.mark.skipif(load_kernel() is None, reason="there is no C++ compiler")
def test_the_kernel_is_compiled_without_a_home_folder(forgotten: None, monkeypatch: pytest.MonkeyPatch) -> None:
    no_home(monkeypatch)
    assert load_kernel() is not None
    assert why_no_kernel() is None


@pytest.mark.parametrize(
    ("compiler", "says"),
    [
        ("nowhere-c++", "'nowhere-c++' was not found"),
        ("false", "the C++ compiler 'false' failed"),
        ("'", "is not a valid command"),
    ],
)
def test_the_reason_for_a_missing_kernel_is_reported(
    compiler: str, says: str, forgotten: None, small: Path, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    for weights, consequence in (("int8", "int8 weights take less memory"), ("float32", "PyTorch computes instead")):
        words = [small / "run", "To", "--weights", weights, "--max-new-tokens", 1, "-o", tmp_path / "text.txt"]
        stderr = here("generate", *words).err
        assert says in stderr
        assert consequence in stderr
        assert len(stderr.splitlines()) == 1
    assert says in here("evaluate", small / "run", "--weights", "bfloat16", "-o", tmp_path / "evaluation.json").err


def test_a_kernel_that_is_switched_off_gives_no_message(
    forgotten: None, small: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAKEGPT_KERNEL", "off")
    assert not here("generate", small / "run", "To", "--max-new-tokens", 1).err


def test_a_missing_temporary_folder_is_not_reported_as_a_missing_compiler(
    forgotten: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(**_: Any) -> Any:
        raise FileNotFoundError(2, "No usable temporary directory found")

    no_home(monkeypatch)
    monkeypatch.setattr(tempfile, "TemporaryDirectory", none)
    assert "No usable temporary directory" in str(why_no_kernel())


def test_a_figure_without_a_home_folder_prints_nothing(tmp_path: Path, command: Stage) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": "/dev/null", "OMP_NUM_THREADS": "1"}
    words = ["schedule", "--config", "debug", "-o", tmp_path / "x.png", "--width", 1.5, "--height", 1]
    assert command("plot", *words, env=env).stderr == ""


# Warnings and sizes of figures.


def test_warnings_and_log_lines_of_other_packages_never_reach_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.lastResort
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            silence_other_packages()
            warnings.warn("Glyph 128512 missing from font", stacklevel=1)
            logging.getLogger("matplotlib").warning("Matplotlib created a temporary cache directory")
    finally:
        logging.lastResort = before
    assert capsys.readouterr().err == ""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["model", "schedule", "mask"])
@pytest.mark.parametrize(
    ("width", "height", "dpi"), [(1, 1, 10), (1.5, 1.5, 100), (100, 100, 1000), (100, 1, 1000), (1, 100, 10)]
)
def test_every_size_of_the_help_is_drawn_or_refused_in_one_line(
    kind: str, width: float, height: float, dpi: int, tmp_path: Path, here: Here
) -> None:
    if kind != "model" and (width, dpi) != (1, 10) and (height, dpi) != (100, 1000):
        pytest.skip("one kind is enough for what does not depend on its letters")
    words = ["plot", kind, "--config", "debug", "-o", tmp_path / "x.png", "--width", width, "--height", height, "--dpi", dpi]
    small, large = (dpi == 10 and kind == "model"), max(width, height) * dpi > 1 << 16
    try:
        result = here(*words)
    except AssertionError:
        result = here(*words, code=2)
        assert small or large
        assert ("is too large" if large else "is too small for its letters") in result.err
    assert "bug in makegpt" not in result.err
    assert len(result.err.splitlines()) <= 1


# Terminals and encodings.


@pytest.mark.parametrize(("term", "obeys"), [("xterm", True), ("dumb", False), ("", False), (None, False), ("unknown", False)])
def test_a_terminal_that_cannot_overwrite_a_line_is_not_used_as_one(
    term: str | None, obeys: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TERM", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if term is not None:
        monkeypatch.setenv("TERM", term)
    here_end, there_end = pty.openpty()
    with open(there_end, "w", encoding="utf-8") as file:
        assert terminal.obeys_escapes(file) is obeys
        assert terminal.colored(file) is obeys
        assert terminal.columns(file) == 80, "a terminal that says 0"
    os.close(here_end)


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (PROJECT / "stages").glob("*.py") if not path.stem.startswith("_"))
)
def test_every_help_can_be_shown_in_any_encoding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    for encoding in ("utf-8", "latin-1", "ascii"):
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(SystemExit) as left:
            __import__(f"stages.{name}", fromlist=["main"]).main(["--help"])
        assert left.value.code == 0
        out.flush()
        shown.append(out.buffer.getvalue())  # type: ignore[attr-defined]
    assert shown[0] == shown[1] == shown[2]


def test_unencodable_characters_are_escaped_on_a_terminal_and_utf_8_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    for kind, expected in ((Terminal, b"\\u20ac\xe9\\udcff"), (io.TextIOWrapper, "€é\\udcff".encode())):
        out = kind(io.BytesIO(), encoding="latin-1")
        monkeypatch.setattr(sys, "stdout", out)
        replace_unencodable_characters()
        out.write("€é\udcff")
        out.flush()
        assert out.buffer.getvalue() == expected  # type: ignore[attr-defined]


def test_text_on_stdout_is_utf_8_whatever_the_environment_says(small: Path) -> None:
    env = os.environ | {"PYTHONIOENCODING": "latin-1"}
    words = [sys.executable, "-m", "stages.plot", "tokens", str(small / "run"), "--prompt", "“€” 😀"]
    done = subprocess.run(words, cwd=PROJECT, env=env, capture_output=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, b"")
    done.stdout.decode("utf-8")
