"""`params.yaml`: where to find it, how to read it, and how to resolve a named config with `--set` changes.

The file has `defaults` (every parameter, one section per stage), `configs` (named overrides of them; `extends: NAME`
starts from another one), `wheels` and `inputs` (the pinned files of `fetch`; `lib.data.downloads` reads those two).
"""

import copy
import os
import re
import warnings
from pathlib import Path
from typing import Any, Iterable

from lib import PROJECT
from lib.config.schema import SECTIONS, Config, build_config
from lib.config.strict_yaml import YamlTree, read_yaml
from lib.errors import IgnoredFileWarning, MakegptError, UsageError, nearest

_EXTENDS = "extends"
_PARTS = ("defaults", "configs", "wheels", "inputs")


def params_candidates(name: str) -> list[Path]:
    """Where to look for a project file such as `params.yaml` or `data`: the current folder, then the project."""
    return [Path(name), PROJECT / name]


def choose_params(path: Path | None) -> None:
    """Make `find_params` return `path` from now on; None restores the search."""
    global _chosen
    _chosen = path


_chosen: Path | None = None


def find_params() -> Path:
    """The `params.yaml` of --params, or of MAKEGPT_PARAMS, or of the current folder, or of the project, in this order.

    Warns with IgnoredFileWarning if it ignores one in the current folder that belongs to another program.
    """
    if path := _chosen or (os.environ.get("MAKEGPT_PARAMS") and Path(os.environ["MAKEGPT_PARAMS"])):
        if not path.is_file():
            raise MakegptError(f"{path} is missing; --params and MAKEGPT_PARAMS take a file like params.yaml")
        return path
    if (path := _locate()) is None:
        raise MakegptError(f"params.yaml is missing; looked for {', '.join(map(str, params_candidates('params.yaml')))}")
    return path


def _locate() -> Path | None:
    """The `params.yaml` of the current folder if it belongs to this project, else the project's; None if there is none."""
    here, project = params_candidates("params.yaml")
    own = project if project.is_file() else None
    if not here.is_file():
        return own
    try:
        if own is None or here.samefile(own) or _is_ours(here.read_text(encoding="utf-8", errors="replace")):
            return here
    except OSError as error:
        raise MakegptError(f"{here} cannot be read: {error.strerror}") from None
    warnings.warn(
        f"ignoring {here} of another program in this folder; using {own}; choose a file with --params",
        IgnoredFileWarning,
        stacklevel=2,
    )
    return own


_KEY = re.compile(r"""^["']?([^\s"'#:{}\[\]-][^"'#:]*?)["']?[ \t]*:(?=\s|$)""", re.MULTILINE)


def _is_ours(text: str) -> bool:
    """Whether a params.yaml belongs to this project: by a known section below `defaults`, or by its top-level keys."""
    keys = _KEY.findall(text.removeprefix("\ufeff"))
    if "defaults" not in keys:
        return bool(keys) and set(keys) <= set(_PARTS)
    _, _, rest = text.partition("defaults")
    defaults = re.split(r"\n(?=[^\s#])", rest, maxsplit=1)[0]
    sections = "|".join(map(re.escape, SECTIONS))
    return set(keys) <= set(_PARTS) or bool(re.search(rf"""(?:^|[\s{{,"'])(?:{sections})["']?[ \t]*:""", defaults))


def load_params(path: Path | None = None) -> YamlTree:
    """Read `path` (default: `find_params`) and check its top level; values stay text until `build_config` converts them."""
    path = path or find_params()
    try:
        tree = read_yaml(path.read_bytes().decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise MakegptError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise MakegptError(f"{path} cannot be read: {error.strerror}") from None
    for name in tree:
        if name not in _PARTS:
            raise UsageError(f"{path}: unknown key {name!r}; {nearest(name, _PARTS)}")
    for name in _PARTS:
        if not isinstance(tree.setdefault(name, {}), dict):
            raise UsageError(f"{path}: {name} must be a mapping, not {tree[name]!r}")
    return tree


def config_names(tree: YamlTree) -> list[str]:
    """The named configs of `params.yaml`, in file order."""
    return list(tree["configs"])


def resolve_config(tree: YamlTree, name: str | None = None, changes: Iterable[str] = ()) -> Config:
    """The defaults, overridden by config `name` (None: only the defaults), then by `section.key=value` changes."""
    merged = copy.deepcopy(tree["defaults"])
    for ancestor in config_lineage(tree, name):
        _overlay(merged, _sections(tree, ancestor), f"configs.{ancestor}")
    for change in changes:
        _overlay(merged, _parse_change(change), "--set")
    return build_config(merged, f"config {name}" if name else "defaults")


def config_lineage(tree: YamlTree, name: str | None) -> list[str]:
    """The configs that config `name` is built from, itself last: each extends the one before it."""
    names: list[str] = []
    while name is not None:
        if not isinstance(name, str):
            raise UsageError(f"configs.{names[0]}: {_EXTENDS} must be the name of a config, not {name!r}")
        if name not in tree["configs"]:
            problem = f"configs.{names[0]}: {_EXTENDS}: {name!r} is unknown" if names else f"unknown config {name!r}"
            raise UsageError(f"{problem}; {nearest(name, tree['configs'])}")
        if name in names:
            raise UsageError(f"configs.{name} extends itself: {' extends '.join([*reversed(names), name])}")
        names.insert(0, name)
        config = tree["configs"][name]
        name = config.get(_EXTENDS) if isinstance(config, dict) else None
    return names


def _sections(tree: YamlTree, name: str) -> Any:
    """The sections of config `name` itself, without those it extends."""
    config = tree["configs"][name] or {}
    return {key: value for key, value in config.items() if key != _EXTENDS} if isinstance(config, dict) else config


def _overlay(base: dict[str, Any], over: Any, where: str) -> None:
    if not isinstance(over, dict):
        raise UsageError(f"{where} must be a mapping of sections, not {over!r}")
    for section, values in over.items():
        if section not in SECTIONS:
            raise UsageError(f"{where}: unknown section {section!r}; {nearest(section, SECTIONS)}")
        if not isinstance(values, dict):
            raise UsageError(f"{where}: {section} must be a mapping of parameters, not {values!r}")
        if not isinstance(base.setdefault(section, {}), dict):
            raise UsageError(f"defaults: {section} must be a mapping of parameters, not {base[section]!r}")
        base[section].update(values)


def _parse_change(change: str) -> dict[str, dict[str, str]]:
    """`train.learning_rate=1e-4` as a tree; the value keeps its blanks, which a prompt needs."""
    path, equals, value = change.partition("=")
    section, dot, key = path.strip().partition(".")
    if not equals or not dot or not key:
        raise UsageError(f"invalid --set {change}; use section.key=value, for example train.learning_rate=1e-4")
    return {section: {key: value}}
