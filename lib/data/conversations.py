"""Files of conversations to a tokens folder: the ids, and what each of them is.

shard-00000.npy …   the ids, one conversation after the other
marks-00000.npy …   a byte for each: TRAINED, a model learns to write it; BEGINS, a conversation begins with it

A pair of preferences is two conversations, the chosen one first, and REJECTED where the other begins.
"""

from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple, Sequence

import numpy as np

from lib.artifact.folders import replacing_folder
from lib.artifact.manifest import Manifest, describe_files, new_manifest, read_manifest, write_manifest
from lib.chat.examples import example_segments, read_examples
from lib.chat.preferences import is_pair, pair_segments
from lib.chat.template import ChatTemplate, Segment, encode_segments
from lib.config.text import SIZED_KINDS, BuildDatasetConfig, TokenizeConfig
from lib.data.corpus import saved_tokenizer
from lib.data.dataset import Dataset, split_sizes
from lib.data.documents import document_inputs, total_bytes
from lib.data.downloads import data_folder
from lib.data.packed import SPANS_FILE, text_starts
from lib.data.shards import BEGINS, REJECTED, TRAINED, Sharded, Tokens, dtype_for, write_shards
from lib.data.text import Document, ReadCounter, check_unicode
from lib.data.vocabulary import LEARNED, learned_parameters
from lib.errors import MakegptError
from lib.tokenizer.base import Tokenizer, UnknownText
from lib.tokenizer.extended import with_special_tokens
from lib.tokenizer.registry import TOKENIZER_FILE, TOKENIZERS, make_tokenizer


def write_conversations(
    target: Path,
    documents: Sequence[Document],
    kind: str,
    template: ChatTemplate,
    format: str,
    config: TokenizeConfig,
    split: BuildDatasetConfig,
    longest: int | None = None,
    *,
    started: str,
    on_bytes: Callable[[int], None],
) -> Manifest:
    """Write the tokens folder `target` of the examples in `documents`; return its manifest.

    `kind` as in `chat_tokenizer`, `format` as in `example_segments`, `longest`: the most tokens that an example may have. A
    MakegptError names the line of an example that is wrong.
    """
    with replacing_folder(target, "tokens") as folder:
        examples = _Examples(documents, template, format)
        tokenizer = chat_tokenizer(kind, examples, config, split)
        encoded = _Encoded(examples, tokenizer, ReadCounter(on_bytes), longest)
        names = write_shards(folder, encoded.ids(), dtype_for(tokenizer.vocab_size), config.shard_tokens)
        marks = write_shards(folder, encoded.marks(), np.dtype(np.uint8), config.shard_tokens, "marks")
        tokenizer.save(folder / TOKENIZER_FILE)
        if not encoded.count:
            nothing = "pairs of different answers" if encoded.counted_pairs() else "examples"
            raise MakegptError(f"{documents[0].name} has no {nothing}; JSON Lines, or one JSON list, are expected")
        written = Sharded(folder / name for name in marks)
        manifest = new_manifest(
            "tokens",
            "tokenize",
            parameters={
                "tokenizer": kind if kind in TOKENIZERS else tokenizer.kind,
                "vocabulary": tokenizer.identity(),
                "chat": template.to_saved(),
                "format": format,
                "shard_tokens": config.shard_tokens,
            }
            | (learned_parameters(config, split) if kind in SIZED_KINDS else {}),
            inputs=document_inputs(list(documents)),
            outputs=describe_files(folder, [*names, *marks, TOKENIZER_FILE]),
            metadata={
                "tokens": len(written),
                "trained_tokens": sum(int((block & TRAINED).sum()) for block in written.blocks(0, len(written))),
                "documents": len(documents),
                "conversations": encoded.count,
                **encoded.counted_pairs(),
                "bytes": total_bytes(documents),
                "vocab_size": tokenizer.vocab_size,
                "dtype": dtype_for(tokenizer.vocab_size).name,
            },
            started=started,
        )
        write_manifest(folder, manifest)
    return manifest


def conversations_summary(manifest: Manifest) -> str:
    """One line about the manifest of tokens of conversations."""
    metadata = manifest.metadata
    pairs = f" in {metadata['pairs']:,} pairs" if "pairs" in metadata else ""
    return (
        f"{metadata['conversations']:,} conversations{pairs} of {metadata['tokens']:,} tokens "
        f"({manifest.parameters['tokenizer']}), {metadata['trained_tokens']:,} of which are learned; "
        f"template {manifest.parameters['chat']['template']}; vocabulary {metadata['vocab_size']:,}"
    )


def equal_pairs_notice(manifest: Manifest) -> str | None:
    """What was left out of a file of preferences, if anything."""
    metadata = manifest.metadata
    if not (equal := metadata.get("equal_pairs")):
        return None
    return (
        f"{equal:,} of {metadata['pairs'] + equal:,} pairs have two equal answers, from which nothing can be learned, and were "
        f"left out; the first is {metadata['first_equal_pair']}"
    )


class MarkedConversation(NamedTuple):
    """A conversation of an artifact: which one it is, and its text in parts, learned or not."""

    title: str
    parts: list[tuple[str, bool]]


