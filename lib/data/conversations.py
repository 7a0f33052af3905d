"""Files of conversations to a tokens folder: the ids, and what each of them is.

shard-00000.npy …   the ids, one conversation after the other
marks-00000.npy …   a byte for each: TRAINED, a model learns to write it; BEGINS, a conversation begins with it
"""

from pathlib import Path
from typing import Callable, Iterator, Sequence

import numpy as np

from lib.artifact.folders import replacing_folder
from lib.artifact.manifest import Manifest, describe_files, new_manifest, write_manifest
from lib.chat.examples import example_segments, read_examples
from lib.chat.template import ChatTemplate, encode_segments
from lib.config.text import TokenizeConfig
from lib.data.documents import document_inputs, total_bytes
from lib.data.shards import BEGINS, TRAINED, Sharded, dtype_for, write_shards
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
            raise MakegptError(f"{documents[0].name} has no examples; JSON Lines, or one JSON list, are expected")
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
    return (
        f"{metadata['conversations']:,} conversations of {metadata['tokens']:,} tokens ({manifest.parameters['tokenizer']}), "
        f"{metadata['trained_tokens']:,} of which are learned; template {manifest.parameters['chat']['template']}; "
        f"vocabulary {metadata['vocab_size']:,}"
    )


class _Encoded:
    """All examples, encoded as they are read; the marks are kept until all ids are written, a byte each."""

    def __init__(
        self, documents: Sequence[Document], tokenizer: Tokenizer, template: ChatTemplate, format: str, counter: ReadCounter
    ) -> None:
        self._documents, self._tokenizer, self._template = documents, tokenizer, template
        self._format, self._counter = format, counter
        self._marks: list[np.ndarray] = []
        self.count = 0

    def ids(self) -> Iterator[np.ndarray]:
        """The ids of each example."""
        for document in self._documents:
            for place, value in read_examples(document.pieces(counter=self._counter), document.name):
                try:
                    ids, trained = encode_segments(example_segments(value, self._template, self._format), self._tokenizer)
                except (ValueError, UnknownText) as error:
                    raise MakegptError(f"{place}: {error}") from None
                marks = np.array(trained, np.uint8) * np.uint8(TRAINED)
                marks[0] = BEGINS  # nothing comes before it, so it cannot be learned
                self._marks.append(marks)
                self.count += 1
                yield np.array(ids, np.uint32)

    def marks(self) -> Iterator[np.ndarray]:
        """The marks of each example, after `ids`."""
        yield from self._marks
