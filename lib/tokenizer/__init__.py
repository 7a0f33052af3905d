"""Tokenizers: text to token ids and back, behind one small interface.

    make(kind, ...)          a tokenizer, its vocabulary learned from a text where the kind needs one
    tokenizer.encode(text)   ids
    tokenizer.decode(ids)    text
    tokenizer.save(path)     one self-contained tokenizer.json
    load(path)               the same tokenizer, on any machine

A kind is a module of this package: `gpt2`, `char`, `bytes_`, `word`.
"""

from pathlib import Path
from typing import Iterable

from lib import artifact
from lib.errors import MakegptError
from lib.tokenizer.base import ENDOFTEXT, Tokenizer, UnknownText
from lib.tokenizer.bytes_ import BytesTokenizer
from lib.tokenizer.char import CharTokenizer
from lib.tokenizer.gpt2 import GPT2Tokenizer
from lib.tokenizer.word import WordTokenizer

__all__ = ["ENDOFTEXT", "FILE", "KINDS", "Tokenizer", "UnknownText", "load", "make"]

FILE = "tokenizer.json"

KINDS: dict[str, type[Tokenizer]] = {cls.kind: cls for cls in (GPT2Tokenizer, CharTokenizer, BytesTokenizer, WordTokenizer)}


def make(kind: str, documents: Iterable[Iterable[str]], data: Path) -> Tokenizer:
    """A tokenizer of `kind`. `char` and `word` read their vocabulary off the documents, each a text in pieces;
    `gpt2` reads its files below `data`.
    """
    return KINDS[kind].learn(documents, data)


def load(path: Path) -> Tokenizer:
    """Load the tokenizer saved at `path`, a tokenizer.json or a folder that holds one."""
    path = Path(path)
    if path.is_dir():
        path = path / FILE
    saved = artifact.read_json(path)
    if not isinstance(saved, dict) or saved.get("kind") not in list(KINDS):
        raise MakegptError(f"{path} is not a tokenizer of this program; make one with `tokenize FILE -o DIR`")
    try:
        return KINDS[saved["kind"]].from_saved(saved)
    except (KeyError, TypeError, ValueError):
        raise MakegptError(f"{path} is damaged: its vocabulary cannot be read; make it again with `tokenize`") from None
