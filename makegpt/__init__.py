"""The commands of the project under one name of its own: `makegpt` is the only package that a wheel installs.

`lib` and `stages` are names that any other folder of PYTHONPATH may have, too. So the folder that holds ours comes first on
`sys.path`: the checkout, or in a wheel this package itself. `train` is `makegpt.train`, and `python -m makegpt train`.
"""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

_HERE = Path(__file__).resolve().parent


def load(module: str) -> ModuleType:
    """A module of our `stages` or `lib`, whatever else is called so."""
    home = str(_HERE if (_HERE / "stages").is_dir() else _HERE.parent)
    if sys.path[:1] != [home]:
        sys.path.insert(0, home)
    return import_module(module)


def __getattr__(name: str) -> Callable[..., Any]:
    """The command of the stage in the file `name`, for the entry points of pyproject.toml."""
    if name.startswith("_"):
        raise AttributeError(name)
    command: Callable[..., Any] = load(f"stages.{name}").main
    return command
