"""The Unigram model: a text is cut into the pieces whose scores have the highest sum (Kudo 2018, section 3.2).

The score of a piece is its log probability. A character that is no piece is unknown, with a score below all others.
"""

from typing import Mapping

_UNKNOWN_PENALTY = 10.0  # below the lowest score of a piece (SentencePiece, src/unigram_model.cc)


def unknown_score(scores: Mapping[str, float]) -> float:
    """The score of a character that is no piece."""
    return min(scores.values()) - _UNKNOWN_PENALTY


def best_segmentation(text: str, scores: Mapping[str, float], unknown: float, longest: int) -> list[str]:
    """The pieces of `text` with the highest sum of scores, by Viterbi's algorithm; `longest`: characters of the longest piece.

    The best way to write a prefix of the text ends with some piece, before which the best way to write the rest of the prefix
    is best here too. So one number and one start are enough for each prefix: the time is len(text) · longest. Of two ways with
    the same sum, the one whose last piece starts earlier is taken.
    """
    best = [0.0]
    starts = [0]  # of the last piece of the best way to write text[:end]
    for end in range(1, len(text) + 1):
        score, start = float("-inf"), end - 1
        for begin in range(max(0, end - longest), end):
            piece_score = scores.get(text[begin:end], unknown if begin == end - 1 else None)
            if piece_score is not None and best[begin] + piece_score > score:
                score, start = best[begin] + piece_score, begin
        best.append(score)
        starts.append(start)
    pieces, end = [], len(text)
    while end:
        pieces.append(text[starts[end] : end])
        end = starts[end]
    return pieces[::-1]


def best_segmentation_naively(text: str, scores: Mapping[str, float], unknown: float) -> list[str]:
    """As `best_segmentation`, by the sum of each of the 2^(len(text) - 1) ways to cut `text` that has a score."""

    def segmentations(rest: str) -> list[tuple[float, list[str]]]:
        if not rest:
            return [(0.0, [])]
        ways = []
        for end in range(1, len(rest) + 1):
            score = scores.get(rest[:end], unknown if end == 1 else None)
            if score is not None:
                ways += [(score + others, [rest[:end], *pieces]) for others, pieces in segmentations(rest[end:])]
        return ways

    return max(segmentations(text), key=lambda way: way[0])[1]
