"""Files of parallel texts to a tokens folder: pairs of a source and its target, such as a word and its pronunciation.

A line has a source, a tab and the target. A line without a tab ends its source before the first space, as a pronunciation
dictionary does: of `cat K AE T` the source is `cat` and the target ` K AE T`. JSON Lines, or one JSON list, have "prompt" and
"completion".

shard-00000.npy …   the ids: source, target, source, target and so on
marks-00000.npy …   a byte for each: BEGINS, a source begins with it; TRAINED, it belongs to a target
"""

from itertools import chain
from pathlib import Path
from typing import Callable, Iterator, NamedTuple, Sequence

import numpy as np

from lib.artifact.folders import replacing_folder
from lib.artifact.manifest import Manifest, describe_files, new_manifest, write_manifest
from lib.chat.examples import read_examples, read_text_lines
from lib.config.text import SIZED_KINDS, TokenizeConfig
from lib.data.corpus import saved_tokenizer
from lib.data.documents import document_inputs, total_bytes
from lib.data.downloads import VOCABULARY, data_folder
from lib.data.shards import BEGINS, TRAINED, dtype_for, write_shards
from lib.data.text import Document, ReadCounter, check_unicode
from lib.data.vocabulary import LEARNED
from lib.errors import MakegptError, UsageError
from lib.tokenizer.base import ENDOFTEXT, Tokenizer, UnknownText
from lib.tokenizer.extended import with_special_tokens
from lib.tokenizer.registry import TOKENIZER_FILE, TOKENIZERS, make_tokenizer


class TextPair(NamedTuple):
    """A source, its target, and where they are, for messages."""

    place: str
    source: str
    target: str


def read_parallel(document: Document, counter: ReadCounter | None = None) -> Iterator[TextPair]:
    """The pairs of a file, in order; empty lines are skipped. MakegptError names the line that is wrong."""
    pieces = document.pieces(counter=counter)
    is_json = document.head().removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")
    for pair in (_json_pairs if is_json else _line_pairs)(pieces, document.name):
        for side, text in (("source", pair.source), ("target", pair.target)):
            if not text.strip():
                raise MakegptError(f"{pair.place}: the {side} is empty")
            if "\n" in text or "\r" in text:
                raise MakegptError(f"{pair.place}: the {side} has a line break; write it as one line")
        yield pair


def _line_pairs(pieces: Iterator[str], name: str) -> Iterator[TextPair]:
    for number, line in enumerate(read_text_lines(pieces), 1):
        place, line = f"{name}, line {number}", line.removesuffix("\n").removesuffix("\r")
        if not line.strip():
            continue
        source, tab, target = line.partition("\t")
        if "\t" in target:
            raise MakegptError(f"{place}: it has {target.count(chr(9)) + 1} tabs; a line is a source, one tab and its target")
        if not tab:
            cut = line.find(" ")
            if cut < 0:
                raise MakegptError(
                    f"{place}: {line[:40]!r} has no target; a line is a source, a tab and its target, or a word, a space and "
                    "its pronunciation"
                )
            source, target = line[:cut], line[cut:]
        yield TextPair(place, source, target)


def _json_pairs(pieces: Iterator[str], name: str) -> Iterator[TextPair]:
    for place, value in read_examples(pieces, name):
        source, target = (value.get(key) if isinstance(value, dict) else None for key in ("prompt", "completion"))
        if not isinstance(source, str) or not isinstance(target, str):
            raise MakegptError(f'{place}: parallel texts in JSON are objects with the texts "prompt" and "completion"')
        for key, text in (("prompt", source), ("completion", target)):
            try:
                check_unicode(text, repr(key))
            except ValueError as error:
                raise MakegptError(f"{place}: {error}") from None
        yield TextPair(place, source, target)


