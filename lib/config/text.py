"""The parameters of `tokenize` and `build-dataset`: from text to windows of tokens."""

from dataclasses import dataclass
from decimal import Decimal

from lib.config.parameter import parameter
from lib.errors import UsageError

#: The kinds of tokenizers; `lib.tokenizer.registry` has their classes.
TOKENIZER_KINDS = ("gpt2", "bpe", "unigram", "char", "bytes", "word", "symbols")

#: Those that learn a vocabulary of a chosen size.
SIZED_KINDS = ("bpe", "unigram")


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    tokenizer: str = parameter("type of tokenizer", one_of=TOKENIZER_KINDS)
    vocab_size: int | None = parameter(
        "vocabulary size of bpe and unigram, with their 256 bytes and <|endoftext|> (null: for other tokenizers)",
        at_least=257,
        at_most=2**20,
    )
    errors: str = parameter("how to handle invalid UTF-8", one_of=("strict", "replace"))
    shard_tokens: int = parameter("maximum number of tokens per shard file", at_least=1, at_most=2**31)

    def __post_init__(self) -> None:
        if self.tokenizer in SIZED_KINDS and self.vocab_size is None:
            raise UsageError(
                f"tokenize.tokenizer={self.tokenizer} needs tokenize.vocab_size, for example 1024; "
                "--tokenizer DIR takes a saved vocabulary"
            )
        if self.tokenizer not in SIZED_KINDS and self.vocab_size is not None:
            raise UsageError(
                f"tokenize.vocab_size={self.vocab_size} is not supported by tokenize.tokenizer={self.tokenizer}, "
                "where it must be null; use tokenize.tokenizer=bpe"
            )

    @property
    def label(self) -> str:
        """The name of the tokenizer in the names of artifacts: bpe1024 for a vocabulary of 1024."""
        return self.tokenizer if self.vocab_size is None else f"{self.tokenizer}{self.vocab_size}"


@dataclass(frozen=True, kw_only=True)
class BuildDatasetConfig:
    stride: int | None = parameter("tokens between the starts of two windows (null: the context length)", at_least=1)
    val_fraction: float = parameter(
        "fraction of the tokens, after the training split, held out for validation", at_least=1e-9, at_most=0.999
    )
    test_fraction: float = parameter(
        "fraction of the tokens, at the end, held out for test (0: no test split)", at_least=0.0, at_most=0.999
    )
    balance: bool = parameter("of labeled texts: keep as many of each class as the smallest has")
    seed: int = parameter("random seed of the order in which labeled texts are split", at_least=0, at_most=2**32 - 1)

    def __post_init__(self) -> None:
        held_out = Decimal(str(self.val_fraction)) + Decimal(str(self.test_fraction))
        if held_out >= 1:
            raise UsageError(
                f"build-dataset.val_fraction={self.val_fraction} and build-dataset.test_fraction={self.test_fraction} "
                f"add up to {held_out}, which leaves nothing for training; their sum must be less than 1"
            )
