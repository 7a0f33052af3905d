"""A Unigram tokenizer whose pieces are learned from a text.

Ids are the 256 bytes, the pieces from the highest score down, then `<|endoftext|>`. A piece is within a word: letters, digits
or other characters, with a space before them. Rare characters are no pieces and become their bytes.
"""

from collections import Counter
from pathlib import Path
from typing import Iterable, Self

import regex

from lib.errors import MakegptError, UsageError
from lib.tokenizer.base import ENDOFTEXT
from lib.tokenizer.byte_level import cut_into_words
from lib.tokenizer.sentencepiece import BYTE, CONTROL, NORMAL, SPACE, SentencePieceTokenizer
from lib.tokenizer.unigram_learning import learn_pieces

_WORDS = regex.compile(rf"{SPACE}?\p{{L}}+|{SPACE}?\p{{N}}+|{SPACE}?[^\s{SPACE}\p{{L}}\p{{N}}]+|{SPACE}+|\s+")
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_COVERAGE = 0.9995  # of the text's characters by pieces (SentencePiece, trainer_spec.character_coverage)


class UnigramTokenizer(SentencePieceTokenizer):
    kind = "unigram"

    @classmethod
    def train(cls, documents: Iterable[Iterable[str]], data: Path = Path(), vocab_size: int | None = None) -> Self:
        """A vocabulary of `vocab_size` tokens, learned from the words of `documents`.

        UsageError if the size is missing or too small for the characters, MakegptError if the text is too short for it.
        """
        words = covered_words(count_words(documents))
        special = len(_BYTES) + 1
        least = special + max(1, len(set().union(*words)))
        if vocab_size is None or vocab_size < least:
            raise UsageError(
                f"vocab_size={vocab_size} must be at least {least} for unigram on this text: the 256 bytes, {ENDOFTEXT} and "
                f"{least - special} characters; use 1024, for example"
            )
        scores = learn_pieces(words, vocab_size - special) if words else {}
        if len(scores) + special < vocab_size:
            raise MakegptError(
                f"the text is too short for a vocabulary of {vocab_size}: it has {len(scores)} pieces; "
                f"use {len(scores) + special} or fewer, or a longer text"
            )
        return cls(
            "unigram",
            [*_BYTES, *scores, ENDOFTEXT],
            [*[0.0] * len(_BYTES), *scores.values(), 0.0],
            [*[BYTE] * len(_BYTES), *[NORMAL] * len(scores), CONTROL],
            unknown=None,
            endoftext=special + len(scores) - 1,
        )


def count_words(documents: Iterable[Iterable[str]]) -> Counter[str]:
    """How often each word occurs in `documents`, each a text in pieces, with its space written as in `SPACE`."""
    words: Counter[str] = Counter()
    for document in documents:
        before = " "  # as before every text that is encoded
        for text in cut_into_words(document):
            words.update(_WORDS.findall((before + text).replace(" ", SPACE)))
            before = ""
    return words


def covered_words(words: Counter[str]) -> Counter[str]:
    """`words` without their rare characters, which divide a word into several."""
    counts: Counter[str] = Counter()
    for word, times in words.items():
        for character in word:
            counts[character] += times
    covered, enough = 0, _COVERAGE * counts.total()
    rare = set(counts)
    for character, times in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if covered < enough:
            rare.remove(character)
        covered += times
    if not rare:
        return words
    at_rare = regex.compile(f"[{''.join(map(regex.escape, sorted(rare)))}]")
    parts: Counter[str] = Counter()
    for word, times in words.items():
        for part in filter(None, at_rare.split(word)):
            parts[part] += times
    return parts
