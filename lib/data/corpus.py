"""From texts to tokens: documents through a tokenizer, into a tokens folder or a stream of ids, and back."""

from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, Callable, Iterable, Iterator

import numpy as np

from lib.artifact.folders import replacing_folder, scratch_folder
from lib.artifact.io import sha256_of, write_json
from lib.artifact.manifest import MANIFEST, Manifest, describe_files
from lib.artifact.provenance import new_manifest
from lib.config.schema import TokenizeConfig
from lib.data.downloads import VOCABULARY, data_folder
from lib.data.shards import dtype_for, open_shard, write_shards
from lib.data.text import (
    PIECE_BYTES,
    Document,
    ReadCounter,
    check_text_file,
    decode_utf8,
    describe_cleaning,
    is_regular_text,
    open_document,
    read_pieces,
)
from lib.errors import MakegptError, UsageError, nearest
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.registry import TOKENIZER_FILE, TOKENIZERS, load_tokenizer, make_tokenizer

OnBytes = Callable[[int], None]


@contextmanager
def open_documents(names: Iterable[str], stdin: BinaryIO, target: Path) -> Iterator[list[Document]]:
    """The documents called `names`, cleaned; "-" is `stdin`.

    What can be read only once, stdin or a pipe, is kept in a file beside `target` while the block runs.
    """
    names = list(names)
    if names.count("-") > 1:
        raise UsageError("- stands more than once; stdin can be read once, so name it once")
    with ExitStack() as stack:
        scratch = None
        documents = []
        for number, name in enumerate(names):
            path = Path(name)
            if name == "-" or not is_regular_text(path):
                scratch = scratch or stack.enter_context(scratch_folder(target))
                with nullcontext(stdin) if name == "-" else open(path, "rb") as source:
                    kept = scratch / str(number)
                    with open(kept, "wb") as file:
                        file.writelines(read_pieces(source, "stdin" if name == "-" else name))
                path = kept
            documents.append(_opened(path, "stdin" if name == "-" else name))
        yield documents


def _opened(path: Path, name: str) -> Document:
    if path.stat().st_size == 0:
        raise MakegptError(f"{name} is empty; a text is expected")
    return open_document(path, name)


def total_bytes(documents: list[Document]) -> int:
    """Bytes of text in all documents."""
    return sum(document.length for document in documents)


def cleaning_notices(documents: list[Document]) -> list[str]:
    """What the reader of the `documents` should know: about Gutenberg's frames, and files that are in twice."""
    said = [notice for document in documents for notice in document.notices]
    first: dict[tuple[int, int], str] = {}
    for document in documents:
        if isinstance(document.source, Path):
            status = document.source.stat()
            identity = (status.st_dev, status.st_ino)
            other = first.get(identity)
            if other is None:
                first[identity] = document.name
            else:
                same = (
                    f"{document.name} is named twice" if other == document.name else f"{other} and {document.name} are one file"
                )
                said.append(f"{same}: its text is in twice, so what is trained on may be what is validated on")
    return said


def write_corpus(
    target: Path, documents: list[Document], kind: str, config: TokenizeConfig, *, started: str, on_bytes: OnBytes
) -> Manifest:
    """Write the tokens folder `target`: shards, tokenizer.json, manifest.json; return the manifest.

    `kind` is a kind of tokenizer, its vocabulary learned from the documents where it needs one, or a folder with
    a saved one. `on_bytes` learns how many bytes of text were read. Raises MakegptError for what is no text.
    """
    with replacing_folder(target, "tokens") as folder:
        if kind in TOKENIZERS:
            texts = (document.pieces(config.errors) for document in documents)
            made = make_tokenizer(kind, texts, data_folder(VOCABULARY))
        else:
            made = saved_tokenizer(kind, "-o")
        counter = ReadCounter(on_bytes)
        ids = _encode_documents(documents, made, config.errors, counter)
        names = write_shards(folder, ids, dtype_for(made.vocab_size), config.shard_tokens)
        made.save(folder / TOKENIZER_FILE)
        count = sum(len(open_shard(folder / name)) for name in names)
        if not count:
            raise MakegptError(f"{documents[0].name} gives no tokens; a text is expected")
        manifest = new_manifest(
            "tokens",
            "tokenize",
            parameters=({} if kind in TOKENIZERS else {"vocabulary": made.identity()})
            | {"tokenizer": made.kind, "errors": config.errors, "shard_tokens": config.shard_tokens},
            inputs=_inputs(documents),
            outputs=describe_files(folder, [*names, TOKENIZER_FILE]),
            metadata={
                "tokens": count,
                "documents": len(documents),
                "bytes": total_bytes(documents),
                "cut_bytes": sum(document.size - document.length for document in documents),
                "cut_books": sum(document.books for document in documents),
                "replaced_bytes": counter.replaced,
                "vocab_size": made.vocab_size,
                "dtype": dtype_for(made.vocab_size).name,
            },
            started=started,
        )
        write_json(folder / MANIFEST, manifest)
    return manifest


