"""Small texts to count."""

from pathlib import Path

import numpy as np

from lib.config.text import TokenizeConfig
from lib.data.corpus import write_corpus
from lib.data.shards import InMemoryTokens, Tokens, TokenSource
from lib.data.text import open_document
from lib.ngrams.smoothing import Smoothing

ROSE = "a rose is a rose is a rose, and is as is a nose; so is x"


def letters(folder: Path, text: str) -> Tokens:
    """The tokens of `text`, a character each, in shards of seven."""
    (folder / "text.txt").write_text(text, encoding="utf-8")
    settings = TokenizeConfig(tokenizer="char", vocab_size=None, errors="strict", shard_tokens=7)
    write_corpus(folder / "tokens", [open_document(folder / "text.txt")], "char", settings, started="", on_bytes=lambda _: None)
    return Tokens(folder / "tokens")


def zipf(length: int, vocab_size: int, seed: int = 1) -> InMemoryTokens:
    """Ids by Zipf's law, with runs that repeat, so that n-grams of every order occur several times."""
    generator = np.random.default_rng(seed)
    pieces = [generator.zipf(1.4, size).clip(1, vocab_size) - 1 for size in generator.integers(2, 9, 20)]
    ids = np.concatenate([pieces[place] for place in generator.zipf(1.5, length).clip(1, 20) - 1])
    return InMemoryTokens(ids[:length].astype(np.uint16))


def nats(smoothing: Smoothing, tokens: TokenSource, start: int, stop: int) -> list[float]:
    """The summed loss of the ids `start` to `stop`, one sum for each name."""
    blocks = list(smoothing.nats(tokens, start, stop))
    return [float(sum(block[name].sum() for block in blocks)) for name in blocks[0]]
