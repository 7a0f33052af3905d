"""The house's rules, held by reading the sources."""

import ast
from pathlib import Path

import pytest

import lib
from tests.conftest import PROJECT

ROOMS = {room: floor for floor, rooms in enumerate(lib.LAYERS) for room in rooms}
LIB = sorted((PROJECT / "lib").rglob("*.py"))
STAGES = sorted((PROJECT / "stages").glob("*.py"))


def imported(path: Path) -> set[str]:
    """The modules a source file imports, as dotted names; `from lib import a` counts as lib.a."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(path: Path) -> str:
    return path.relative_to(PROJECT / "lib").with_suffix("").parts[0]


def test_every_module_of_lib_has_its_floor() -> None:
    assert {room(path) for path in LIB} - {"__init__"} == set(ROOMS)


@pytest.mark.parametrize("path", LIB, ids=lambda path: str(path.relative_to(PROJECT)))
def test_lib_imports_only_from_floors_below(path: Path) -> None:
    here = room(path)
    for name in imported(path):
        first, _, rest = name.partition(".")
        assert first not in ("stages", "click", "argparse"), f"{path} imports {name}"
        target = rest.split(".")[0]
        if first == "lib" and target in ROOMS and target != here:
            assert ROOMS[target] < ROOMS[here], f"{path} imports {name}, which stands on its own floor or above"


@pytest.mark.parametrize("path", LIB, ids=lambda path: str(path.relative_to(PROJECT)))
def test_lib_prints_nothing(path: Path) -> None:
    calls = [node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert "print" not in {call.id for call in calls if isinstance(call, ast.Name)}


def test_the_grid_of_the_figures_has_one_home() -> None:
    assert [path.name for path in LIB if "grid(alpha" in path.read_text(encoding="utf-8")] == ["figures.py"]


def test_the_model_knows_nothing_of_files() -> None:
    for path in (PROJECT / "lib" / "model").glob("*.py"):
        for name in imported(path):
            assert not name.startswith(("lib.artifact", "lib.run", "lib.checkpoint", "pathlib", "os", "json", "safetensors"))


@pytest.mark.parametrize("path", STAGES, ids=lambda path: path.name)
def test_stages_do_not_import_each_other(path: Path) -> None:
    others = {f"stages.{other.stem}" for other in STAGES if other.stem not in ("__init__", path.stem)}
    assert not imported(path) & others
    assert "torch" not in {name.split(".")[0] for name in imported(path)}


def test_no_file_is_longer_than_a_sitting() -> None:
    for path in [*LIB, *STAGES]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, path


def test_no_framework_stands_in_for_the_model() -> None:
    forbidden = ("transformers", "lightning", "accelerate", "torchtune", "litgpt", "nanogpt")
    for path in [*LIB, *STAGES]:
        source = path.read_text(encoding="utf-8")
        assert not {name.split(".")[0] for name in imported(path)} & set(forbidden)
        for word in ("nn.Transformer", "nn.MultiheadAttention", "nn.LayerNorm", "import pickle", "torch.save("):
            assert word not in source, f"{path} uses {word}"
