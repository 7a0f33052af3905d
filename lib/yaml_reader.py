"""YAML as this project reads it: mappings of mappings, every value kept as the text in the file.

A value's type is decided by the parameter it is given to (`lib.config`), not by YAML's guesses:
`3e-4` is not a number in YAML 1.1, and `no` is a boolean. So only strings are returned.
"""

from typing import Any

import yaml

from lib.errors import MakegptError

#: A mapping from keys to strings or to further mappings.
Tree = dict[str, Any]


MAX_CHARACTERS = 1 << 18  # of a file, which PyYAML reads in 3 s; params.yaml has 20,000

MAX_BRACKETS = 20
MAX_NODES = 100_000  # keys and values, with what aliases stand for


def read(text: str, source: str) -> Tree:
    """Read YAML `text` with PyYAML; every scalar stays a string, and a repeated key is refused.

    `source` names the file in errors. Raises MakegptError for bad YAML.
    """
    if len(text) > MAX_CHARACTERS:
        raise MakegptError(f"{source} is longer than {MAX_CHARACTERS} characters; a file of parameters is expected")

    class Loader(yaml.BaseLoader):
        """PyYAML's loader without type guesses, which by itself lets the last of two equal keys win.

        What aliases stand for is counted: a few lines of them can stand for more than any memory holds, or for themselves.
        """

        def get_single_node(self) -> Any:
            node = super().get_single_node()
            waiting, count = [node], 0
            while waiting:
                count += 1
                if count > MAX_NODES:
                    raise MakegptError(f"{source} stands for more than {MAX_NODES} values; a file of parameters is expected")
                inner = getattr(waiting.pop(), "value", None)
                for each in inner if isinstance(inner, list) else ():
                    waiting += each if isinstance(each, tuple) else (each,)
            return node

        def fetch_flow_collection_start(self, token: Any) -> None:
            if self.flow_level >= MAX_BRACKETS:  # PyYAML's time grows with the square of their depth
                raise MakegptError(f"{source} line {self.line + 1}: more than {MAX_BRACKETS} brackets stand inside each other")
            super().fetch_flow_collection_start(token)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise MakegptError(f"{source} line {key.start_mark.line + 1}: a key must be a name")
                if key.value in seen:
                    raise MakegptError(f"{source} line {key.start_mark.line + 1}: the key {key.value!r} stands twice; keep one")
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    try:
        tree = yaml.load(text, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise MakegptError(f"{source}{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise MakegptError(f"{source}: it is nested too deep") from None
    except (ValueError, OverflowError) as error:  # an escape that is no character
        raise MakegptError(f"{source}: not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise MakegptError(f"{source}: a mapping with the keys 'defaults' and 'configs' is expected")
    return tree
