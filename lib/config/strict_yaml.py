"""YAML as this project reads it: nested mappings whose values stay the text of the file.

The parameter decides the type of a value (`lib.config.schema`), not YAML: to YAML 1.1 `3e-4` is a string
and `no` is a boolean. So both readers below return strings only.

There are two, and a test holds them equal. `read_yaml_library` is PyYAML and takes any YAML. `read_plain`
is the standard library alone and takes what `params.yaml` is written in, nested `key: value` lines;
the Makefile needs it on a fresh clone, where nothing is installed yet and targets must have names.
"""

import json
import re
from typing import Any

from lib.errors import MakegptError

#: A mapping from keys to strings or to further mappings.
YamlTree = dict[str, Any]


MAX_CHARACTERS = 1 << 18  # PyYAML reads such a file in 3 s; params.yaml has 20,000

MAX_BRACKETS = 20
MAX_NODES = 100_000  # keys and values, with aliases expanded


def read_yaml(text: str, source: str) -> YamlTree:
    """Read YAML `text` with PyYAML where it is installed, else with the plain reader.

    `source` names the file in errors. Raises MakegptError for bad YAML or a repeated key.
    """
    _check_size(text, source)
    try:
        import yaml  # noqa: F401
    except ImportError:
        return read_plain(text, source)
    return read_yaml_library(text, source)


def read_yaml_library(text: str, source: str) -> YamlTree:
    """Read `text` with PyYAML; every scalar stays a string and a repeated key is refused."""
    _check_size(text, source)
    import yaml

    class Loader(yaml.BaseLoader):
        """PyYAML's loader without type guesses. It refuses duplicate keys, of which PyYAML keeps the last.

        It counts the nodes with aliases expanded: a few lines of aliases can expand beyond any memory, or forever.
        """

        def get_single_node(self) -> Any:
            node = super().get_single_node()
            waiting, count = [node], 0
            while waiting:
                count += 1
                if count > MAX_NODES:
                    raise MakegptError(f"{source} must have at most {MAX_NODES} values, aliases expanded")
                inner = getattr(waiting.pop(), "value", None)
                for child in inner if isinstance(inner, list) else ():
                    waiting += child if isinstance(child, tuple) else (child,)
            return node

        def fetch_flow_collection_start(self, token: Any) -> None:
            if self.flow_level >= MAX_BRACKETS:  # PyYAML's time grows with the square of their depth
                raise MakegptError(f"{source} line {self.line + 1}: brackets are nested more than {MAX_BRACKETS} deep")
            super().fetch_flow_collection_start(token)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise MakegptError(f"{source} line {key.start_mark.line + 1}: a key must be a name")
                if key.value in seen:
                    raise MakegptError(f"{source} line {key.start_mark.line + 1}: duplicate key {key.value!r}")
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    try:
        tree = yaml.load(text, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise MakegptError(f"{source}{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise MakegptError(f"{source} is nested too deeply") from None
    except (ValueError, OverflowError) as error:  # an escape that is not a character
        raise MakegptError(f"{source}: not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise MakegptError(f"{source} must be a mapping with the keys 'defaults' and 'configs'")
    return tree


def _check_size(text: str, source: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise MakegptError(f"{source} must have at most {MAX_CHARACTERS} characters")


_FIRST = r"""(?:[-?:](?=[^\s,\[\]{}])|[^\s#"'{}\[\],&*!|>%@`:?-])"""  # how an unquoted text may begin
_LINE = re.compile(rf"""(?P<indent> *)(?P<key>{_FIRST}[^#'"\t]*?) *:(?: +(?P<value>.*))?$""")
_VALUE = re.compile(
    r"""(?:(?P<double>"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4})*")"""
    r"""|'(?P<single>(?:[^']|'')*)'"""
    rf"""|(?P<bare>{_FIRST}(?:[^\t:#]|:(?! |$)|(?<! )#)*?)?)(?:(?:^| +)#.*)? *$"""
)


def read_plain(text: str, source: str) -> YamlTree:
    """Read nested `key: value` lines with comments and quoted values; refuse all other YAML by line."""
    tree: YamlTree = {}
    open_levels: list[tuple[int, YamlTree]] = [(-1, tree)]  # (indent of the mapping's own key, mapping)
    indents: dict[int, int] = {}  # the indent of the keys of each mapping
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if not line.strip(" ") or line.lstrip(" ").startswith("#"):
            continue
        matched = _LINE.match(line.rstrip(" "))
        value = matched and _VALUE.match(matched["value"] or "")
        if not matched or not value:
            raise MakegptError(
                f"{source} line {number}: only 'key: value' lines can be read before the set-up; run `make setup` first"
            )
        indent = len(matched["indent"])
        while open_levels[-1][0] >= indent:
            open_levels.pop()
        mapping = open_levels[-1][1]
        if indents.setdefault(id(mapping), indent) != indent:
            raise MakegptError(f"{source} line {number}: indented by {indent} spaces, unlike the keys next to it")
        key = matched["key"]
        if key in mapping:
            raise MakegptError(f"{source} line {number}: duplicate key {key!r}")
        if value["double"] is not None:
            mapping[key] = json.loads(value["double"])
        elif value["single"] is not None:
            mapping[key] = value["single"].replace("''", "'")
        elif value["bare"]:
            mapping[key] = value["bare"]
        else:  # nothing after the colon: a mapping whose lines follow, deeper; or an empty value
            mapping[key] = {}
            open_levels.append((indent, mapping[key]))
    if not tree:
        raise MakegptError(f"{source} must be a mapping with the keys 'defaults' and 'configs'")
    return _without_empty(tree)


def _without_empty(tree: YamlTree) -> YamlTree:
    """Replace the empty mapping of a key without a value by the empty string, as YAML does."""
    return {k: (_without_empty(v) or "") if isinstance(v, dict) else v for k, v in tree.items()}
