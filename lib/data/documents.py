"""The texts that a command names: files, pipes and stdin as documents, what they are called, what a manifest says of them."""

from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, Iterable, Iterator, Sequence

import numpy as np

from lib.artifact.folders import scratch_folder
from lib.artifact.io import sha256_of
from lib.artifact.manifest import Input
from lib.data.text import Document, ReadCounter, is_regular_text, open_document, read_pieces
from lib.errors import MakegptError, UsageError
from lib.tokenizer.base import Tokenizer


@contextmanager
def open_documents(names: Iterable[str], stdin: BinaryIO, target: Path) -> Iterator[list[Document]]:
    """The documents called `names`, without byte-order marks and Gutenberg's frames; "-" is `stdin`.

    stdin and pipes, which can be read only once, are copied to a temporary file next to `target` while the block runs.
    """
    names = list(names)
    if names.count("-") > 1:
        raise UsageError("- is named more than once; stdin can be read once")
    with ExitStack() as stack:
        scratch = None
        documents = []
        for number, name in enumerate(names):
            path = Path(name)
            if name == "-" or not is_regular_text(path):
                scratch = scratch or stack.enter_context(scratch_folder(target))
                with nullcontext(stdin) if name == "-" else open(path, "rb") as source:
                    path = scratch / str(number)
                    with open(path, "wb") as file:
                        file.writelines(read_pieces(source, display_name(name)))
            if path.stat().st_size == 0:
                raise MakegptError(f"{display_name(name)} is empty; a text is expected")
            documents.append(open_document(path, display_name(name)))
        yield documents


def display_name(name: str) -> str:
    """What messages call the argument `name`."""
    return "stdin" if name == "-" else name


def total_bytes(documents: Sequence[Document]) -> int:
    """Bytes of text in all documents."""
    return sum(document.length for document in documents)


def cleaning_notices(documents: Sequence[Document]) -> list[str]:
    """Messages about the `documents` for the user: Gutenberg's frames, and files that are named twice."""
    notices = [notice for document in documents for notice in document.notices]
    names: dict[tuple[int, int], str] = {}  # (device, inode) -> the first document that is this file
    for document in documents:
        if isinstance(document.source, Path):
            status = document.source.stat()
            inode = (status.st_dev, status.st_ino)
            if inode in names:
                same = "is named twice" if names[inode] == document.name else f"is the same file as {names[inode]}"
                notices.append(f"{document.name} {same}: training and validation text may overlap")
            else:
                names[inode] = document.name
    return notices


def document_inputs(documents: Sequence[Document]) -> dict[str, Input]:
    """The documents by name, as the manifest lists them; one that is named several times also with its numbers."""
    numbers: dict[str, list[int]] = {}
    for number, document in enumerate(documents, 1):
        numbers.setdefault(document.name, []).append(number)
    by_name = {document.name: document for document in documents}
    return {name: _input(document, numbers[name]) for name, document in by_name.items()}


def _input(document: Document, numbers: list[int]) -> Input:
    assert isinstance(document.source, Path)
    read = [list(span) for span in document.spans]
    several = numbers if len(numbers) > 1 else None
    return Input(bytes=document.size, sha256=sha256_of(document.source), read=read, documents=several)


def encode_documents(
    documents: Sequence[Document], tokenizer: Tokenizer, errors: str, counter: ReadCounter | None = None
) -> Iterator[np.ndarray]:
    """The ids of all documents, `<|endoftext|>` between two of them if the tokenizer has it."""
    for number, document in enumerate(documents):
        if number and tokenizer.endoftext is not None:
            yield np.array([tokenizer.endoftext], dtype=np.uint32)
        yield from tokenizer.encode_stream(document.pieces(errors, counter))
