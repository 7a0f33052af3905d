"""From texts to tokens: documents through a tokenizer, into a tokens folder or a stream of ids, and back."""

import os
import shutil
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, Callable, Iterable, Iterator

import numpy as np

from lib import artifact, inputs, provenance, shards, text, tokenizer
from lib.artifact import Manifest
from lib.config import TokenizeConfig
from lib.errors import MakegptError, UsageError, nearest
from lib.text import Document
from lib.tokenizer import Tokenizer

OnBytes = Callable[[int], None]


@contextmanager
def opened(names: Iterable[str], stdin: BinaryIO, target: Path) -> Iterator[list[Document]]:
    """The documents called `names`, cleaned; "-" is `stdin`.

    What can be read only once, stdin or a pipe, is kept in a file beside `target` while the block runs.
    """
    with ExitStack() as stack:
        scratch = None
        documents = []
        for number, name in enumerate(names):
            path = Path(name)
            if name == "-" or path.is_fifo():
                scratch = scratch or stack.enter_context(artifact.scratch_folder(target))
                with (
                    open(scratch / str(number), "wb") as file,
                    nullcontext(stdin) if name == "-" else open(path, "rb") as source,
                ):
                    shutil.copyfileobj(source, file, text.PIECE)
                path = scratch / str(number)
            documents.append(text.open_document(path, "stdin" if name == "-" else name))
        yield documents


def size(documents: list[Document]) -> int:
    """Bytes of text in all documents."""
    return sum(document.stop - document.start for document in documents)


def write(
    target: Path, documents: list[Document], kind: str, config: TokenizeConfig, *, started: str, on_bytes: OnBytes
) -> Manifest:
    """Write the tokens folder `target`: shards, tokenizer.json, manifest.json; return the manifest.

    `kind` is a kind of tokenizer, its vocabulary learned from the documents where it needs one, or a folder with
    a saved one. `on_bytes` is told how many bytes of text went in. Raises MakegptError for what is no text.
    """
    with artifact.replacing_folder(target, "tokens") as folder:
        if kind in tokenizer.KINDS:
            made = tokenizer.make(kind, (_read(document, config.errors) for document in documents), inputs.data_folder())
        else:
            made = saved_tokenizer(kind, "-o")
        ids = _encode_documents(documents, made, config.errors, on_bytes)
        names = shards.write_shards(folder, ids, shards.dtype_for(made.vocab_size), config.shard_tokens)
        made.save(folder / tokenizer.FILE)
        count = sum(len(shards.open_shard(folder / name)) for name in names)
        if not count:
            raise MakegptError(f"{documents[0].name} gives no tokens; a text is expected")
        manifest = provenance.manifest(
            "tokens",
            "tokenize",
            parameters={"tokenizer": made.kind, "errors": config.errors, "shard_tokens": config.shard_tokens},
            inputs={document.name: _source(document) for document in documents},
            outputs=artifact.files_of(folder, [*names, tokenizer.FILE]),
            facts={
                "tokens": count,
                "documents": len(documents),
                "bytes": size(documents),
                "vocab_size": made.vocab_size,
                "dtype": shards.dtype_for(made.vocab_size).name,
            },
            started=started,
        )
        artifact.write_json(folder / artifact.MANIFEST, manifest)
    return manifest


def _source(document: Document) -> dict[str, object]:
    """A document as the manifest tells of it: its file's size and SHA-256, and which of its bytes were read."""
    path = document.path
    return {"bytes": path.stat().st_size, "sha256": artifact.sha256(path), "read": [document.start, document.stop]}


def summary(manifest: Manifest) -> str:
    """A tokens manifest in a line."""
    facts, outputs = manifest["facts"], manifest["outputs"]
    return (
        f"{facts['tokens']:,} tokens ({manifest['parameters']['tokenizer']}) of {facts['bytes']:,} bytes, "
        f"{facts['bytes'] / facts['tokens']:.2f} bytes a token; vocabulary {facts['vocab_size']:,}; "
        f"{len(outputs) - 1} shard{'s' if len(outputs) > 2 else ''}"
    )


def _encode_documents(documents: list[Document], made: Tokenizer, errors: str, on_bytes: OnBytes) -> Iterator[np.ndarray]:
    """The ids of all documents, `<|endoftext|>` between two of them where the tokenizer has it."""
    for number, document in enumerate(documents):
        if number and made.endoftext is not None:
            yield np.array([made.endoftext], dtype=np.uint32)
        yield from made.encode_stream(_counted(_read(document, errors), on_bytes))


def _read(document: Document, errors: str) -> Iterator[str]:
    """The text of `document`; unless invalid bytes are to be replaced, a binary file is refused."""
    pieces = document.pieces(errors)
    return pieces if errors == "replace" else text.refuse_binary(pieces, document.name)


def _counted(pieces: Iterable[str], on_bytes: OnBytes) -> Iterator[str]:
    for piece in pieces:
        yield piece
        on_bytes(len(piece.encode("utf-8")))


def saved_tokenizer(kind: str, wanted_by: str) -> Tokenizer:
    """The tokenizer that needs no text to learn from: `gpt2`, `bytes`, or the one saved in the folder `kind`."""
    if kind in ("gpt2", "bytes"):
        return tokenizer.make(kind, [], inputs.data_folder())
    if kind in tokenizer.KINDS:
        raise UsageError(f"{wanted_by} with {kind} needs a saved vocabulary: --tokenizer DIR, a folder made with `tokenize -o`")
    if not Path(kind).exists():
        raise UsageError(
            f"--tokenizer {kind} is neither a kind nor a folder with a tokenizer; {nearest(kind, tokenizer.KINDS)}"
        )
    return tokenizer.load(Path(kind))


def encode_ids(names: Iterable[str], stdin: BinaryIO, made: Tokenizer, errors: str) -> Iterator[bytes]:
    """The ids of each document, uncleaned, as text: ids apart by spaces, one line a document; a document may be empty."""
    for name in names:
        if name != "-":
            text.check_file(Path(name))
        with open(name, "rb") if name != "-" else os.fdopen(os.dup(stdin.fileno()), "rb") as file:
            space = b""
            for ids in made.encode_stream(text.decode(file, "stdin" if name == "-" else name, errors)):
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
    while data := stdin.read(text.PIECE):
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
