"""How Hugging Face's tokenizers cut a text into words: the `pre_tokenizer` of tokenizer.json, and steps of patterns.

Only byte-level encodings are read: steps that cut, and `ByteLevel` at the end, which may cut once more.
"""

from typing import Any, Sequence

import regex

from lib.tokenizer.patterns import PATTERNS

#: Words are written in the characters that stand for bytes; cut by GPT-2's pattern, or not.
BYTES_OF_WORDS = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BYTES = BYTES_OF_WORDS | {"use_regex": False}

_PUNCTUATION = r"[\p{P}$+<=>^`|~]"


def to_pre_tokenizer(steps: Sequence[str]) -> dict[str, Any]:
    """The pre_tokenizer that cuts a text by `steps`."""
    if list(steps) == [PATTERNS["gpt2"]]:
        return BYTES_OF_WORDS
    splits = [{"type": "Split", "pattern": {"Regex": step}, "behavior": "Isolated", "invert": False} for step in steps]
    return {"type": "Sequence", "pretokenizers": [*splits, BYTES]}


def from_pre_tokenizer(pre_tokenizer: dict[str, Any]) -> list[str]:
    """The steps that cut a text as `pre_tokenizer` does; none if it does not cut. ValueError if it is another."""
    *cuts, last = _flat(pre_tokenizer)
    if last["type"] != "ByteLevel" or last.get("add_prefix_space"):
        raise ValueError(f"its pre_tokenizer is {last}")
    return [*map(_step, cuts), *([PATTERNS["gpt2"]] if last.get("use_regex", True) else [])]


def _flat(pre_tokenizer: dict[str, Any]) -> list[dict[str, Any]]:
    if pre_tokenizer["type"] != "Sequence":
        return [pre_tokenizer]
    return [step for inner in pre_tokenizer["pretokenizers"] for step in _flat(inner)]


def _step(cut: dict[str, Any]) -> str:
    """The pattern of one of their steps; ValueError if it is not supported."""
    match cut:
        case {"type": "Split", "pattern": pattern, "behavior": behavior}:
            step = str(pattern["Regex"]) if "Regex" in pattern else regex.escape(pattern["String"])
            # What is removed is what the pattern does not match: nothing.
            matches_everything = behavior == "Removed" and cut.get("invert") and step in PATTERNS.values()
            if behavior == "Isolated" or matches_everything:
                return step
        case {"type": "Digits"}:
            return r"\p{N}" if cut.get("individual_digits") else r"\p{N}+"
        case {"type": "Punctuation"} if cut.get("behavior", "Isolated") in ("Isolated", "Contiguous"):
            return _PUNCTUATION if cut.get("behavior", "Isolated") == "Isolated" else f"{_PUNCTUATION}+"
    raise ValueError(f"its pre_tokenizer is {cut}")
