"""A tokenizer whose vocabulary is learned from documents, without those parts that will be held out."""

from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

import numpy as np

from lib.artifact.folders import replacing_folder
from lib.artifact.manifest import Manifest, describe_files, new_manifest, write_manifest
from lib.config.text import SIZED_KINDS, BuildDatasetConfig, TokenizeConfig
from lib.data.dataset import split_sizes
from lib.data.documents import document_inputs, encode_documents, total_bytes
from lib.data.downloads import VOCABULARY, data_folder
from lib.data.text import Document
from lib.errors import UsageError, nearest
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.bpe import TIES, BPETokenizer
from lib.tokenizer.patterns import PATTERNS
from lib.tokenizer.registry import TOKENIZER_FILE, make_tokenizer

#: The kinds whose vocabulary comes from a text.
LEARNED = (*SIZED_KINDS, "char", "word", "symbols")


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
) -> tuple[Tokenizer, int | None]:
    """A tokenizer of `kind`, trained on the documents if it needs a vocabulary; how many of their bytes it learned from.

    `bpe`, whose are `pattern` and `ties`, and `unigram` learn from the text that `split` leaves for training. `char`, `word`
    and `symbols` need every token that they will meet, and learn from all of the text: None.
    """
    if kind in SIZED_KINDS:
        assert split is not None

        def learn(texts: Iterator[Iterator[str]]) -> Tokenizer:
            if kind == BPETokenizer.kind:
                return BPETokenizer.train(texts, data_folder(), config.vocab_size, pattern=pattern, ties=ties)
            return make_tokenizer(kind, texts, data_folder(), config.vocab_size)

        return _train_on_split(documents, config.errors, split, learn)
    texts = (document.pieces(config.errors) for document in documents)
    return make_tokenizer(kind, texts, data_folder(VOCABULARY)), None


def _train_on_split(
    documents: Sequence[Document],
    errors: str,
    split: BuildDatasetConfig,
    learn: Callable[[Iterator[Iterator[str]]], Tokenizer],
) -> tuple[Tokenizer, int]:
    """As `train_tokenizer`, by a function of the texts that are for training.

    The split is by tokens, which depend on the vocabulary. So a fraction of the bytes is tried, and a smaller one if some of
    them turn out to be held out.
    """

    def for_training(size: int) -> int:
        return split_sizes(size, split.val_fraction, split.test_fraction)[0]

    learned = for_training(total_bytes(documents))
    while True:
        tokenizer = learn(first_bytes(documents, errors, learned))
        tokens, needed = _count_tokens(documents, errors, tokenizer, learned)
        if needed <= for_training(tokens):
            return tokenizer, learned
        learned = learned * for_training(tokens) // needed


def _count_tokens(documents: Sequence[Document], errors: str, tokenizer: Tokenizer, learned: int) -> tuple[int, int]:
    """How many tokens the documents have, and how many of them it takes to cover the first `learned` bytes."""
    lengths = tokenizer.byte_lengths()
    tokens = covered = needed = 0
    for ids in encode_documents(documents, tokenizer, errors):
        ends = covered + np.cumsum(lengths[ids])
        if covered < learned and len(ids):
            needed = tokens + min(int(np.searchsorted(ends, learned)) + 1, len(ids))
        tokens += len(ids)
        covered = int(ends[-1]) if len(ids) else covered
    return tokens, needed


def first_bytes(documents: Sequence[Document], errors: str, size: int) -> Iterator[Iterator[str]]:
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
    """The parameters of a vocabulary of a chosen size, as a manifest lists them."""
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
        tokenizer, learned = train_tokenizer(documents, config.tokenizer, config, split, pattern, ties)
        tokenizer.save(folder / TOKENIZER_FILE)
        kind = config.tokenizer
        size = total_bytes(documents)
        manifest = new_manifest(
            "tokenizer",
            "tokenize",
            parameters={"tokenizer": kind, "errors": config.errors}
            | (learned_parameters(config, split) if kind in SIZED_KINDS else {})
            | ({"pattern": pattern, "ties": ties} if kind == BPETokenizer.kind else {}),
            inputs=document_inputs(documents),
            outputs=describe_files(folder, [TOKENIZER_FILE]),
            metadata={
                "vocab_size": tokenizer.vocab_size,
                "bytes": size,
                "learned_bytes": size if learned is None else learned,
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