def parallel_tokenizer(kind: str, documents: Sequence[Document]) -> Tokenizer:
    """The tokenizer `kind` for both sides: one that learns its vocabulary from all pairs, or a saved one, as `saved_tokenizer`
    has it. With <|endoftext|>, between which a target stands.
    """
    if kind in SIZED_KINDS:
        raise UsageError(f"--parallel with {kind} needs a saved vocabulary: `tokenize --train {kind} FILE -o DIR` makes one")
    if kind in LEARNED:
        pairs = chain.from_iterable(map(read_parallel, documents))
        texts = ([text] for pair in pairs for text in (pair.source, pair.target))
        tokenizer = make_tokenizer(kind, texts, data_folder(VOCABULARY))
    else:
        tokenizer = saved_tokenizer(kind, "--parallel")
    return tokenizer if tokenizer.endoftext is not None else with_special_tokens(tokenizer, [ENDOFTEXT])


def write_parallel(
    target: Path,
    documents: Sequence[Document],
    kind: str,
    config: TokenizeConfig,
    *,
    started: str,
    on_bytes: Callable[[int], None],
) -> Manifest:
    """Write the tokens folder `target` of the pairs in `documents`; return its manifest. `kind`: as in `parallel_tokenizer`.

    MakegptError for a pair that is wrong, and if there are none.
    """
    with replacing_folder(target, "tokens") as folder:
        first = next(chain.from_iterable(map(read_parallel, documents)), None)
        if first is None:
            raise MakegptError(
                f"{documents[0].name} has no parallel texts; a source, a tab and its target per line are expected"
            )
        tokenizer = parallel_tokenizer(kind, documents)
        pairs = _Encoded(documents, tokenizer, ReadCounter(on_bytes))
        names = write_shards(folder, pairs.ids(), dtype_for(tokenizer.vocab_size), config.shard_tokens)
        names += write_shards(folder, pairs.marks(), np.dtype(np.uint8), config.shard_tokens, "marks")
        tokenizer.save(folder / TOKENIZER_FILE)
        sources, targets = np.array(pairs.lengths).sum(axis=0).tolist()
        manifest = new_manifest(
            "tokens",
            "tokenize",
            parameters={
                "tokenizer": kind if kind in TOKENIZERS else tokenizer.kind,
                "vocabulary": tokenizer.identity(),
                "shard_tokens": config.shard_tokens,
            },
            inputs=document_inputs(list(documents)),
            outputs=describe_files(folder, [*names, TOKENIZER_FILE]),
            metadata={
                "tokens": sources + targets,
                "documents": len(documents),
                "parallel_texts": len(pairs.lengths),
                "target_tokens": targets,
                "bytes": total_bytes(documents),
                "vocab_size": tokenizer.vocab_size,
                "dtype": dtype_for(tokenizer.vocab_size).name,
            },
            started=started,
        )
        write_manifest(folder, manifest)
    return manifest


def parallel_summary(manifest: Manifest) -> str:
    """One line about the manifest of tokens of parallel texts."""
    metadata = manifest.metadata
    return (
        f"{metadata['parallel_texts']:,} pairs, {metadata['tokens'] - metadata['target_tokens']:,} tokens of sources and "
        f"{metadata['target_tokens']:,} of targets ({manifest.parameters['tokenizer']}); vocabulary {metadata['vocab_size']:,}"
    )


class _Encoded:
    """All pairs, encoded as they are read; their lengths are kept."""

    def __init__(self, documents: Sequence[Document], tokenizer: Tokenizer, counter: ReadCounter) -> None:
        self._documents, self._tokenizer, self._counter = documents, tokenizer, counter
        self.lengths: list[tuple[int, int]] = []

    def ids(self) -> Iterator[np.ndarray]:
        """The ids of each source and of each target."""
        for document in self._documents:
            for place, *texts in read_parallel(document, self._counter):
                try:
                    source, target = (self._tokenizer.encode(text) for text in texts)
                except UnknownText as error:
                    raise MakegptError(f"{place}: {error}") from None
                if not source or not target:
                    raise MakegptError(f"{place}: a text has no tokens of the {self._tokenizer.kind} tokenizer")
                self.lengths.append((len(source), len(target)))
                yield np.array(source + target, np.uint32)

    def marks(self) -> Iterator[np.ndarray]:
        """The marks of each pair, after `ids`."""
        for source, target in self.lengths:
            marks = np.zeros(source + target, np.uint8)
            marks[0], marks[source:] = BEGINS, TRAINED
            yield marks
