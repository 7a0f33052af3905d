"""Packing: short texts put together into windows, as few as a simple rule finds.

A window holds whole texts only. The longest text comes first, and each goes into the window that it fills best (best-fit
decreasing: at most 11/9 of the fewest windows possible, plus a few; Johnson et al. 1974).
"""

from bisect import bisect_left, insort
from typing import Sequence


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
