"""Characters and symbols as tokens: a space with the non-spaces after it is one token, every other character is one too.

So the letters of a word are tokens, and so is each phoneme of its pronunciation: of the line `cat K AE T` of a dictionary,
the word `cat` has three tokens, and its pronunciation ` K AE T` three. As in GPT-2's vocabulary the space belongs to the token
after it, and nothing is lost. The tokens are those of the training text: characters, then symbols, both in code-point order.
"""

import re
from pathlib import Path
from typing import Any, Iterable, Iterator, Self

import numpy as np

from lib.tokenizer.base import Tokenizer, UnknownText
from lib.tokenizer.splitting import cut_at_blanks

_TOKEN = re.compile(r" [^\s]+|.", re.DOTALL)


def split_symbols(text: str) -> list[str]:
    """The tokens of `text`, which together are the text."""
    return _TOKEN.findall(text)


class SymbolsTokenizer(Tokenizer):
    kind = "symbols"

    def __init__(self, symbols: list[str]) -> None:
        """ValueError if there are none, they are not distinct, or one is no token by the rule of `split_symbols`."""
        if not symbols or len(set(symbols)) != len(symbols) or any(split_symbols(symbol) != [symbol] for symbol in symbols):
            raise ValueError("symbols must be distinct, and each a character, or a space and what comes after it")
        "".join(symbols).encode("utf-8")
        self.symbols = symbols
        self._ids = {symbol: id for id, symbol in enumerate(symbols)}

    @property
    def vocab_size(self) -> int:
        return len(self.symbols)

    def encode(self, text: str) -> list[int]:
        symbols = split_symbols(text)
        try:
            return [self._ids[symbol] for symbol in symbols]
        except KeyError:
            unknown = next(symbol for symbol in symbols if symbol not in self._ids)
            raise UnknownText(
                f"{unknown!r} is not among the {self.vocab_size} symbols of this tokenizer, as {self.symbols[0]!r} and "
                f"{self.symbols[-1]!r} are; leave it out, or train with a text that has it"
            ) from None

    def encode_stream(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        for text in cut_at_blanks(pieces):
            yield np.array(self.encode(text), dtype=np.uint32)

    def token_bytes(self, id: int) -> bytes:
        return self.symbols[id].encode("utf-8")

    def to_saved(self) -> dict[str, Any]:
        return {"symbols": self.symbols}

    @classmethod
    def from_saved(cls, saved: dict[str, Any]) -> Self:
        return cls(list(map(str, saved["symbols"])))

    @classmethod
    def train(cls, documents: Iterable[Iterable[str]], data: Path, vocab_size: int | None = None) -> Self:
        symbols: set[str] = set()
        for document in documents:
            for text in cut_at_blanks(document):
                symbols.update(split_symbols(text))
        return cls(sorted(symbols, key=lambda symbol: (len(symbol) > 1, symbol)))
