"""Files of conversations to a tokens folder: the ids, and what each of them is.

shard-00000.npy …   the ids, one conversation after the other
marks-00000.npy …   a byte for each: TRAINED, a model learns to write it; BEGINS, a conversation begins with it

A pair of preferences is two conversations, the chosen one first, and REJECTED where the other begins.
"""

from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

import numpy as np

from lib.artifact.folders import replacing_folder
from lib.artifact.manifest import Manifest, describe_files, new_manifest, write_manifest
from lib.chat.examples import example_segments, read_examples
from lib.chat.preferences import is_pair, pair_segments
from lib.chat.template import ChatTemplate, Segment, encode_segments
from lib.config.text import TokenizeConfig
from lib.data.documents import document_inputs, total_bytes
from lib.data.shards import BEGINS, REJECTED, TRAINED, Sharded, dtype_for, write_shards
from lib.data.text import Document, ReadCounter
from lib.errors import MakegptError
from lib.tokenizer.base import Tokenizer, UnknownText
from lib.tokenizer.registry import TOKENIZER_FILE


def write_conversations(
    target: Path,
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    template: ChatTemplate,
    format: str,
    config: TokenizeConfig,
    *,
    started: str,
    on_bytes: Callable[[int], None],
) -> Manifest:
    """Write the tokens folder `target` of the examples in `documents`; return its manifest.

    `format` as in `example_segments`. A MakegptError names the line of an example that is wrong.
    """
    with replacing_folder(target, "tokens") as folder:
        counter = ReadCounter(on_bytes)
        encoded = _Encoded(documents, tokenizer, template, format, counter)
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
                "tokenizer": tokenizer.kind,
                "vocabulary": tokenizer.identity(),
                "chat": template.to_saved(),
                "format": format,
                "shard_tokens": config.shard_tokens,
            },
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


class _Encoded:
    """All examples, encoded as they are read; the marks are kept until all ids are written, a byte each."""

    def __init__(
        self, documents: Sequence[Document], tokenizer: Tokenizer, template: ChatTemplate, format: str, counter: ReadCounter
    ) -> None:
        self._documents, self._tokenizer, self._template = documents, tokenizer, template
        self._format, self._counter = format, counter
        self._marks: list[np.ndarray] = []
        self._of_pairs: bool | None = None  # not known before the first example
        self._equal: list[str] = []  # the place of each pair of equal answers
        self.count = 0

    def ids(self) -> Iterator[np.ndarray]:
        """The ids of each conversation; of a pair, first those of the chosen one. Pairs of equal answers are left out."""
        for document in self._documents:
            for place, value in read_examples(document.pieces(counter=self._counter), document.name):
                try:
                    texts = [encode_segments(segments, self._tokenizer) for segments in self._texts(value)]
                except (ValueError, UnknownText) as error:
                    raise MakegptError(f"{place}: {error}") from None
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
        if not self._of_pairs:
            return {}
        first = {"first_equal_pair": self._equal[0]} if self._equal else {}
        return {"pairs": self.count // 2, "equal_pairs": len(self._equal)} | first

    def _texts(self, value: Any) -> Sequence[list[Segment]]:
        """The conversation of an example, or the two of a pair. ValueError if some examples are pairs and others are not."""
        of_pairs = is_pair(value)
        if self._of_pairs not in (None, of_pairs):
            raise ValueError(f"it is {'a' if of_pairs else 'no'} pair of answers, unlike those before it; use a file for each")
        self._of_pairs = of_pairs
        if of_pairs:
            return pair_segments(value, self._template, self._format)
        return [example_segments(value, self._template, self._format)]

    def marks(self) -> Iterator[np.ndarray]:
        """The marks of each example, after `ids`."""
        yield from self._marks
