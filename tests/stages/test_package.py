"""How the commands are started: as scripts, as modules, next to folders of the same names, and not as files."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import makegpt
from stages import STAGES, command_name
from tests.conftest import PROJECT

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def python(*words: object, cwd: Path = PROJECT, path: str = "", **settings: object) -> "subprocess.CompletedProcess[str]":
    environment = ENVIRONMENT | ({"PYTHONPATH": path} if path else {})
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, **settings)  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="module")
def other_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of another program that has packages called `lib` and `stages`."""
    folder = tmp_path_factory.mktemp("other_program")
    for name in ("lib", "stages"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("print('another program')\n")
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as pyproject.toml lays out the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    places = {name: name for name in settings["only-include"]} | settings["sources"]
    for source, place in [*places.items(), *settings["force-include"].items()]:
        if (PROJECT / source).is_dir():
            shutil.copytree(PROJECT / source, folder / place, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            shutil.copy(PROJECT / source, folder / place)
    assert [entry.name for entry in folder.iterdir()] == ["makegpt"], "one package of its own"
    return folder


@pytest.mark.parametrize("file", sorted(path.name for path in (PROJECT / "stages").glob("[a-z]*.py")))
def test_a_stage_run_as_a_file_says_how_to_run_it(file: str) -> None:
    done = python(f"stages/{file}", "--help")
    name = file.removesuffix(".py")
    command = name.replace("_", "-")
    assert done.returncode == 2
    assert done.stderr == f"{command}: error: run it as `{command}` or `python -m stages.{name}`, not as a file\n"


def test_the_list_of_stages_is_that_of_the_files_and_of_the_entry_points() -> None:
    assert set(STAGES) == {path.stem for path in (PROJECT / "stages").glob("[a-z]*.py")}
    scripts = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    commands = {command_name(stage): f"makegpt:{stage}" for stage in STAGES}
    assert list(scripts.items()) == [("makegpt", "makegpt.__main__:main"), *commands.items()]
    for stage in STAGES:
        assert getattr(makegpt, stage).name == command_name(stage)
    with pytest.raises(ImportError):
        makegpt.nothing  # noqa: B018


@pytest.mark.parametrize("place", ["checkout", "wheel"])
def test_packages_with_the_same_names_are_not_imported(
    place: str, other_program: Path, installed: Path, tmp_path: Path
) -> None:
    ours = PROJECT if place == "checkout" else installed
    path = f"{other_program}{os.pathsep}{ours}"
    done = python("-m", "makegpt", "tokenize", "--ids", "--tokenizer", "bytes", cwd=tmp_path, path=path, input="Hi")
    assert (done.stdout, done.stderr) == ("72 105\n", "")
    script = "import sys; from makegpt import build_dataset; sys.argv = ['build-dataset', '--help']; sys.exit(build_dataset())"
    done = python("-c", script, cwd=tmp_path, path=path)
    assert (done.stdout[:20], done.stderr) == ("Usage: build-dataset", "")


def test_a_module_of_the_checkout_is_run_with_any_pythonpath(other_program: Path) -> None:
    done = python("-m", "stages.tokenize", "--ids", "--tokenizer", "bytes", path=str(other_program), input="Hi")
    assert (done.stdout, done.stderr) == ("72 105\n", "")


@pytest.mark.parametrize("module", ["makegpt", "stages"])
@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_makegpt_lists_the_stages_with_one_line_each(module: str, words: list[str]) -> None:
    done = python("-m", module, *words)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout[done.stdout.index("Stages:") :].splitlines()[1:]
    assert [line.split(maxsplit=1) for line in lines] == [[command_name(name), about] for name, about in STAGES.items()]
    assert max(map(len, lines)) <= 79


@pytest.mark.parametrize("words", ["trian", "trian --config debug"])
def test_makegpt_suggests_the_nearest_stage(words: str) -> None:
    done = python("-m", "makegpt", *words.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "makegpt: error: unknown stage 'trian'; did you mean 'train'?\n"


@pytest.mark.parametrize("module", ["makegpt", "stages"])
def test_a_closed_pipe_ends_the_list_quietly(module: str) -> None:
    command = f"set -o pipefail; {sys.executable} -m {module} | exec 0<&-"
    done = subprocess.run(["bash", "-c", command], cwd=PROJECT, env=ENVIRONMENT, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_stage_of_makegpt_reports_its_full_name() -> None:
    done = python("-m", "makegpt", "tokenize", "--ids", "--tokenizer", "bytes", input="Hi")
    assert (done.returncode, done.stdout, done.stderr) == (0, "72 105\n", "")
    assert python("-m", "makegpt", "build-dataset", "--help").stdout.startswith("Usage: makegpt build-dataset [OPTIONS] TOKENS")
    done = python("-m", "makegpt", "fetch", "hamlett")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("makegpt fetch: error: ")
    assert "did you mean 'hamlet'?" in done.stderr
