"""JavaScript modules as one script, so that a page can be one file.

Each module becomes a function that is called at once and returns what it exports. So names of two modules never meet, and no
bundler is needed: of the forms that imports and exports have, the modules of this folder use one each.
"""

import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent

_IMPORT = re.compile(r'^import \{ ([\w$, ]+) \} from "\./(\w+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const) (\w+))", re.MULTILINE)
_OTHER = re.compile(r"^(?:import|export)\b.*|\bimport\(.*|<!--.*|</script.*", re.MULTILINE | re.IGNORECASE)


def bundle(*entries: str) -> str:
    """The modules called `entries` in this folder, and those that they import, as one script.

    What module `name.js` exports is in the constant `name_module`. ValueError for a circle of imports, for another form of
    import or export, and for what would end the script in HTML.
    """
    return '"use strict";\n' + "".join(
        f"const {name}_module = (() => {{\n{_body(name)}}})();\n" for name in _dependencies_first(entries)
    )


def _dependencies_first(entries: tuple[str, ...]) -> list[str]:
    """The `entries` and what they import, each after those that it imports."""
    done: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise ValueError(f"{' imports '.join([*path, name])}")
        if name not in done:
            for _, other in _IMPORT.findall(_source(name)):
                visit(other, (*path, name))
            done.append(name)

    for name in entries:
        visit(name, ())
    return done


def _body(name: str) -> str:
    source = _source(name)
    exports = _EXPORT.findall(source)
    body = _EXPORT.sub("", _IMPORT.sub(r"const { \1 } = \2_module;", source))
    if other := _OTHER.search(body):
        raise ValueError(f"{name}.js: {other[0]!r} cannot be part of a script in a page")
    return f"{body}return {{ {', '.join(exports)} }};\n"


@cache
def _source(name: str) -> str:
    return (FOLDER / f"{name}.js").read_text(encoding="utf-8")