def _inputs(documents: list[Document]) -> dict[str, dict[str, object]]:
    """The documents by name, as the manifest lists them; one that is named several times also with its places among all."""
    places: dict[str, list[int]] = {}
    for number, document in enumerate(documents, 1):
        places.setdefault(document.name, []).append(number)
    known = {document.name: document for document in documents}
    return {
        name: _source(document) | ({"documents": places[name]} if len(places[name]) > 1 else {})
        for name, document in known.items()
    }


def _source(document: Document) -> dict[str, object]:
    """A document as the manifest describes it: its file's size and SHA-256, and which spans of its bytes were read."""
    assert isinstance(document.source, Path)
    return {"bytes": document.size, "sha256": sha256_of(document.source), "read": [list(span) for span in document.spans]}


def corpus_summary(manifest: Manifest) -> str:
    """A tokens manifest in a line."""
    metadata, outputs = manifest["metadata"], manifest["outputs"]
    return (
        f"{metadata['tokens']:,} tokens ({manifest['parameters']['tokenizer']}) of {metadata['bytes']:,} bytes, "
        f"{metadata['bytes'] / metadata['tokens']:.2f} bytes a token; vocabulary {metadata['vocab_size']:,}; "
        f"{len(outputs) - 1} shard{'s' if len(outputs) > 2 else ''}"
        + "".join(
            f"; {said}"
            for said in (
                describe_cleaning(metadata["cut_bytes"], metadata["cut_books"]),
                replacement_notice(metadata["replaced_bytes"]),
            )
            if said
        )
    )


def replacement_notice(count: int) -> str:
    """How many bytes were replaced, in words; "" where none were."""
    return (
        f"replaced {count:,} byte{'' if count == 1 else 's'} that {'is' if count == 1 else 'are'} not valid UTF-8"
        if count
        else ""
    )


def _encode_documents(documents: list[Document], made: Tokenizer, errors: str, counter: ReadCounter) -> Iterator[np.ndarray]:
    """The ids of all documents, `<|endoftext|>` between two of them where the tokenizer has it."""
    for number, document in enumerate(documents):
        if number and made.endoftext is not None:
            yield np.array([made.endoftext], dtype=np.uint32)
        yield from made.encode_stream(document.pieces(errors, counter))


def saved_tokenizer(kind: str, wanted_by: str) -> Tokenizer:
    """The tokenizer that needs no text to learn from: `gpt2`, `bytes`, or the one saved in the folder `kind`."""
    if kind in ("gpt2", "bytes"):
        return make_tokenizer(kind, [], data_folder(VOCABULARY))
    if kind in TOKENIZERS:
        raise UsageError(f"{wanted_by} with {kind} needs a saved vocabulary: --tokenizer DIR, a folder made with `tokenize -o`")
    if not Path(kind).exists():
        raise UsageError(f"--tokenizer {kind} is neither a kind nor a folder with a tokenizer; {nearest(kind, TOKENIZERS)}")
    return load_tokenizer(Path(kind))


def encode_ids(names: Iterable[str], stdin: BinaryIO, made: Tokenizer, errors: str, counter: ReadCounter) -> Iterator[bytes]:
    """The ids of each document, uncleaned, as text: ids apart by spaces, one line a document; a document may be empty."""
    for name in names:
        if name != "-":
            check_text_file(Path(name))
        with nullcontext(stdin) if name == "-" else open(name, "rb") as file:
            space = b""
            for ids in made.encode_stream(decode_utf8(file, "stdin" if name == "-" else name, errors, counter=counter)):
                if len(ids):
                    yield space + " ".join(map(str, ids.tolist())).encode("ascii")
                    space = b" "
        yield b"\n"


def decode_ids(stdin: BinaryIO, made: Tokenizer) -> Iterator[bytes]:
    """The text of ids that come apart by blanks: nothing is added where the tokenizer is lossless, else a line a document."""
    if made.lossless:
        for words in _words(stdin):
            yield made.decode_bytes(map(_id, words))
    else:
        for line in stdin:
            yield made.decode_bytes(map(_id, line.split())) + b"\n"


def _words(stdin: BinaryIO) -> Iterator[list[bytes]]:
    """All that stands between blanks in `stdin`, in lists of bounded length."""
    held = b""
    while data := stdin.read(PIECE_BYTES):
        data = held + data
        words = data.split()
        held = b"" if data[-1:].isspace() else words.pop()
        if len(held) > _LONGEST_ID:
            words.append(held)  # what is no id is refused before it fills the memory
        yield words
    yield [held] if held else []


_LONGEST_ID = 10  # digits of 2³²


def _id(word: bytes) -> int:
    if not word.isdigit() or len(word) > _LONGEST_ID:
        raise MakegptError(
            f"{word.decode('utf-8', 'replace')!r} is not an id; --decode takes what --ids gives: whole numbers apart by blanks"
        )
    return int(word)
