"""Exercises from the part about one text and another."""

from lib.exercises.exercise import Check, Exercise

EXERCISES = {
    "g2p": Exercise(
        "g2p",
        "Count the changes between two sequences.",
        ("lib/evaluate/edit_distance.py:edit_distance",),
        (
            Check("kitten and sitting", "edit_distance", ([*b"kitten"], [*b"sitting"])),
            Check("nothing and something", "edit_distance", ([], [7, 7, 7])),
            Check("two lists of two hundred", "edit_distance", ([0, 1] * 100, [1, 0] * 100)),
        ),
    ),
}
