"""The edit distance, against its definition."""

from itertools import product

import pytest

from lib.evaluate.edit_distance import edit_distance, naive_edit_distance


def test_it_is_what_the_recursion_says() -> None:
    short = [word for length in range(4) for word in product((1, 2), repeat=length)]
    for a, b in product(short, repeat=2):
        assert edit_distance(a, b) == naive_edit_distance(a, b)


@pytest.mark.parametrize(
    ("a", "b", "changes"),
    [
        ("kitten", "sitting", 3),
        ("", "abc", 3),
        ("abc", "", 3),
        ("", "", 0),
        ("flaw", "lawn", 2),
        ("a" * 300, "a" * 299 + "b", 1),
    ],
)
def test_known_distances(a: str, b: str, changes: int) -> None:
    assert edit_distance([*map(ord, a)], [*map(ord, b)]) == changes
