"""Make the figures of the book, each by the command that stands below it: `Made by ...`."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
STAGES = Path(sys.executable).parent


def commands() -> dict[str, str]:
    """Figure, as the pages name it -> the command that makes it."""
    made_by = re.compile(r"!\[[^\]]+\]\((figures/[^)]+)\)\n\nMade by `([^`]+)`\.")
    return dict(found for page in sorted(DOCS.glob("*.md")) for found in made_by.findall(page.read_text(encoding="utf-8")))


if __name__ == "__main__":
    for command in commands().values():
        print(command, flush=True)
        name, *words = shlex.split(command)
        subprocess.run([str(STAGES / name), *words], cwd=DOCS.parent, check=True)
