"""The design rules of CONTRIBUTING.md, checked by reading the sources."""

import ast
from pathlib import Path

import lib
from tests.conftest import PROJECT

FLOORS = {room: floor for floor, room in enumerate(lib.LAYERS)}
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
    """The room of a file of lib: its package, or the module that stands there alone."""
    return path.relative_to(PROJECT / "lib").with_suffix("").parts[0]


def test_the_listing_of_lib_is_the_diagram() -> None:
    assert {room(path) for path in LIB} - {"__init__"} == set(FLOORS)
    alone = {path.stem for path in (PROJECT / "lib").glob("*.py")} - {"__init__"}
    assert alone == {"errors", "book", "api"}


def test_a_room_imports_only_from_rooms_above_its_own_line() -> None:
    upwards = []
    for path in LIB:
        for name in imported(path) - ({"lib.api.Model"} if room(path) == "__init__" else set()):
            first, _, rest = name.partition(".")
            target = rest.split(".")[0]
            outside = first in ("stages", "click", "argparse")
            if outside or (
                first == "lib" and target in FLOORS and target != room(path) and FLOORS[target] >= FLOORS[room(path)]
            ):
                upwards.append(f"{path.relative_to(PROJECT)} imports {name}")
    assert not upwards


def test_no_two_modules_of_a_room_import_each_other() -> None:
    """Nor any longer circle: taking away what imports nothing that is left takes away everything."""
    modules = {".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): path for path in LIB}
    imports = {module: {name + "." for name in imported(path)} for module, path in modules.items()}
    left = {
        module: {other for other in modules if other != module and any(name.startswith(other + ".") for name in names)}
        - {module.rpartition(".")[0], "lib"}
        for module, names in imports.items()
    }
    while free := [module for module, needs in left.items() if not needs & left.keys()]:
        for module in free:
            del left[module]
    assert not left


def test_package_init_files_have_a_docstring_only() -> None:
    for path in (PROJECT / "lib").glob("*/__init__.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), path
        assert len(tree.body) == 1, path


def test_lib_prints_nothing() -> None:
    printing = [
        path
        for path in LIB
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not printing


def test_the_grid_of_the_figures_is_in_one_module() -> None:
    assert [path.name for path in LIB if "grid(alpha" in path.read_text(encoding="utf-8")] == ["style.py"]


def test_the_model_knows_nothing_of_files() -> None:
    for path in (PROJECT / "lib" / "model").glob("*.py"):
        for name in imported(path):
            assert not name.startswith(
                ("lib.artifact.manifest", "lib.run.folder", "lib.artifact.tensors", "pathlib", "os", "json", "safetensors")
            )


def test_stages_do_not_import_each_other() -> None:
    for path in STAGES:
        others = {f"stages.{other.stem}" for other in STAGES if other.stem not in ("__init__", path.stem)}
        assert not imported(path) & others, path
        assert "torch" not in {name.split(".")[0] for name in imported(path)}, path


def test_no_file_is_longer_than_300_lines() -> None:
    for path in [*LIB, *STAGES]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, path


def test_no_framework_replaces_the_model() -> None:
    forbidden = ("transformers", "lightning", "accelerate", "torchtune", "litgpt", "nanogpt")
    for path in [*LIB, *STAGES]:
        source = path.read_text(encoding="utf-8")
        assert not {name.split(".")[0] for name in imported(path)} & set(forbidden)
        for word in ("nn.Transformer", "nn.MultiheadAttention", "nn.LayerNorm", "import pickle", "torch.save("):
            assert word not in source, f"{path} uses {word}"
