"""A text that the user named, as what a model is to predict."""

import sys
from pathlib import Path

from lib.data.corpus import replacement_notice
from lib.data.text import Tally, document_from_stream, open_document
from lib.evaluate.span import TokenSpan, own_dataset, text_span
from lib.run.folder import TrainedModel
from stages.shared.streams import say


def read_stretch(text_file: str, folder: Path, trained: TrainedModel, errors: str) -> TokenSpan:
    """The text in a file, or with - on stdin, in the tokens of the run's model; `errors`: what is done about invalid UTF-8."""
    document = document_from_stream(sys.stdin.buffer, "stdin") if text_file == "-" else open_document(Path(text_file))
    for notice in document.notices:
        say(notice)
    tally = Tally()
    stretch = text_span(document.pieces(errors, tally), trained.tokenizer, document.name, own_dataset(folder))
    for said in (document.cut, replacement_notice(tally.replaced)):
        if said:
            say(f"{document.name}: {said}")
    return stretch
