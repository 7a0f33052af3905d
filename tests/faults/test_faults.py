"""The campaign of faults: its short form here, all of it with FAULTS=long (`make test-faults`)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT

COMPILER = shutil.which("cc")
LONG = os.environ.get("FAULTS") == "long"


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not sys.platform.startswith("linux") or COMPILER is None:
        pytest.skip("the shim wants Linux and a C compiler called cc")
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    source = Path(__file__).parent / "shim.c"
    compiled = subprocess.run(
        [COMPILER, "-O2", "-shared", "-fPIC", source, "-o", library, "-ldl"], capture_output=True, text=True
    )
    if compiled.returncode:
        pytest.skip(f"the shim cannot be compiled here: {compiled.stderr.strip().splitlines()[-1]}")
    return library


def test_whatever_fails_the_old_output_or_the_new_one_is_whole_and_the_same_command_then_finishes(
    shim: Path, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "tests.faults.campaign", tmp_path / "campaign", "long" if LONG else "short"]
    environment = os.environ | {"LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True)
    if LONG:
        print(done.stdout)
    assert done.returncode == 0, "\n".join(line for line in done.stdout.splitlines() if not line.startswith("#"))
    assert done.stdout.count(" faults, ") > 10, done.stdout
