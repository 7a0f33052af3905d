"""A byte-level byte-pair encoding that is trained on a text (Sennrich et al. 2016; on bytes as in Radford et al. 2019).

Ids are the 256 bytes, then the merges in the order in which they were learned, then `<|endoftext|>`.
"""

from pathlib import Path
from typing import Any, Iterable, Self

from lib.errors import MakegptError, UsageError
from lib.tokenizer.base import ENDOFTEXT
from lib.tokenizer.byte_alphabet import BYTE_OF
from lib.tokenizer.byte_level import ByteLevelBPE, saved_tokens
from lib.tokenizer.merges import BYTES, count_words, learn_merges
from lib.tokenizer.patterns import PATTERNS

#: How the bytes are numbered. Of pairs that are equally frequent, the one of the lowest ids is merged first.
TIES = {
    "bytes": bytes(range(256)),  # by value, as in rustbpe
    "hf": bytes(BYTE_OF.values()),  # as in GPT-2 and Hugging Face's tokenizers: by the characters that they write for bytes
}

#: The smallest vocabulary: the bytes and `<|endoftext|>`.
LEAST_VOCAB_SIZE = BYTES + 1


class BPETokenizer(ByteLevelBPE):
    kind = "bpe"

    @classmethod
    def from_saved(cls, saved: dict[str, Any]) -> Self:
        names = {pattern: name for name, pattern in PATTERNS.items()}
        return cls(saved_tokens(saved), names[saved["pattern"]])

    @classmethod
    def train(
        cls,
        documents: Iterable[Iterable[str]],
        data: Path = Path(),
        vocab_size: int | None = None,
        *,
        pattern: str = "gpt2",
        ties: str = "bytes",
    ) -> Self:
        """A vocabulary of `vocab_size` tokens, learned from the words of `documents`.

        `pattern` is a name of `PATTERNS`, `ties` one of `TIES`. UsageError if the size is missing or too small, MakegptError if
        the text is too short for it.
        """
        if vocab_size is None or vocab_size < LEAST_VOCAB_SIZE:
            raise UsageError(
                f"vocab_size={vocab_size} must be at least {LEAST_VOCAB_SIZE} for bpe: the 256 bytes and {ENDOFTEXT}; "
                "use 1024, for example"
            )
        order = TIES[ties]
        symbol_of = {byte: id for id, byte in enumerate(order)}
        words = {
            word.encode("utf-8").decode("latin-1").translate(symbol_of): times
            for word, times in count_words(documents, pattern).items()
        }
        tokens = [bytes([byte]) for byte in order]
        for pair in learn_merges(words, vocab_size - LEAST_VOCAB_SIZE):
            tokens.append(tokens[ord(pair[0])] + tokens[ord(pair[1])])
        if len(tokens) + 1 < vocab_size:
            raise MakegptError(
                f"the text is too short for a vocabulary of {vocab_size}: with {len(tokens) + 1} tokens each of its words is "
                f"one; use {len(tokens) + 1} or fewer, or a longer text"
            )
        return cls(tokens, pattern)
