"""YAML as this project reads it: nested mappings whose values stay the text of the file.

The parameter decides the type of a value (`lib.config.schema`), not YAML: to YAML 1.1 `3e-4` is a string
and `no` is a boolean. So the reader returns strings only.
"""

from typing import Any

import yaml

from lib.errors import MakegptError

#: A mapping from keys to strings or to further mappings.
YamlTree = dict[str, Any]


MAX_CHARACTERS = 1 << 18  # PyYAML reads such a file in 3 s; params.yaml has 20,000

MAX_BRACKETS = 20
MAX_DEPTH = 50
MAX_NODES = 100_000  # keys and values, with aliases expanded


def read_yaml(text: str, source: str) -> YamlTree:
    """Read YAML `text` with PyYAML; every scalar stays a string, and a repeated key is refused.

    `source` names the file in errors. Raises MakegptError for bad YAML.
    """
    if len(text) > MAX_CHARACTERS:
        raise MakegptError(f"{source} must have at most {MAX_CHARACTERS} characters")

    class Loader(yaml.BaseLoader):
        """PyYAML's loader without type guesses. It refuses duplicate keys, of which PyYAML keeps the last.

        It counts the nodes with aliases expanded: a few lines of aliases can expand beyond any memory, or forever.
        """

        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            """Python's own limit of recursion does not do: libraries raise it."""
            if self.depth >= MAX_DEPTH:
                raise MakegptError(f"{source} is nested too deeply; at most {MAX_DEPTH} levels are read")
            self.depth += 1
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

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
    except (ValueError, OverflowError) as error:  # an escape that is not a character
        raise MakegptError(f"{source}: not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise MakegptError(f"{source} must be a mapping with the keys 'defaults' and 'configs'")
    return tree
