"""The README's commands run as they stand there, with config debug in the place of gpt_balanced."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Callable

import pytest

from tests.conftest import PROJECT, TEXT
from tests.pipeline.test_make import ENVIRONMENT, make, project

README = (PROJECT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)


def as_debug(text: str) -> str:
    for real, small in [("hamlet.gpt2.256", "hamlet.bytes.32"), ("hamlet.gpt2", "hamlet.bytes"), ("gpt_balanced", "debug")]:
        text = text.replace(real, small)
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, fetched: Callable[[str], Path]) -> Path:
    """A project folder where `make all` has been run, without a network: data/ is a copy."""
    made = project(tmp_path_factory.mktemp("readme") / "project")
    for name in ("hamlet", "gpt2"):
        shutil.copytree(fetched(name), made / "data", dirs_exist_ok=True)
    (made / "my.txt").write_text(TEXT, encoding="utf-8")
    make(made, "all", CONFIG="debug")
    return made


def run(folder: Path, command: str) -> str:
    words = ["bash", "-c", f"set -euo pipefail\n{command}"]
    done = subprocess.run(words, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_number_is_left_to_be_filled_in() -> None:
    for path in (PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")):
        assert not re.search(r"@[A-Z]+@|to be filled", path.read_text(encoding="utf-8")), path


def test_the_shell_examples_work(folder: Path) -> None:
    (block,) = [block for block in BLOCKS if "tokenize --ids" in block]
    told = run(folder, as_debug(block).replace(". .venv/bin/activate", 'export PATH="$PWD/.venv/bin:$PATH"'))
    assert told.startswith("2514 307 11 393 407 284 307 198\n53603\n")


def test_the_table_of_stages_works(folder: Path) -> None:
    examples = re.findall(r"^\| `([a-z-]+)` \|.*\| `([^`]+)` \|$", README, re.MULTILINE)
    assert [name for name, _ in examples] == [
        "fetch",
        "tokenize",
        "build-dataset",
        "train",
        "evaluate",
        "generate",
        "plot",
        "report",
        "compare",
        "inspect",
        "explain",
        "study",
        "reproduce",
        "import-weights",
        "export-weights",
    ]
    for name, example in examples:
        assert example.startswith(name)
        if name not in ("fetch", "tokenize", "import-weights", "study"):  # GPT-2's weights are 548 MB, a study takes long
            context = " --context-length 32" if name == "build-dataset" else ""
            run(folder, "export PATH=$PWD/.venv/bin:$PATH\n" + as_debug(example) + context)


def test_the_make_examples_work(folder: Path) -> None:
    (block,) = [block for block in BLOCKS if "TEXT=my.txt" in block]
    for line in block.splitlines():
        run(folder, line.replace("make all", "make -n all") if "debug" not in line else line)


def test_the_config_table_names_every_config(folder: Path) -> None:
    configs = re.search(r"configs: (.*)", make(folder).stdout)
    assert configs is not None
    for name in configs[1].split():
        assert f"`{name}`" in README or name in ("gpt2_medium", "gpt2_large")
