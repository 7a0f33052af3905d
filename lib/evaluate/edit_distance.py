"""How many changes lead from one sequence to another: the edit distance (Levenshtein 1966)."""

from typing import Sequence


def naive_edit_distance(a: Sequence[int], b: Sequence[int]) -> int:
    """The fewest insertions, deletions and substitutions that turn `a` into `b`, by its definition; in exponential time."""
    if not a or not b:
        return len(a) + len(b)
    return min(
        naive_edit_distance(a[1:], b[1:]) + (a[0] != b[0]),  # keep or substitute
        naive_edit_distance(a[1:], b) + 1,  # delete
        naive_edit_distance(a, b[1:]) + 1,  # insert
    )


def edit_distance(a: Sequence[int], b: Sequence[int]) -> int:
    """The same by dynamic programming (Wagner and Fischer 1974), in time len(a) · len(b).

    `row[j]` is the distance from the part of `a` that was read to the first j of `b`.
    """
    row = list(range(len(b) + 1))
    for i, item in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            diagonal, row[j] = row[j], min(diagonal + (item != other), row[j] + 1, row[j - 1] + 1)
    return row[-1]
