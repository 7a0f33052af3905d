"""A text that the user named, as what a model is to predict."""

import sys
from pathlib import Path

from lib.assessment import Stretch, of_text
from lib.run import Trained
from lib.text import decode, open_document


def stretch(text_file: str, trained: Trained, errors: str) -> Stretch:
    """The text in a file, or with - on stdin, in the tokens of the model; `errors`: what is done about invalid UTF-8."""
    if text_file == "-":
        return of_text(decode(sys.stdin.buffer, "stdin", errors), trained.tokenizer, "stdin")
    return of_text(open_document(Path(text_file)).pieces(errors), trained.tokenizer, text_file)
