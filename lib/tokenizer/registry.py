"""The tokenizers by name: trained on texts, saved as a self-contained tokenizer.json, loaded from it."""

from pathlib import Path
from typing import Any, Iterable

from lib.artifact.io import read_json
from lib.errors import MakegptError
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.bpe import BPETokenizer
from lib.tokenizer.bytes_ import BytesTokenizer
from lib.tokenizer.char import CharTokenizer
from lib.tokenizer.extended import ExtendedTokenizer
from lib.tokenizer.gpt2 import GPT2Tokenizer
from lib.tokenizer.pretrained import PretrainedTokenizer
from lib.tokenizer.sentencepiece import SentencePieceTokenizer
from lib.tokenizer.sentencepiece_model import SUFFIX, read_sentencepiece
from lib.tokenizer.symbols import SymbolsTokenizer
from lib.tokenizer.unigram_tokenizer import UnigramTokenizer
from lib.tokenizer.word import WordTokenizer

TOKENIZER_FILE = "tokenizer.json"

TOKENIZERS: dict[str, type[Tokenizer]] = {
    cls.kind: cls
    for cls in (
        GPT2Tokenizer,
        BPETokenizer,
        UnigramTokenizer,
        CharTokenizer,
        BytesTokenizer,
        WordTokenizer,
        SymbolsTokenizer,
        PretrainedTokenizer,
        SentencePieceTokenizer,
        ExtendedTokenizer,
    )
}


def make_tokenizer(kind: str, documents: Iterable[Iterable[str]], data: Path, vocab_size: int | None = None) -> Tokenizer:
    """A tokenizer of `kind`: trained on the documents, each a text in pieces; `gpt2` reads its files in `data`.

    `vocab_size`: of `bpe` and `unigram`.
    """
    return TOKENIZERS[kind].train(documents, data, vocab_size)


def load_tokenizer(path: Path) -> Tokenizer:
    """Load the tokenizer saved at `path`: a tokenizer.json, a folder that holds one, or a SentencePiece model."""
    if path.is_dir():
        path = path / TOKENIZER_FILE
    if path.suffix == SUFFIX:
        return read_sentencepiece(path)
    saved = read_json(path)
    if not isinstance(saved, dict) or saved.get("kind") not in list(TOKENIZERS):
        raise MakegptError(f"{path} is not a makegpt tokenizer; make one with `tokenize FILE -o DIR`")
    try:
        return tokenizer_from_saved(saved)
    except (KeyError, TypeError, ValueError):
        raise MakegptError(f"{path} is damaged: its vocabulary cannot be read; make it again with `tokenize`") from None


def tokenizer_from_saved(saved: dict[str, Any]) -> Tokenizer:
    """The tokenizer of the content of a tokenizer.json; KeyError, TypeError or ValueError if that is damaged."""
    kind = TOKENIZERS[saved["kind"]]
    if kind is ExtendedTokenizer:
        if saved["base"]["kind"] == ExtendedTokenizer.kind:
            raise ValueError("the base of an extended tokenizer is extended")
        saved = saved | {"base": tokenizer_from_saved(saved["base"])}
    return kind.from_saved(saved)
