"""Text to tokens and back: documents to a tokens folder, text to a stream of ids, ids to text."""

from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO, Callable, Iterable, Iterator

from lib.artifact.folders import replacing_folder
from lib.artifact.manifest import Manifest, describe_files, new_manifest, write_manifest
from lib.config.text import SIZED_KINDS, BuildDatasetConfig, TokenizeConfig
from lib.data.documents import display_name, document_inputs, encode_documents, total_bytes
from lib.data.downloads import VOCABULARY, data_folder
from lib.data.shards import dtype_for, open_shard, write_shards
from lib.data.text import (
    PIECE_BYTES,
    Document,
    ReadCounter,
    check_text_file,
    decode_utf8,
    describe_cleaning,
)
from lib.data.vocabulary import LEARNED, learned_parameters, train_tokenizer
from lib.errors import MakegptError, UsageError, nearest
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.registry import TOKENIZER_FILE, TOKENIZERS, load_tokenizer, make_tokenizer

OnBytes = Callable[[int], None]


def write_corpus(
    target: Path,
    documents: list[Document],
    kind: str,
    config: TokenizeConfig,
    split: BuildDatasetConfig | None = None,
    *,
    started: str,
    on_bytes: OnBytes,
) -> Manifest:
    """Write the tokens folder `target`: shards, tokenizer.json, manifest.json; return the manifest.

    `kind` is a kind of tokenizer, trained on the documents if it needs a vocabulary, or a folder with a saved one. `split`: the
    fractions to be held out, which `bpe` and `unigram` do not learn from. `on_bytes` is called with the number of bytes read.
    """
    with replacing_folder(target, "tokens") as folder:
        if kind in TOKENIZERS:
            tokenizer, learned = train_tokenizer(documents, kind, config, split)
        else:
            tokenizer, learned = saved_tokenizer(kind, "-o"), None
        counter = ReadCounter(on_bytes)
        ids = encode_documents(documents, tokenizer, config.errors, counter)
        names = write_shards(folder, ids, dtype_for(tokenizer.vocab_size), config.shard_tokens)
        tokenizer.save(folder / TOKENIZER_FILE)
        count = sum(len(open_shard(folder / name)) for name in names)
        if not count:
            raise MakegptError(f"{documents[0].name} gives no tokens; a text is expected")
        manifest = new_manifest(
            "tokens",
            "tokenize",
            parameters=({} if kind in TOKENIZERS else {"vocabulary": tokenizer.identity()})
            | (learned_parameters(config, split) if kind in SIZED_KINDS else {})
            | {"tokenizer": tokenizer.kind, "errors": config.errors, "shard_tokens": config.shard_tokens},
            inputs=document_inputs(documents),
            outputs=describe_files(folder, [*names, TOKENIZER_FILE]),
            metadata={
                "tokens": count,
                "documents": len(documents),
                "bytes": total_bytes(documents),
                "cut_bytes": sum(document.size - document.length for document in documents),
                "cut_books": sum(document.books for document in documents),
                "replaced_bytes": counter.replaced,
                "vocab_size": tokenizer.vocab_size,
                "dtype": dtype_for(tokenizer.vocab_size).name,
            }
            | ({} if learned is None else {"learned_bytes": learned}),
            started=started,
        )
        write_manifest(folder, manifest)
    return manifest


def corpus_summary(manifest: Manifest) -> str:
    """One line about a tokens manifest."""
    metadata, outputs = manifest.metadata, manifest.outputs
    return (
        f"{metadata['tokens']:,} tokens ({manifest.parameters['tokenizer']}) of {metadata['bytes']:,} bytes, "
        f"{metadata['bytes'] / metadata['tokens']:.2f} bytes/token; vocabulary {metadata['vocab_size']:,}; "
        f"{len(outputs) - 1} shard{'s' if len(outputs) > 2 else ''}"
        + "".join(
            f"; {notice}"
            for notice in (
                describe_cleaning(metadata["cut_bytes"], metadata["cut_books"]),
                replacement_notice(metadata["replaced_bytes"]),
            )
            if notice
        )
    )


def replacement_notice(count: int) -> str:
    """Say how many bytes were replaced; "" if none were."""
    return (
        f"replaced {count:,} byte{'' if count == 1 else 's'} that {'is' if count == 1 else 'are'} not valid UTF-8"
        if count
        else ""
    )


def saved_tokenizer(kind: str, option: str) -> Tokenizer:
    """`gpt2`, `bytes`, or the tokenizer saved in the folder `kind`; UsageError about `option` for a kind that needs a text."""
    if kind in LEARNED:
        raise UsageError(f"{option} with {kind} needs a saved vocabulary: --tokenizer DIR, a folder made with `tokenize -o`")
    if kind in TOKENIZERS:
        return make_tokenizer(kind, [], data_folder(VOCABULARY))
    if not Path(kind).exists():
        raise UsageError(
            f"--tokenizer {kind} is neither a tokenizer's kind nor a folder that holds one; {nearest(kind, TOKENIZERS)}"
        )
    return load_tokenizer(Path(kind))


def encode_ids(
    names: Iterable[str], stdin: BinaryIO, tokenizer: Tokenizer, errors: str, counter: ReadCounter
) -> Iterator[bytes]:
    """The ids of each document as text, nothing cut: separated by spaces, one line per document, which may be empty."""
    for name in names:
        if name != "-":
            check_text_file(Path(name))
        with nullcontext(stdin) if name == "-" else open(name, "rb") as file:
            space = b""
            for ids in tokenizer.encode_stream(decode_utf8(file, display_name(name), errors, counter=counter)):
                if len(ids):
                    yield space + " ".join(map(str, ids.tolist())).encode("ascii")
                    space = b" "
        yield b"\n"


def decode_ids(stdin: BinaryIO, tokenizer: Tokenizer) -> Iterator[bytes]:
    """The text of ids separated by whitespace: as it was if the tokenizer is lossless, else one line per document."""
    if tokenizer.lossless:
        for words in _words(stdin):
            yield tokenizer.decode_bytes(map(_id, words))
    else:
        for line in stdin:
            yield tokenizer.decode_bytes(map(_id, line.split())) + b"\n"


def _words(stdin: BinaryIO) -> Iterator[list[bytes]]:
    """The words of `stdin`, which whitespace separates, in lists of bounded length."""
    rest = b""
    while data := stdin.read(PIECE_BYTES):
        data = rest + data
        words = data.split()
        rest = b"" if data[-1:].isspace() else words.pop()
        if len(rest) > _LONGEST_ID:
            words.append(rest)  # not an id: refused before it fills the memory
        yield words
    yield [rest] if rest else []


_LONGEST_ID = 10  # digits of 2³²


def _id(word: bytes) -> int:
    if not word.isdigit() or len(word) > _LONGEST_ID:
        raise MakegptError(
            f"{word.decode('utf-8', 'replace')!r} is not an id; --decode takes what --ids gives: integers separated by spaces"
        )
    return int(word)
