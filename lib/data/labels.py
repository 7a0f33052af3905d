"""Files of labeled texts to a tokens folder: the ids, where each text begins, and its class.

A file is CSV with a header, or JSON Lines (or one JSON list) of objects; two columns, or keys, are read.

shard-00000.npy …    the ids, one text after the other
marks-00000.npy …    a byte for each: BEGINS, a text begins with it
labels-00000.npy …   the class of each text: its number in the sorted names of all classes
"""

import csv
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple, Sequence

import numpy as np

from lib.artifact.folders import replacing_folder
from lib.artifact.manifest import Manifest, describe_files, new_manifest, write_manifest
from lib.chat.examples import read_examples, read_text_lines
from lib.config.text import TokenizeConfig
from lib.data.documents import document_inputs, total_bytes
from lib.data.shards import BEGINS, dtype_for, write_shards
from lib.data.text import Document, ReadCounter, check_unicode
from lib.errors import MakegptError, UsageError, printable
from lib.tokenizer.base import Tokenizer, UnknownText
from lib.tokenizer.registry import TOKENIZER_FILE

#: The most classes: a label is two bytes.
MOST_CLASSES = 1 << 16


@dataclass(frozen=True)
class Columns:
    """The names of the columns, or keys, with the text and with its label."""

    text: str = "text"
    label: str = "label"


class LabeledText(NamedTuple):
    """A text, its label, and where they are, for messages."""

    place: str
    text: str
    label: str


def read_labeled(document: Document, columns: Columns, counter: ReadCounter | None = None) -> Iterator[LabeledText]:
    """The labeled texts of a CSV file with a header, or of JSON; MakegptError names the line that is wrong."""
    pieces = document.pieces(counter=counter)
    is_json = document.head().removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")
    rows = _json_rows(pieces, document.name, columns) if is_json else _csv_rows(pieces, document.name, columns)
    for place, text, label in rows:
        try:
            yield LabeledText(place, _check_text(text, columns), _check_label(label, columns))
        except ValueError as error:
            raise MakegptError(f"{place}: {error}") from None


def _json_rows(pieces: Iterator[str], name: str, columns: Columns) -> Iterator[tuple[str, Any, Any]]:
    for place, value in read_examples(pieces, name):
        if not isinstance(value, dict):
            raise MakegptError(f"{place}: a labeled text must be a JSON object")
        for option, key in (("text", columns.text), ("label", columns.label)):
            if key not in value:
                raise UsageError(f"{place}: there is no {key!r}; name the key of the {option} with --{option}-column")
        label = value[columns.label]
        yield place, value[columns.text], json.dumps(label) if isinstance(label, int) else label


def _csv_rows(pieces: Iterator[str], name: str, columns: Columns) -> Iterator[tuple[str, Any, Any]]:
    csv.field_size_limit(2**31 - 1)  # a text may be long
    reader = csv.reader(read_text_lines(pieces), strict=True)
    line = 1
    try:
        header = next(reader, [])
        for option, column in (("text", columns.text), ("label", columns.label)):
            if header.count(column) != 1:
                problem = "two columns" if column in header else "no column"
                raise UsageError(
                    f"{name} has {problem} {column!r} in its first line ({', '.join(header) or 'it is empty'}); "
                    f"name the column of the {option} with --{option}-column"
                )
        at_text, at_label = header.index(columns.text), header.index(columns.label)
        line = reader.line_num + 1
        for row in reader:
            place, line = f"{name}, line {line}", reader.line_num + 1
            if row and len(row) != len(header):
                raise MakegptError(f"{place}: it has {len(row)} fields, the header {len(header)}; quote a text that has commas")
            if row:
                yield place, row[at_text], row[at_label]
    except csv.Error as error:
        raise MakegptError(f"{name}, line {line}: not valid CSV: {error}") from None


def _check_text(text: Any, columns: Columns) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{columns.text!r} is {'empty' if isinstance(text, str) else 'not a text'}")
    check_unicode(text, repr(columns.text))
    return text


def _check_label(label: Any, columns: Columns) -> str:
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"{columns.label!r} is {'empty' if isinstance(label, str) else 'not a text'}")
    if label != label.strip():
        raise ValueError(f"{columns.label!r} is {label!r}; a label begins and ends with no blank")
    if printable(label) != label:
        raise ValueError(f"{columns.label!r} is {label!r}; a label is one line without control characters")
    return label


