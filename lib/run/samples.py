"""The samples of a training, read back: what the model wrote as it learned."""

from pathlib import Path
from typing import Any

from lib.artifact.json_shape import COUNT, first_mismatch
from lib.artifact.strict_json import load_json_lines
from lib.errors import MakegptError

#: A line a sample: step, tokens (trained on by then), prompt, text.
SAMPLES_FILE = "samples.jsonl"


def read_samples(folder: Path) -> list[dict[str, Any]]:
    """The samples of the training in `folder`, in order; none if none were kept. MakegptError if they are damaged."""
    path = folder / SAMPLES_FILE
    if not path.is_file():
        return []
    try:
        lines = load_json_lines(path)
        if first_mismatch(lines, [{"step": COUNT, "prompt": str, "text": str}]) is not None:
            raise ValueError
    except ValueError:
        raise MakegptError(f"{path} is damaged: it holds lines that are no samples; train the run again") from None
    return lines
