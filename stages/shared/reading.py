"""A text that the user named, as what a model is to predict."""

import sys
from pathlib import Path

from lib.run import Trained
from lib.stretch import Stretch, of_text, own_dataset
from lib.text import decode, open_document


def read_stretch(text_file: str, folder: Path, trained: Trained, errors: str) -> Stretch:
    """The text in a file, or with - on stdin, in the tokens of the run's model; `errors`: what is done about invalid UTF-8."""
    pieces = decode(sys.stdin.buffer, "stdin", errors) if text_file == "-" else open_document(Path(text_file)).pieces(errors)
    name = "stdin" if text_file == "-" else text_file
    return of_text(pieces, trained.tokenizer, name, own_dataset(folder))
