"""Exercises with one right answer, written by a rule: a model that learns them can be checked, and rewarded, exactly.

    reverse    {"prompt": "abcd=", "completion": "dcba"}    4,000 words of random letters
    sums       {"prompt": "3+4=", "completion": "7"}        each pair of digits

They are the same on every machine: no random generator is used, but the permutation that orders training windows.
"""

import json
from typing import Callable, Iterator

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_LENGTHS = (3, 4, 5, 6)
_WORDS_PER_LENGTH = 1000


def reverse() -> Iterator[tuple[str, str]]:
    """Words to be reversed, of 3 to 6 letters, none twice."""
    from lib.data.shuffle import permute  # and numpy, which `fetch --help` need not load

    for number in range(_WORDS_PER_LENGTH * len(_LENGTHS)):
        index, which = divmod(number, len(_LENGTHS))
        length = _LENGTHS[which]
        rest = permute(index, len(_LETTERS) ** length, key=(0, length))
        word = ""
        for _ in range(length):
            rest, letter = divmod(rest, len(_LETTERS))
            word += _LETTERS[letter]
        yield f"{word}=", word[::-1]


def sums() -> Iterator[tuple[str, str]]:
    """All sums of two digits, in a mixed order."""
    from lib.data.shuffle import permute

    for number in range(100):
        a, b = divmod(permute(number, 100, key=(0, 0)), 10)
        yield f"{a}+{b}=", str(a + b)


RULES: dict[str, Callable[[], Iterator[tuple[str, str]]]] = {rule.__name__: rule for rule in (reverse, sums)}


def exercise_lines(name: str) -> Iterator[bytes]:
    """The exercises called `name` as JSON Lines, one per line."""
    for prompt, completion in RULES[name]():
        yield (json.dumps({"prompt": prompt, "completion": completion}) + "\n").encode()
