"""Scores of a span of tokens, each with its standard error, and whether a difference between two models is more than chance.

Whatever is known of the tokens, one after the other (nats, bytes, whether the top-ranked token was right), is summed in blocks
of equal size. A score is a ratio r of two sums, Σx/Σn; tokens that stand together are alike, so its error is estimated
from how the blocks differ, not the tokens: √(k/(k-1) · Σ(x_b - r·n_b)²)/Σn over k blocks (Cochran 1977, chapter 6).

A difference is significant where it exceeds Student's t of k-1 degrees of freedom times its error. Of a text too short for
`MIN_BLOCKS` blocks nothing is said: with few blocks the error itself is hardly known.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist

import numpy as np

#: Tokens a block, at least, where the text is long enough: the same for every model, whatever its context.
BLOCK = 128

#: Fewest blocks that an error is estimated from, and fewest tokens in one of them. Neighbouring tokens are alike: the mean of a
#: block of 64 varies 1.7 times as much as if they were not, of 128 1.8 times, of 32 1.4 (bigram against trigram, *Hamlet*).
MIN_BLOCKS, MIN_BLOCK = 8, 64

#: Most blocks: those of a longer text are larger, so that its sums take the same memory whatever its length.
MOST_BLOCKS = 1024

#: Share of differences that are called significant although there is none.
SIGNIFICANCE_LEVEL = 0.05


def block_count(tokens: int) -> int:
    """How many blocks `tokens` are cut into; 1 where they are too few for an error."""
    if tokens >= MIN_BLOCKS * BLOCK:
        return min(tokens // BLOCK, MOST_BLOCKS)
    return MIN_BLOCKS if tokens >= MIN_BLOCKS * MIN_BLOCK else 1


class BlockSums:
    """What is known of `tokens` tokens, one number each, summed in blocks whose sizes differ by one token at most."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.count = 0
        self._ends = np.arange(1, block_count(tokens) + 1) * tokens // block_count(tokens)
        self.blocks = np.zeros(len(self._ends))

    def add(self, values: np.ndarray) -> None:
        """A number for each of the tokens that come next, (n,)."""
        places = np.searchsorted(self._ends, self.count + np.arange(len(values)), side="right")
        self.blocks += np.bincount(places, weights=values, minlength=len(self.blocks))
        self.count += len(values)

    @property
    def total(self) -> float:
        return math.fsum(self.blocks)

    @property
    def sizes(self) -> np.ndarray:
        """Tokens a block."""
        return np.diff(self._ends, prepend=0).astype(float)


def ratio_with_se(x: np.ndarray, n: np.ndarray) -> tuple[float, float | None]:
    """Σx/Σn of the blocks' sums, and its standard error; None if there are fewer than `MIN_BLOCKS` blocks."""
    value = math.fsum(x) / math.fsum(n)
    blocks = len(x)
    if blocks < MIN_BLOCKS:
        return value, None
    return value, math.sqrt(blocks / (blocks - 1) * math.fsum((x - value * n) ** 2)) / math.fsum(n)


def fraction_with_se(right: BlockSums) -> tuple[float, float | None]:
    """The share of tokens that are right, from ones and zeros, and its standard error.

    The error is None also where all or none are right: blocks that do not differ tell no error, and it is not 0.
    """
    value, error = ratio_with_se(right.blocks, right.sizes)
    return value, error if 0 < right.total < right.count else None


@dataclass(frozen=True)
class Mean:
    """A mean over independent values, and its standard error; None where all are alike."""

    value: float
    standard_error: float | None

    @classmethod
    def of(cls, values: np.ndarray) -> "Mean":
        """The mean of `values`, (n,)."""
        error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0
        return cls(float(values.mean()), error or None)


@dataclass(frozen=True, kw_only=True)
class StandardErrors:
    """Standard errors of scores; None if they cannot be estimated."""

    loss: float | None
    perplexity: float | None
    bits_per_byte: float | None


@dataclass(frozen=True, kw_only=True)
class Score:
    """How well something predicts a text: loss in nats/token, perplexity, and bits/byte (None if the bytes are not known)."""

    loss: float
    perplexity: float | None
    bits_per_byte: float | None
    standard_error: StandardErrors | None = None  # None if only the total is known


