"""An evaluation in words: what is ahead of the model."""

from typing import Any, Sequence

from lib import baselines, compressors
from lib.scores import is_tie


def sentences(evaluation: dict[str, Any]) -> str:
    """Which baselines are ahead of the model; a difference within its error is a tie.

    Then what was counted, where that was not the whole training text, and why there are no bits a byte, where there are none.
    """
    counted = evaluation.get("counted")
    note = ""
    if counted and counted["tokens"] < counted["of"]:
        note = f" Counted were the last {counted['tokens']:,} of the {counted['of']:,} training tokens."
    if unknown := evaluation.get("unknown_tokens"):
        note += f" {unknown:,} of the tokens are unknown words, whose bytes are not known: so there are no bits a byte."
    return _who_is_ahead(evaluation) + note


def _who_is_ahead(evaluation: dict[str, Any]) -> str:
    ahead, tied = [], []
    for name, found in evaluation["baselines"].items():
        lead = found.get("ahead_of_model")
        if lead and is_tie(lead):
            tied.append(name)
        elif found["loss"] < evaluation["loss"]:
            ahead.append(name)
    if "uniform" in ahead:
        return "Even guessing is better than this model: it has learnt nothing yet that holds for other text."
    ties = f" It ties with the {listed(tied)}." if tied else ""
    if not ahead:
        return f"The model is ahead of {'all else' if tied else 'all'} it was measured against.{ties}"
    counts = [name for name in ahead if name not in compressors.COMPRESSORS]
    others = [name for name in ahead if name in compressors.COMPRESSORS]
    who = [f"the {listed(counts)} of the training text"] if counts else []
    if others:  # where there is a training text something was counted
        behind = " behind the training text" if set(baselines.NAMES.values()) & evaluation["baselines"].keys() else ""
        who.append(f"{listed(others)}{behind}")
    how = {(True, False): "Counting still wins", (False, True): "Compressing still wins"}.get(
        (bool(counts), bool(others)), "Counting and compressing still win"
    )
    return f"{how} here: {listed(who)} predict{'s' if len(ahead) == 1 else ''} better than this model.{ties}"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: "a", "a and b", "a, b and c"."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