def write_labeled(
    target: Path,
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    columns: Columns,
    config: TokenizeConfig,
    *,
    started: str,
    on_bytes: Callable[[int], None],
) -> Manifest:
    """Write the tokens folder `target` of the labeled texts in `documents`; return its manifest.

    MakegptError for a text that is wrong, and unless there are two classes at least.
    """
    with replacing_folder(target, "tokens") as folder:
        encoded = _Encoded(documents, tokenizer, columns, ReadCounter(on_bytes))
        names = write_shards(folder, encoded.ids(), dtype_for(tokenizer.vocab_size), config.shard_tokens)
        marks = write_shards(folder, encoded.marks(), np.dtype(np.uint8), config.shard_tokens, "marks")
        classes = _count_classes(encoded.labels, documents[0].name)
        numbers = {name: number for number, name in enumerate(classes)}
        labels = np.array([numbers[label] for label in encoded.labels], np.uint16)
        names += marks + write_shards(folder, [labels], labels.dtype, config.shard_tokens, "labels")
        tokenizer.save(folder / TOKENIZER_FILE)
        manifest = new_manifest(
            "tokens",
            "tokenize",
            parameters={
                "tokenizer": tokenizer.kind,
                "vocabulary": tokenizer.identity(),
                "text_column": columns.text,
                "label_column": columns.label,
                "shard_tokens": config.shard_tokens,
            },
            inputs=document_inputs(list(documents)),
            outputs=describe_files(folder, [*names, TOKENIZER_FILE]),
            metadata={
                "tokens": sum(encoded.lengths),
                "documents": len(documents),
                "labeled_texts": len(labels),
                "classes": classes,
                "bytes": total_bytes(documents),
                "vocab_size": tokenizer.vocab_size,
                "dtype": dtype_for(tokenizer.vocab_size).name,
            },
            started=started,
        )
        write_manifest(folder, manifest)
    return manifest


def labels_summary(manifest: Manifest) -> str:
    """One line about the manifest of tokens of labeled texts."""
    metadata = manifest.metadata
    classes = ", ".join(f"{name} {count:,}" for name, count in metadata["classes"].items())
    return (
        f"{metadata['labeled_texts']:,} texts of {metadata['tokens']:,} tokens ({manifest.parameters['tokenizer']}); "
        f"{classes}; vocabulary {metadata['vocab_size']:,}"
    )


def _count_classes(labels: list[str], name: str) -> dict[str, int]:
    """How many texts each class has, by the sorted names of the classes."""
    counts = dict(sorted(Counter(labels).items()))
    if not labels:
        raise MakegptError(f"{name} has no labeled texts; CSV with a header, or JSON Lines, are expected")
    if len(counts) < 2:
        raise MakegptError(f"all {len(labels)} texts have the label {labels[0]!r}; a classifier needs two classes or more")
    if len(counts) > MOST_CLASSES:
        raise MakegptError(
            f"there are {len(counts):,} different labels, at most {MOST_CLASSES:,} are possible; check the column"
        )
    return counts


class _Encoded:
    """All labeled texts, encoded as they are read; labels and lengths are kept."""

    def __init__(self, documents: Sequence[Document], tokenizer: Tokenizer, columns: Columns, counter: ReadCounter) -> None:
        self._documents, self._tokenizer, self._columns, self._counter = documents, tokenizer, columns, counter
        self.labels: list[str] = []
        self.lengths: list[int] = []

    def ids(self) -> Iterator[np.ndarray]:
        """The ids of each text."""
        for document in self._documents:
            for place, text, label in read_labeled(document, self._columns, self._counter):
                try:
                    ids = self._tokenizer.encode(text)
                except UnknownText as error:
                    raise MakegptError(f"{place}: {error}") from None
                if not ids:
                    raise MakegptError(f"{place}: the text has no tokens of the {self._tokenizer.kind} tokenizer")
                self.labels.append(label)
                self.lengths.append(len(ids))
                yield np.array(ids, np.uint32)

    def marks(self) -> Iterator[np.ndarray]:
        """The marks of each text, after `ids`."""
        for length in self.lengths:
            marks = np.zeros(length, np.uint8)
            marks[0] = BEGINS
            yield marks
