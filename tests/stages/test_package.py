"""How the commands are found: as scripts, as modules, beside folders of the same names, and not as files."""

import os
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import makegpt
from tests.conftest import PROJECT

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def python(*words: object, cwd: Path = PROJECT, path: str = "", **settings: object) -> "subprocess.CompletedProcess[str]":
    environment = ENVIRONMENT | ({"PYTHONPATH": path} if path else {})
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, **settings)  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of somebody else's that has packages called `lib` and `stages`."""
    folder = tmp_path_factory.mktemp("stranger")
    for name in ("lib", "stages"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("print('somebody else')\n")
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
def test_a_stage_that_is_run_as_a_file_says_how_to_run_it(file: str) -> None:
    done = python(f"stages/{file}", "--help")
    name = file.removesuffix(".py")
    command = name.replace("_", "-")
    assert done.returncode == 2
    assert done.stderr == f"{command}: error: run it as `{command}` or `python -m stages.{name}`, not as a file\n"


def test_every_command_is_an_entry_point_that_exists() -> None:
    scripts = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    order = import_module("stages.__main__").ORDER
    assert set(scripts) == {name.replace("_", "-") for name in order} | {"makegpt"}
    for name in order:
        assert scripts[name.replace("_", "-")] == f"makegpt:{name}"
        assert getattr(makegpt, name).name == name.replace("_", "-")
    with pytest.raises(ImportError):
        makegpt.nothing  # noqa: B018


@pytest.mark.parametrize("place", ["checkout", "wheel"])
def test_a_folder_of_the_same_names_does_no_harm(place: str, stranger: Path, installed: Path, tmp_path: Path) -> None:
    ours = PROJECT if place == "checkout" else installed
    path = f"{stranger}{os.pathsep}{ours}"
    done = python("-m", "makegpt", "tokenize", "--ids", "--tokenizer", "bytes", cwd=tmp_path, path=path, input="Hi")
    assert (done.stdout, done.stderr) == ("72 105\n", "")
    script = "import sys; from makegpt import build_dataset; sys.argv = ['build-dataset', '--help']; sys.exit(build_dataset())"
    done = python("-c", script, cwd=tmp_path, path=path)
    assert (done.stdout[:20], done.stderr) == ("Usage: build-dataset", "")


def test_a_module_of_the_checkout_is_run_whatever_pythonpath_holds(stranger: Path) -> None:
    done = python("-m", "stages.tokenize", "--ids", "--tokenizer", "bytes", path=str(stranger), input="Hi")
    assert (done.stdout, done.stderr) == ("72 105\n", "")


def test_makegpt_lists_the_commands_and_answers_a_typing_error_with_the_nearest() -> None:
    assert python("-m", "makegpt").stdout == python("-m", "stages").stdout
    done = python("-m", "makegpt", "trian")
    assert (done.returncode, done.stderr) == (2, "makegpt: error: there is no command 'trian'; did you mean 'train'?\n")
