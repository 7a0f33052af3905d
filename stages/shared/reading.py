"""A text that the user named, as what a model is to predict."""

import sys
from pathlib import Path

from lib.corpus import replaced
from lib.run import Trained
from lib.stretch import Stretch, of_text, own_dataset
from lib.text import Tally, from_stream, open_document
from stages import say


def read_stretch(text_file: str, folder: Path, trained: Trained, errors: str) -> Stretch:
    """The text in a file, or with - on stdin, in the tokens of the run's model; `errors`: what is done about invalid UTF-8."""
    document = from_stream(sys.stdin.buffer, "stdin") if text_file == "-" else open_document(Path(text_file))
    for notice in document.notices:
        say(notice)
    tally = Tally()
    stretch = of_text(document.pieces(errors, tally), trained.tokenizer, document.name, own_dataset(folder))
    for said in (document.cut, replaced(tally.replaced)):
        if said:
            say(f"{document.name}: {said}")
    return stretch
