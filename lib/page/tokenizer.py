r"""Tokenizers in an exported page: the ones that `tokenizer.js` follows, as plain data for it.

A byte-pair vocabulary comes with its pattern in JavaScript's syntax, which knows Unicode's letters and digits, but its \s are
other characters, and it has no part that ignores case.
"""

import re
from typing import Any

from lib.errors import UsageError
from lib.tokenizer.base import ENDOFTEXT, Tokenizer
from lib.tokenizer.byte_level import ByteLevelBPE, tokens_to_saved
from lib.tokenizer.bytes_ import BytesTokenizer
from lib.tokenizer.char import CharTokenizer
from lib.tokenizer.extended import ExtendedTokenizer
from lib.tokenizer.patterns import LLAMA_CPP_NAMES, PATTERNS
from lib.tokenizer.pretrained import PretrainedTokenizer
from lib.tokenizer.symbols import SymbolsTokenizer
from lib.tokenizer.word import WordTokenizer

_BLANKS = r"\t-\r\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # Unicode's White_Space

_CLASS_OR_BLANK = re.compile(r"\[\^?(?:\\.|[^\]\\])*\]|\\[sS]")
_IGNORING_CASE = re.compile(r"\(\?i:([^()]*)\)")


def tokenizer_values(tokenizer: Tokenizer) -> dict[str, Any]:
    """The `tokenizer` as `readTokenizer` of tokenizer.js takes it; UsageError if it has no form there."""
    match tokenizer:
        case BytesTokenizer() | CharTokenizer() | SymbolsTokenizer() | WordTokenizer():
            return tokenizer.saved()
        case ExtendedTokenizer():
            return tokenizer.saved() | {"base": tokenizer_values(tokenizer.base)}
        case ByteLevelBPE():
            tokens, last = [*tokenizer.tokens, ENDOFTEXT.encode()], len(tokenizer.tokens)
            return _byte_pairs(tokens, PATTERNS[tokenizer.pattern], [last], last)
        case PretrainedTokenizer() if not tokenizer.added and LLAMA_CPP_NAMES.get(str(tokenizer.pattern)) in PATTERNS:
            pattern = PATTERNS[LLAMA_CPP_NAMES[str(tokenizer.pattern)]]
            return _byte_pairs(tokenizer.tokens, pattern, tokenizer.special, tokenizer.endoftext, nfc=tokenizer.nfc)
    detail = " with added tokens, or a pattern of several steps," if isinstance(tokenizer, PretrainedTokenizer) else ""
    raise UsageError(
        f"a tokenizer of kind {tokenizer.kind}{detail} has no form in a page; "
        "those of kind bytes, char, symbols, word, bpe and gpt2 can be exported"
    )


def _byte_pairs(
    tokens: list[bytes], pattern: str, special: list[int], endoftext: int | None, nfc: bool = False
) -> dict[str, Any]:
    return {
        "kind": "byte_pair",
        "tokens": tokens_to_saved(tokens),
        "pattern": javascript_pattern(pattern),
        "special": special,
        "endoftext": endoftext,
        "nfc": nfc,
    }


def javascript_pattern(pattern: str) -> str:
    """A pattern of `lib.tokenizer.patterns` in JavaScript's syntax, for its flag u."""
    pattern = _IGNORING_CASE.sub(lambda part: f"(?:{_any_case(part[1])})", pattern)
    return _CLASS_OR_BLANK.sub(lambda part: _with_blanks(part[0]), pattern)


def _with_blanks(part: str) -> str:
    r"""A class of characters, or \s or \S, with the blanks written out."""
    if part.startswith("["):
        return part.replace(r"\s", _BLANKS)
    return f"[{'^' if part == chr(92) + 'S' else ''}{_BLANKS}]"


def _any_case(part: str) -> str:
    """Each letter as a class of its two cases; the long s, ſ, is one of s."""
    return re.sub(r"[a-z]", lambda letter: f"[{letter[0]}{letter[0].upper()}{'ſ' if letter[0] == 's' else ''}]", part)
