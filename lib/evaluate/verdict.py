"""An evaluation in words: what predicts better than the model, as far as the text can tell."""

import math
from typing import Any, Sequence

from lib.evaluate.compressors import COMPRESSORS
from lib.evaluate.metrics import MIN_BLOCK, MIN_BLOCKS, significant
from lib.evaluate.ngrams import NGRAM_NAMES

#: Of a comparison without an error: how many tokens it would take.
TOO_SHORT = f"too short to tell: it takes {MIN_BLOCKS * MIN_BLOCK} tokens at least"


def verdict_sentences(evaluation: dict[str, Any]) -> str:
    """Which baselines are better than the model, and between which and the model there is no significant difference.

    Then what was counted, where that was not the whole training text, and why there are no bits/byte, where there are none.
    """
    counted = evaluation.get("counted")
    note = ""
    if counted and counted["tokens"] < counted["of"]:
        note = f" Counted were the last {counted['tokens']:,} of the {counted['of']:,} training tokens."
    if unknown := evaluation.get("unknown_tokens"):
        note += f" {unknown:,} of the tokens are unknown words, whose bytes are not known: so there are no bits/byte."
    return _who_is_better(evaluation) + note


def verdict_of_two(difference: dict[str, Any]) -> str:
    """The paired `difference` of two models' losses in words."""
    if difference["significant"] is None:
        return TOO_SHORT
    if not difference["significant"]:
        return "no significant difference"
    return f"the {'second' if difference['loss'] > 0 else 'first'} is better"


def _who_is_better(evaluation: dict[str, Any]) -> str:
    leads = {name: _lead(evaluation, scores) for name, scores in evaluation["baselines"].items()}
    if any(sure is None for _, sure in leads.values()):
        return f"Whether the model or counting predicts this text better: {TOO_SHORT}."
    ahead = [name for name, (lead, sure) in leads.items() if sure and lead > 0]
    level = [name for name, (_, sure) in leads.items() if not sure]
    if "uniform" in ahead:
        return "Even guessing is better than this model: it has not learned anything yet that holds for other text."
    if "uniform" in level:
        return "There is no significant difference between this model and guessing."
    same = f"There is no significant difference between it and {join_names(_named(level))}." if level else ""
    if not ahead:
        return f"The model is ahead of every {'other ' if level else ''}baseline. {same}".rstrip()
    counts = [name for name in ahead if name not in COMPRESSORS]
    others = [name for name in ahead if name in COMPRESSORS]
    who = [f"the {join_names(counts)} of the training text"] if counts else []
    if others:
        given = " given the training text" if set(NGRAM_NAMES.values()) & leads.keys() else ""
        who.append(f"{join_names(others)}{given}")
    how = {(True, False): "Counting still wins", (False, True): "Compressing still wins"}.get(
        (bool(counts), bool(others)), "Counting and compressing still win"
    )
    return f"{how} here: {join_names(who)} predict{'s' if len(ahead) == 1 else ''} better than this model. {same}".rstrip()


def _lead(evaluation: dict[str, Any], scores: dict[str, Any]) -> tuple[float, bool | None]:
    """By how many nats/token a baseline is ahead of the model, and whether that is significant.

    What a compressor takes is known for the whole text alone. The error of its lead is then taken to be what two independent
    scores of the model's own error would have; paired it is smaller.
    """
    if paired := scores.get("lead"):
        return paired["loss"], paired["significant"]
    lead, error = evaluation["loss"] - scores["loss"], evaluation["standard_error"]["loss"]
    return lead, significant(lead, None if error is None else math.sqrt(2) * error, evaluation["blocks"] - 1)


def _named(names: Sequence[str]) -> list[str]:
    return [name if name in COMPRESSORS else f"the {name}" for name in names]


def join_names(names: Sequence[str]) -> str:
    """Names in a sentence: "a", "a and b", "a, b and c"."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
