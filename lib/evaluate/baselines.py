"""What a model is compared with: uniform guessing, n-gram counts and compressors, on the same tokens.

A new baseline is a class with the method `nats`, and a line in `default_baselines`.
"""

from typing import Mapping, Protocol

import numpy as np

from lib.data.dataset import Dataset
from lib.evaluate.compressors import COMPRESSORS, LOOK_BACK, added_bytes
from lib.evaluate.metrics import BlockSums
from lib.evaluate.span import AnswerSpan, TokenSpan, decoded_pieces
from lib.ngrams.add_one import AddOneBigram
from lib.ngrams.counts import MAX_COUNTED_TOKENS, NGrams
from lib.ngrams.kneser_ney import KneserNey
from lib.ngrams.smoothing import Smoothing
from lib.tokenizer.base import Tokenizer


class Baseline(Protocol):
    """A predictor of tokens that is not a trained model, or a family of them."""

    def nats(self, span: TokenSpan) -> Mapping[str, BlockSums | float]:
        """The nats that a span costs, by name: summed by blocks, or only in total."""


class Uniform:
    """Every token of the vocabulary is equally likely."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def nats(self, span: TokenSpan) -> Mapping[str, BlockSums]:
        sums = BlockSums(span.predicted)
        for block in span.ids():
            sums.add(np.full(len(block), np.log(self.vocab_size)))
        return {"uniform": sums}


class NGramCounts:
    """N-grams of the orders 1 to `order` with Kneser-Ney smoothing, and the add-one bigram.

    Counted once, on the end of the training split.
    """

    def __init__(self, training: Dataset, order: int, vocab_size: int) -> None:
        self.training, self.order, self.vocab_size = training, order, vocab_size

    def nats(self, span: TokenSpan) -> Mapping[str, BlockSums]:
        ngrams = count_training(self.training, self.order, self.vocab_size)
        smoothed: list[Smoothing] = [KneserNey(ngrams), *([AddOneBigram(ngrams)] if self.order > 1 else [])]
        sums: dict[str, BlockSums] = {}
        for smoothing in smoothed:
            for block in span.counted(smoothing):
                for name, nats in block.items():
                    sums.setdefault(name, BlockSums(span.predicted)).add(nats)
        return sums


class Compressor:
    """The bits that a span adds to the compressed training text."""

    def __init__(self, name: str, training: Dataset | None, tokenizer: Tokenizer) -> None:
        self.name, self.training, self.tokenizer = name, training, tokenizer

    def nats(self, span: TokenSpan) -> Mapping[str, float]:
        text = b""
        if self.training:  # as much as a compressor can look back on: a token is a byte at least
            start, stop = end_of_training(self.training, LOOK_BACK)
            text = b"".join(decoded_pieces(self.training.tokens, start, stop, self.tokenizer))[-LOOK_BACK:]
        bits = 8 * added_bytes(self.name, text, lambda: span.text(self.tokenizer))
        return {self.name: bits * float(np.log(2))}


def default_baselines(span: TokenSpan, tokenizer: Tokenizer, ngram_order: int) -> list[Baseline]:
    """All baselines; n-grams only if there is a training text to count, compressors only for running text.

    A compressor cannot be charged for the answers alone.
    """
    counts = [NGramCounts(span.training, ngram_order, tokenizer.vocab_size)] if span.training else []
    compressors = [] if isinstance(span, AnswerSpan) else [Compressor(name, span.training, tokenizer) for name in COMPRESSORS]
    return [Uniform(tokenizer.vocab_size), *counts, *compressors]


def count_training(training: Dataset, order: int, vocab_size: int, most: int | None = None) -> NGrams:
    """The n-grams of the last `most` tokens of the training split, by default `MAX_COUNTED_TOKENS`; of conversations, those
    that end in an answer.
    """
    start, stop = end_of_training(training, MAX_COUNTED_TOKENS if most is None else most)
    if not training.packed:
        return NGrams(training.tokens, [(start, stop)], order, vocab_size)
    ranges = [(max(start, begin), end) for begin, end in training.text_ranges("train") if end > start]
    return NGrams(training.tokens, ranges, order, vocab_size, training.tokens.trained)


def end_of_training(training: Dataset, tokens: int) -> tuple[int, int]:
    """Where the last `tokens` of the training split are; all of it if it has no more."""
    start, stop = training.split("train")
    return max(start, stop - tokens), stop
