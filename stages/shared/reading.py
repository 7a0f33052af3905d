"""Read the text that a model is evaluated on."""

import sys
from pathlib import Path

from lib.data.corpus import replacement_notice
from lib.data.text import ReadCounter, document_from_stream, open_document
from lib.evaluate.span import TokenSpan, own_dataset, text_span
from lib.run.folder import TrainedModel
from stages.shared.streams import say


def read_text_span(text_file: str, folder: Path, trained: TrainedModel, errors: str) -> TokenSpan:
    """The text of a file, or of stdin (-), as tokens of the model of a run; `errors` handles invalid UTF-8."""
    document = document_from_stream(sys.stdin.buffer, "stdin") if text_file == "-" else open_document(Path(text_file))
    for notice in document.notices:
        say(notice)
    counter = ReadCounter()
    span = text_span(document.pieces(errors, counter), trained.tokenizer, document.name, own_dataset(folder))
    for notice in (document.cut, replacement_notice(counter.replaced)):
        if notice:
            say(f"{document.name}: {notice}")
    return span
