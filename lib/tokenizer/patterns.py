"""How texts are cut into words before any merge: patterns by name, each of one step or several.

The first step cuts a text, each next one the words of the step before. What a step matches are words, and so is what it leaves
between two matches. No merge crosses a border of two words.
"""

from functools import cache
from typing import Iterable, Iterator

import regex

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_BLANKS = r"\s+(?!\S)|\s+"  # a run of blanks, without the one that belongs to the next word
_LINES = rf"\s*[\r\n]+|{_BLANKS}"

#: The letters of deepseek-llm: those with two cases in the Unicode of its time. From its tokenizer.json (MIT).
_CASED = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝ"
    "Ὗ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗ"
    "Ａ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)

#: Patterns of one step, each of which matches every character. A vocabulary may be learned with them.
PATTERNS = {
    # Radford et al. 2019, section 2.2: contractions, letters, numbers and marks, each with a space before it, and blanks
    "gpt2": rf"'(?:[sdmt]|ll|ve|re)| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{_BLANKS}",
    # the same, but each digit is a word
    "digits": rf"'(?:[sdmt]|ll|ve|re)| ?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+|{_BLANKS}",
    # SmolLM, StarCoder: digits first, then gpt2 on what is between them, so blanks before a digit stay together
    "smollm": r"\p{N}|'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+",
    # Llama 3: numbers of up to three digits; any mark may begin a word; line breaks stay with the marks before them
    "llama-bpe": rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_LINES}",
    # Qwen 2 and 3: as Llama 3, with single digits
    "qwen2": rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_LINES}",
    # Qwen 3.5: combining marks are letters
    "qwen35": rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_LINES}",
}

#: Patterns of several steps.
SEQUENCES = {
    "deepseek-coder": (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥\u0800-一가-\ud7ff]+", r"\p{N}"),
    "deepseek-llm": (
        r"[\r\n]",
        rf"\s?[{_CASED}]+",
        r"\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
        r"(?<!\s)\s++$",
        "[一-龥\u0800-一가-\ud7ff]+",
        r"\p{N}+",
    ),
    "falcon": (r"[\p{P}$+<=>^~|`]+", PATTERNS["gpt2"], "[0-9]{3}"),
}

#: llama.cpp's names (src/llama-vocab.cpp) -> ours.
LLAMA_CPP_NAMES = {
    "gpt-2": "gpt2",
    "mpt": "gpt2",
    "smollm": "smollm",
    "starcoder": "smollm",
    "refact": "smollm",
    **{name: name for name in ("llama-bpe", "qwen2", "qwen35", "deepseek-coder", "deepseek-llm", "falcon")},
}


def steps_of(name: str) -> tuple[str, ...]:
    """The steps of the pattern `name`, one of PATTERNS or SEQUENCES."""
    return SEQUENCES[name] if name in SEQUENCES else (PATTERNS[name],)


def split(text: str, steps: Iterable[str]) -> list[str]:
    """The words of `text`, in order, together all of it. ValueError if a step is no regular expression."""
    words = [text] if text else []
    for step in steps:
        words = [part for word in words for part in _cut(word, compiled(step))]
    return words


def _cut(text: str, step: "regex.Pattern[str]") -> Iterator[str]:
    end = 0
    for match in step.finditer(text):
        if match.end() > match.start():
            if match.start() > end:
                yield text[end : match.start()]
            yield match.group()
            end = match.end()
    if end < len(text):
        yield text[end:]


@cache
def compiled(step: str) -> "regex.Pattern[str]":
    """ValueError if `step` is no regular expression."""
    try:
        return regex.compile(step)
    except regex.error as error:
        raise ValueError(f"the pattern {step!r} is no regular expression: {error}") from None
