"""The samples of a training: what the model wrote as it learned."""

from dataclasses import dataclass
from pathlib import Path

from lib.artifact.jsonl import read_lines
from lib.artifact.record import Count
from lib.errors import MakegptError

SAMPLES_FILE = "samples.jsonl"


@dataclass(frozen=True)
class Sample:
    """What the model wrote after `prompt` at a step, a line of samples.jsonl; it has been trained on `tokens` by then."""

    step: Count
    tokens: Count
    prompt: str
    text: str


def read_samples(folder: Path) -> list[Sample]:
    """The samples of the training in `folder`, in order; none if none were kept. MakegptError if they are damaged."""
    path = folder / SAMPLES_FILE
    if not path.is_file():
        return []
    try:
        return read_lines(path, Sample)
    except ValueError as error:
        raise MakegptError(f"{path} is damaged: {error}; train the run again") from None