def find_conversation(path: Path, number: int | None) -> MarkedConversation | None:
    """Conversation `number`, from 1, of the tokens or dataset folder `path`; the first for None, or None if it has none.

    MakegptError for a number that it does not have.
    """
    outputs = read_manifest(path, None).outputs if path.is_dir() else {}
    if not any(name == SPANS_FILE or name.startswith("marks-") for name in outputs):
        if number is None:
            return None
        raise MakegptError(
            f"{path} holds no conversations; --conversation goes with tokens of `tokenize --chat`, or their dataset"
        )
    try:
        tokens = Tokens(path) if SPANS_FILE not in outputs else Dataset(path).tokens
    except MakegptError:  # a dataset is described without its tokens, too
        if number is not None:
            raise
        return None
    starts = text_starts(tokens).tolist()
    count, number = len(starts) - 1, number or 1
    if number > count:
        raise MakegptError(f"{path} has {count:,} conversations, and no number {number:,}")
    start, stop = starts[number - 1 : number + 1]
    ids, trained, tokenizer = tokens.read(start, stop).tolist(), tokens.trained(start, stop), tokens.load_tokenizer()
    parts = [
        (tokenizer.decode([id for id, _ in part]), bool(learned))
        for learned, part in groupby(zip(ids, trained, strict=True), lambda pair: pair[1])
    ]
    title = f"conversation {number:,} of {count:,}: {int(trained.sum()):,} of {len(ids):,} tokens are learned"
    return MarkedConversation(title, parts)


def _single_segments(value: Any, template: ChatTemplate, format: str) -> Sequence[list[Segment]]:
    return [example_segments(value, template, format)]


class _Examples:
    """The examples of some documents, as segments."""

    def __init__(self, documents: Sequence[Document], template: ChatTemplate, format: str) -> None:
        self.documents, self.template, self.format = documents, template, format
        self.of_pairs: bool | None = None  # not known before the first example

    def read(self, counter: ReadCounter | None = None) -> Iterator[tuple[str, Sequence[list[Segment]]]]:
        """The conversation of each example, or the two of a pair, with its place; a MakegptError names that of a wrong one."""
        for document in self.documents:
            for place, value in read_examples(document.pieces(counter=counter), document.name):
                try:
                    yield place, self._conversations(value)
                except ValueError as error:
                    raise MakegptError(f"{place}: {error}") from None

    def _conversations(self, value: Any) -> Sequence[list[Segment]]:
        of_pairs = is_pair(value)
        if self.of_pairs not in (None, of_pairs):
            raise ValueError(f"it is {'a' if of_pairs else 'no'} pair of answers, unlike those before it; use a file for each")
        self.of_pairs = of_pairs
        texts = pair_segments if of_pairs else _single_segments
        conversations = texts(value, self.template, self.format)
        for segment in chain.from_iterable(conversations):
            check_unicode(segment.text, "a text")
        return conversations


def chat_tokenizer(kind: str, examples: _Examples, config: TokenizeConfig, split: BuildDatasetConfig) -> Tokenizer:
    """The tokenizer `kind`, as in `saved_tokenizer`, or of a kind that learns its vocabulary from the examples.

    `bpe` and `unigram` learn from those that `split` leaves for training. Special tokens of the template that it lacks are
    added.
    """
    if kind not in LEARNED:
        tokenizer = saved_tokenizer(kind, "--chat")
    else:
        count = sum(1 for _ in examples.read())
        learned = split_sizes(count, split.val_fraction, split.test_fraction)[0] if kind in SIZED_KINDS else count
        texts = (
            [segment.text for segments in conversations for segment in segments if not segment.special]
            for _, conversations in examples.read()
        )
        tokenizer = make_tokenizer(kind, islice(texts, learned), data_folder(), config.vocab_size)
    return with_special_tokens(tokenizer, examples.template.special)


class _Encoded:
    """All examples, encoded as they are read; the marks are kept until all ids are written, a byte each."""

    def __init__(self, examples: _Examples, tokenizer: Tokenizer, counter: ReadCounter, longest: int | None) -> None:
        self._examples, self._tokenizer, self._counter, self._longest = examples, tokenizer, counter, longest
        self._marks: list[np.ndarray] = []
        self._equal: list[str] = []  # the place of each pair of equal answers
        self.count = 0

    def ids(self) -> Iterator[np.ndarray]:
        """The ids of each conversation; of a pair, first those of the chosen one. Pairs of equal answers are left out."""
        for place, conversations in self._examples.read(self._counter):
            try:
                texts = [encode_segments(segments, self._tokenizer) for segments in conversations]
            except UnknownText as error:
                raise UnknownText(f"{place}: {error}") from None
            if self._longest is not None:
                self._check(place, [ids for ids, _ in texts], self._longest)
            if len(texts) == 2 and texts[0] == texts[1]:
                self._equal.append(place)
                continue
            for number, (ids, trained) in enumerate(texts):
                marks = np.array(trained, np.uint8) * np.uint8(TRAINED)
                marks[0] = BEGINS | (REJECTED if number else 0)  # nothing comes before it, so it cannot be learned
                self._marks.append(marks)
                self.count += 1
                yield np.array(ids, np.uint32)

    def counted_pairs(self) -> dict[str, Any]:
        """How many pairs there are, and how many were left out; after `ids`."""
        if not self._examples.of_pairs:
            return {}
        first = {"first_equal_pair": self._equal[0]} if self._equal else {}
        return {"pairs": self.count // 2, "equal_pairs": len(self._equal)} | first

    def _check(self, place: str, texts: list[list[int]], longest: int) -> None:
        """MakegptError for a text that is too long, and for a pair of equal answers."""
        if (tokens := max(map(len, texts))) > longest:
            raise MakegptError(
                f"{place}: it has {tokens:,} tokens, and a window {longest:,}; shorten it, use a longer "
                "--context-length, or leave --strict, and its end is cut"
            )
        if len(texts) == 2 and texts[0] == texts[1]:
            raise MakegptError(f"{place}: its two answers are equal; change one, or leave --strict, and the pair is left out")

    def marks(self) -> Iterator[np.ndarray]:
        """The marks of each example, after `ids`."""
        yield from self._marks