@dataclass(frozen=True)
class Lead:
    """By how many nats/token one predictor is ahead of another on the same tokens, and its standard error.

    `significant`: whether that is more than chance; None if the text is too short to tell.
    """

    loss: float
    standard_error: float | None
    blocks: int
    significant: bool | None

    def __neg__(self) -> "Lead":
        return replace(self, loss=0.0 - self.loss)

    def __str__(self) -> str:
        """The lead ± its standard error, and a remark if it is not significant."""
        remark = {None: " (too short to tell)", False: " (n.s.)", True: ""}[self.significant]
        return f"{self.loss:+.3f}" + ("" if self.standard_error is None else f" ± {self.standard_error:.3f}") + remark


def loss_scores(nats: float, tokens: int, n_bytes: int) -> Score:
    """The scores of `nats`, summed over `tokens` tokens that stand for `n_bytes` bytes of text; without errors."""
    loss = nats / tokens
    return Score(
        loss=loss,
        perplexity=math.exp(loss) if loss < 700 else None,
        bits_per_byte=nats / math.log(2) / n_bytes if n_bytes else None,
    )


def scores_with_errors(nats: BlockSums, n_bytes: BlockSums | None) -> Score:
    """The scores of `nats` over tokens of `n_bytes` bytes (None: not known), with their standard errors."""
    total = round(n_bytes.total) if n_bytes else 0
    score = loss_scores(nats.total, nats.count, total)
    _, loss_error = ratio_with_se(nats.blocks, nats.sizes)
    bits_error = None
    if n_bytes and total and loss_error is not None:
        bits_error = ratio_with_se(nats.blocks / math.log(2), n_bytes.blocks)[1]
    perplexity_error = None if loss_error is None or score.perplexity is None else score.perplexity * loss_error
    errors = StandardErrors(loss=loss_error, perplexity=perplexity_error, bits_per_byte=bits_error)
    return replace(score, standard_error=errors)


def paired_lead(nats: BlockSums, others: BlockSums) -> Lead:
    """By how many nats/token `others` are ahead of (below) `nats`, of the same tokens: paired, with its standard error."""
    loss, error = ratio_with_se(nats.blocks - others.blocks, nats.sizes)
    blocks = len(nats.blocks)
    return Lead(loss, error, blocks, significant(loss, error, blocks - 1))


def unpaired_lead(score: Score, other: Score, blocks: int) -> Lead:
    """By how many nats/token `other` is ahead of `score`, with the standard error of two independent scores.

    Paired it is smaller. If `other` has no error (a compressor: only its total is known), that of `score` is taken.
    """
    error = score.standard_error.loss if score.standard_error else None
    other_error = other.standard_error.loss if other.standard_error else error
    both = None if error is None or other_error is None else math.hypot(error, other_error)
    loss = score.loss - other.loss
    return Lead(loss, both, blocks, significant(loss, both, blocks - 1))


def significant(difference: float, error: float | None, freedom: int) -> bool | None:
    """Whether a difference is more than chance would give 95 times in 100, next to its standard error; None if not known."""
    return None if error is None or freedom < 1 else abs(difference) > student_t(freedom) * error


@lru_cache
def student_t(freedom: int) -> float:
    """How many standard errors a difference of nothing stays within 95 times in 100: Student's t, both sides.

    The distribution for whole degrees of freedom is a finite sum (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4), solved by
    halving; beyond 200 its expansion (26.7.5) is right to four digits.
    """
    if freedom > 200:
        z = NormalDist().inv_cdf(1 - SIGNIFICANCE_LEVEL / 2)
        return z + (z**3 + z) / (4 * freedom)
    low, high = 1.0, 64.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if _within(middle, freedom) > 1 - SIGNIFICANCE_LEVEL else (middle, high)
    return high


def _within(t: float, freedom: int) -> float:
    """The probability that Student's t lies between -t and t."""
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for n in range(1 + odd, freedom, 2):  # cosⁿ⁻¹ with the ratio of the odd numbers to the even ones, or the other way round
        total += term
        term *= math.cos(angle) ** 2 * n / (n + 1)
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
