"""A GGUF file to a run folder: its model, its tokenizer and its weights."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lib.artifact.manifest import Manifest
from lib.chat.jinja import recognize
from lib.errors import MakegptError, nearest
from lib.gguf.llama import read_config, read_tensors
from lib.gguf.reader import GGUFFile, open_gguf
from lib.run.imported import check_importable, write_imported_run
from lib.tokenizer.pretrained import PATTERNS, PretrainedTokenizer, from_merges

SUFFIX = ".gguf"

_NORMAL, _CONTROL = 1, 3  # tokenizer.ggml.token_type


def import_gguf(source: Path, target: Path, *, started: str) -> Manifest:
    """Write the run folder `target` with the model in the GGUF file `source`; return its manifest.

    Quantized weights become float32. Raises MakegptError if the file is damaged or the model not supported; UsageError if
    `target` holds something else.
    """
    check_importable(target)
    if not source.is_file():
        raise MakegptError(f"{source} does not exist; it must be a {SUFFIX} file")
    with open_gguf(source) as file:
        config = read_config(file)
        tokenizer = read_tokenizer(file)
        if tokenizer.vocab_size != config.vocab_size:
            raise MakegptError(
                f"{source}: the tokenizer has {tokenizer.vocab_size} tokens, the embeddings have {config.vocab_size} rows"
            )
        tensors = read_tensors(file, config)
        chat = file.values.get("tokenizer.chat_template")
        kinds = sorted({info.type_name for info in file.tensors.values()})
        metadata = {"types": kinds, "name": str(file.values.get("general.name", source.stem))}
    return write_imported_run(
        target,
        config,
        tokenizer,
        tensors,
        checkpoint={"model": asdict(config), "tokenizer": tokenizer.identity()},
        inputs=[source],
        metadata=metadata,
        started=started,
        chat=recognize(chat) if isinstance(chat, str) else None,
    )


def read_tokenizer(file: GGUFFile) -> PretrainedTokenizer:
    """The byte-level BPE in `file`; MakegptError says what is missing, damaged or not supported."""
    keys: dict[str, Any] = {
        name: file.values.get(f"tokenizer.ggml.{name}") for name in ("model", "pre", "tokens", "token_type", "merges")
    }
    if keys["model"] != "gpt2":
        raise MakegptError(
            f"{file.path}: tokenizer.ggml.model={keys['model']} is not supported; it must be gpt2, a byte-level BPE"
        )
    tokens, types, merges = keys["tokens"], keys["token_type"], keys["merges"]
    texts = all(isinstance(value, list) and all(isinstance(text, str) for text in value) for value in (tokens, merges))
    if not texts or types is None or isinstance(types, (str, int, float)) or len(types) != len(tokens):
        raise MakegptError(f"{file.path} is damaged: its tokenizer lacks tokens, their types or merges")
    if odd := set(map(int, types)) - {_NORMAL, _CONTROL}:
        raise MakegptError(f"{file.path}: tokens of type {min(odd)} are not supported; only normal and control tokens are")
    special = {id: tokens[id] for id, kind in enumerate(types) if kind == _CONTROL}
    endoftext = file.values.get("tokenizer.ggml.eos_token_id")
    if keys["pre"] not in PATTERNS:
        raise MakegptError(
            f"{file.path}: the pre-tokenizer {keys['pre']} is not supported; {nearest(str(keys['pre']), PATTERNS)}"
        )
    try:
        return from_merges(keys["pre"], tokens, merges, special, endoftext)
    except ValueError as error:
        raise MakegptError(f"{file.path}: its tokenizer cannot be followed: {error}") from None
