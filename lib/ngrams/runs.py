"""Sorted keys with their counts, summed in runs: memory in proportion to the distinct keys, not to the text.

A new run goes on a stack where each is at least twice as long as the one above it, so that n keys take n·log n steps
(the merging of a log-structured merge tree, O'Neil et al. 1996).
"""

import numpy as np

#: Distinct keys, sorted, and how often each was seen.
Run = tuple[np.ndarray, np.ndarray]


def add_run(runs: list[Run], keys: np.ndarray, counted: np.ndarray | None = None) -> None:
    """Count `keys`, in any order, onto the stack; only where `counted` is true, the others with 0."""
    if counted is None:
        distinct, counts = np.unique(keys, return_counts=True)
    else:
        distinct, inverse = np.unique(keys, return_inverse=True)
        counts = np.bincount(inverse, weights=counted, minlength=len(distinct))
    runs.append((distinct, counts.astype(np.uint32)))
    while len(runs) > 1 and len(runs[-2][0]) < 2 * len(runs[-1][0]):
        _merge_last(runs)


def merge_all(runs: list[Run]) -> Run:
    """The sum of all runs of a stack, which is emptied."""
    while len(runs) > 1:
        _merge_last(runs)
    return runs.pop() if runs else (np.empty(0, np.int64), np.empty(0, np.uint32))


def find(sorted_keys: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The index of each key in `sorted_keys`, -1 if it is missing; the shape of `keys`."""
    flat = keys.ravel()
    order = np.argsort(flat)  # a long table is searched several times faster in its own order
    queries = flat[order]
    index = np.searchsorted(sorted_keys, queries)
    present = index < len(sorted_keys)
    present[present] = sorted_keys[index[present]] == queries[present]
    indices = np.empty(len(flat), np.int64)
    indices[order] = np.where(present, index, -1)
    return indices.reshape(keys.shape)


def _merge_last(runs: list[Run]) -> None:
    """Replace the last two runs by their sum."""
    new, new_counts = runs.pop()
    keys, counts = runs.pop()
    index = np.searchsorted(keys, new)
    known = index < len(keys)
    known[known] = keys[index[known]] == new[known]
    counts[index[known]] += new_counts[known]
    new, new_counts, index = new[~known], new_counts[~known], index[~known]
    index += np.arange(len(index))
    old = np.ones(len(keys) + len(new), bool)
    old[index] = False
    runs.append((_interleave(old, keys, index, new), _interleave(old, counts, index, new_counts)))


def _interleave(old: np.ndarray, values: np.ndarray, index: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The `values` where `old` is True, and the `new` ones at `index`."""
    merged = np.empty(len(old), values.dtype)
    merged[old] = values
    merged[index] = new
    return merged
