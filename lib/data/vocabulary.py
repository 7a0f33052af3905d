"""A tokenizer whose vocabulary is learned from documents, without those parts that will be held out."""

from pathlib import Path
from typing import Any, Iterator, Sequence

from lib.artifact.folders import replacing_folder
from lib.artifact.manifest import Manifest, describe_files, new_manifest, write_manifest
from lib.config.text import BuildDatasetConfig, TokenizeConfig
from lib.data.dataset import split_sizes
from lib.data.documents import document_inputs, total_bytes
from lib.data.downloads import VOCABULARY, data_folder
from lib.data.text import Document
from lib.errors import UsageError, nearest
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.bpe import TIES, BPETokenizer
from lib.tokenizer.byte_level import PATTERNS
from lib.tokenizer.registry import TOKENIZER_FILE, make_tokenizer

#: The kinds whose vocabulary comes from a text.
LEARNED = ("bpe", "char", "word")


def check_training(train: str | None, tokenizer: str | None, pattern: str | None, ties: str | None, *, to_folder: bool) -> None:
    """UsageError if the options --train, --tokenizer, --pattern and --ties do not fit together, or have unknown values."""
    if train is None:
        if pattern or ties:
            raise UsageError("--pattern and --ties need --train bpe, which writes a vocabulary; then use --tokenizer DIR")
        return
    if train not in LEARNED:
        raise UsageError(f"--train {train} is unknown; {nearest(train, LEARNED)}")
    if not to_folder or tokenizer is not None:
        raise UsageError(f"--train writes a vocabulary to a folder; use `tokenize --train {train} FILE -o DIR`")
    if train != BPETokenizer.kind and (pattern or ties):
        raise UsageError(f"--pattern and --ties are not supported by --train {train}; use --train bpe")
    for option, value, names in (("--pattern", pattern, PATTERNS), ("--ties", ties, TIES)):
        if value is not None and value not in names:
            raise UsageError(f"{option} {value} is unknown; {nearest(value, names)}")


def train_tokenizer(
    documents: Sequence[Document],
    kind: str,
    config: TokenizeConfig,
    split: BuildDatasetConfig | None,
    pattern: str = "gpt2",
    ties: str = "bytes",
) -> Tokenizer:
    """A tokenizer of `kind`, trained on the documents if it needs a vocabulary.

    `bpe` learns from the first bytes of the text alone, as many as `split` leaves for training; `pattern` and `ties` are its
    own. `char` and `word` need every character or word that they will meet, and learn from all of the text.
    """
    if kind == BPETokenizer.kind:
        assert split is not None
        texts = _first_bytes(documents, config.errors, learned_bytes(documents, split))
        return BPETokenizer.train(texts, data_folder(), config.vocab_size, pattern=pattern, ties=ties)
    texts = (document.pieces(config.errors) for document in documents)
    return make_tokenizer(kind, texts, data_folder(VOCABULARY))


def learned_bytes(documents: Sequence[Document], split: BuildDatasetConfig) -> int:
    """How many bytes of text `bpe` learns from: those before the fractions that `split` holds out."""
    return split_sizes(total_bytes(documents), split.val_fraction, split.test_fraction)[0]


def _first_bytes(documents: Sequence[Document], errors: str, size: int) -> Iterator[Iterator[str]]:
    """The first `size` bytes of the documents, less a character that would be cut: each a text in pieces."""
    for document in documents:
        yield _cut(document.pieces(errors), size)
        size -= document.length
        if size <= 0:
            return


def _cut(pieces: Iterator[str], size: int) -> Iterator[str]:
    for piece in pieces:
        content = piece.encode("utf-8")
        yield piece if len(content) <= size else content[:size].decode("utf-8", "ignore")
        size -= len(content)
        if size <= 0:
            return


def learned_parameters(config: TokenizeConfig, split: BuildDatasetConfig | None) -> dict[str, Any]:
    """The parameters of a vocabulary of `bpe`, as a manifest lists them."""
    assert split is not None
    return {"vocab_size": config.vocab_size, "val_fraction": split.val_fraction, "test_fraction": split.test_fraction}


def write_tokenizer(
    target: Path,
    documents: Sequence[Document],
    config: TokenizeConfig,
    split: BuildDatasetConfig,
    *,
    pattern: str,
    ties: str,
    started: str,
) -> Manifest:
    """Write the tokenizer folder `target`, tokenizer.json and manifest.json, trained on the documents; return the manifest.

    `pattern` and `ties`: of `bpe`.
    """
    with replacing_folder(target, "tokenizer") as folder:
        tokenizer = train_tokenizer(documents, config.tokenizer, config, split, pattern, ties)
        tokenizer.save(folder / TOKENIZER_FILE)
        is_bpe = config.tokenizer == BPETokenizer.kind
        size = total_bytes(documents)
        manifest = new_manifest(
            "tokenizer",
            "tokenize",
            parameters={"tokenizer": config.tokenizer, "errors": config.errors}
            | (learned_parameters(config, split) | {"pattern": pattern, "ties": ties} if is_bpe else {}),
            inputs=document_inputs(documents),
            outputs=describe_files(folder, [TOKENIZER_FILE]),
            metadata={
                "vocab_size": tokenizer.vocab_size,
                "bytes": size,
                "learned_bytes": learned_bytes(documents, split) if is_bpe else size,
            },
            started=started,
        )
        write_manifest(folder, manifest)
    return manifest


def vocabulary_summary(manifest: Manifest) -> str:
    """One line about a tokenizer manifest."""
    metadata = manifest.metadata
    return (
        f"{metadata['vocab_size']:,} tokens ({manifest.parameters['tokenizer']}), learned from the first "
        f"{metadata['learned_bytes']:,} of {metadata['bytes']:,} bytes"
    )
