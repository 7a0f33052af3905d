"""The entry points of the commands. `makegpt` is the only top-level package that the wheel installs.

Other folders on PYTHONPATH may have packages called `lib` and `stages` too. So the folder with those of this project is put
first on `sys.path`: the checkout, or in a wheel this package itself. The command `train` is `makegpt.train`.
"""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

_PACKAGE = Path(__file__).resolve().parent


def load(module: str) -> ModuleType:
    """Import a module of this project's `stages` or `lib`, whatever else has that name."""
    root = str(_PACKAGE if (_PACKAGE / "stages").is_dir() else _PACKAGE.parent)
    if sys.path[:1] != [root]:
        sys.path.insert(0, root)
    return import_module(module)


def __getattr__(name: str) -> Callable[..., Any]:
    """The command of the stage in `stages/NAME.py`, for the entry points of pyproject.toml."""
    if name.startswith("_"):
        raise AttributeError(name)
    command: Callable[..., Any] = load(f"stages.{name}").main
    return command
