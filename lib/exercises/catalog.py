"""The exercises by name, in the order of the book."""

from lib.errors import UsageError, nearest
from lib.exercises import attention, block, conversations, little_text, model, modern, published, text, translation
from lib.exercises.exercise import Exercise

EXERCISES: dict[str, Exercise] = {
    name: exercise
    for part in (text, attention, block, model, modern, translation, little_text, published, conversations)
    for name, exercise in part.EXERCISES.items()
}


def find_exercise(name: str) -> Exercise:
    """The exercise called `name`, with - or _; UsageError if there is none."""
    key = name.replace("-", "_")
    if key not in EXERCISES:
        raise UsageError(f"there is no exercise {name!r}; {nearest(key, EXERCISES)}")
    return EXERCISES[key]
