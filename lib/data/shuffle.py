"""The order of the training windows in an epoch: a pseudorandom permutation of range(n) that follows from (seed, epoch).

`naive_permutation` is what everybody writes; `permute` computes one element of such a permutation without making the rest.
The first needs a table of 8 bytes per window in each epoch and at each resume: nothing for Hamlet's 188 windows, but 40 GB
for 5 billion tokens at stride 1. The second needs no memory, and 0.1 to 0.2 ms per element at either size. It is a Feistel
network (Luby and Rackoff 1988) with cycle-walking (Black and Rogaway 2002); the round function is the finalizer of splitmix64
(Steele, Lea and Flood 2014).
"""

import numpy as np


def naive_permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """A permutation of range(n) as a table, (n,) int64. The plain form of `permute`, in another order than that one."""
    return np.random.default_rng((seed, epoch)).permutation(n)


def permute(index: int, n: int, key: tuple[int, int]) -> int:
    """Element `index` of a permutation of range(n) that follows from `key`, (seed, epoch).

    A Feistel network permutes range(4^k), the next such power at or above n: whatever the round function is, each round can
    be undone. Cycle-walking applies it again until the result is below n, at most 4 times on average.
    """
    half = max(1, ((n - 1).bit_length() + 1) // 2)  # bits of the left and of the right half
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for round in range(_ROUNDS):
            left, right = right, left ^ (_mix(right, round, *key) & mask)
        index = left << half | right
        if index < n:
            return index


def batch_numbers(n: int, seed: int, step: int, size: int, rows: range | None = None) -> list[int]:
    """Which of `n` examples batch `step` (from 0) of `size` has, or only these `rows` of it; an epoch has each of them once."""
    epochs, indices = np.divmod(step * size + np.array(range(size) if rows is None else rows), n)
    return [permute(int(index), n, key=(seed, int(epoch))) for epoch, index in zip(epochs, indices, strict=True)]


_ROUNDS = 6

_WORD = (1 << 64) - 1


def _mix(*values: int) -> int:
    """64 well-mixed bits of some integers: splitmix64's increment and finalizer, folded over them."""
    state = 0
    for value in values:
        state = (state ^ value) + 0x9E3779B97F4A7C15 & _WORD
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _WORD
        state = (state ^ state >> 27) * 0x94D049BB133111EB & _WORD
        state ^= state >> 31
    return state
