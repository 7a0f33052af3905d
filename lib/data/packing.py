"""Packing: short texts put together into windows, as few as a simple rule finds.

A window holds whole texts only. The longest text comes first, and each goes into the window that it fills best (best-fit
decreasing: at most 11/9 of the fewest windows possible, plus a few; Johnson et al. 1974).

B windows, T positions in each, N texts
"""

from bisect import bisect_left, insort
from typing import NamedTuple, Sequence

import numpy as np


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """The numbers of the texts in each window: every text in one, at most `capacity` tokens a window.

    Texts of equal length keep their order, and the windows are in the order of their first text. ValueError for a text that
    is longer than a window.
    """
    windows: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (free tokens, window), sorted
    for text in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        length = lengths[text]
        if length > capacity:
            raise ValueError(f"text {text} has {length} tokens, a window {capacity}")
        fit = bisect_left(rooms, (length, -1))
        if fit < len(rooms):
            free, window = rooms.pop(fit)
        else:
            free, window = capacity, len(windows)
            windows.append([])
        windows[window].append(text)
        insort(rooms, (free - length, window))
    return sorted((sorted(window) for window in windows), key=lambda window: window[0])


class TextWindows(NamedTuple):
    """Texts in windows: `ids`, and `texts`, the number of each position's text, -1 where there is none; (B, T) each.

    `last`: (N,) where the last token of each text is in the flattened windows.
    """

    ids: np.ndarray
    texts: np.ndarray
    last: np.ndarray


def text_windows(texts: Sequence[np.ndarray], capacity: int) -> TextWindows:
    """Windows with all `texts`, the ids of each, as few as `pack` needs and as long as the fullest of them."""
    windows = pack([len(ids) for ids in texts], capacity)
    shape = (len(windows), max(sum(len(texts[text]) for text in window) for window in windows))
    ids, numbers, last = np.zeros(shape, np.int64), np.full(shape, -1), np.zeros(len(texts), np.int64)
    for row, window in enumerate(windows):
        at = 0
        for text in window:
            stop = at + len(texts[text])
            ids[row, at:stop], numbers[row, at:stop] = texts[text], text
            last[text] = row * shape[1] + stop - 1
            at = stop
    return TextWindows(ids, numbers, last)
