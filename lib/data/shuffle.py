"""The order of training windows: a permutation that is computed one index at a time and stored nowhere."""


def permute(place: int, count: int, key: tuple[int, int]) -> int:
    """Which of `count` things stands at `place` in the order that `key` gives: a permutation, one item at a time.

    A Feistel network over the next power of four (Luby and Rackoff 1988), walked on while it points
    outside of `count` (Black and Rogaway 2002): no table, whatever `count` is.
    """
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = place >> half, place & mask
        for round in range(_ROUNDS):
            left, right = right, left ^ (_mix(right, round, *key) & mask)
        place = left << half | right
        if place < count:
            return place


_ROUNDS = 6


_WORD = (1 << 64) - 1


def _mix(*values: int) -> int:
    """64 well-mixed bits of some whole numbers: splitmix64's finalizer (Steele et al. 2014), folded over them."""
    state = 0
    for value in values:
        state = (state ^ value) + 0x9E3779B97F4A7C15 & _WORD
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _WORD
        state = (state ^ state >> 27) * 0x94D049BB133111EB & _WORD
        state ^= state >> 31
    return state
