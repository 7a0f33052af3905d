"""`python -m stages`: the commands of the pipeline, in their order, each with what it does."""

import ast
from pathlib import Path

ORDER = (
    "fetch",
    "tokenize",
    "build_dataset",
    "train",
    "evaluate",
    "generate",
    "plot",
    "report",
    "compare",
    "inspect",
    "explain",
    "study",
    "reproduce",
    "import_weights",
    "export_weights",
)


def purpose(name: str) -> str:
    """The first line of a stage's docstring, read without importing it."""
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]


def lines() -> list[str]:
    """A line a stage: its name, and what it does."""
    return [f"{name.replace('_', '-'):15} {purpose(name)}" for name in ORDER]


if __name__ == "__main__":
    print("\n".join(lines()))
