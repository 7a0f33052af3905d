"""The tokenizers of an exported page give the ids and the bytes that ours give."""

import json
import time
from pathlib import Path
from typing import Any, Callable

import pytest

from lib.errors import UsageError
from lib.generate.token_scores import token_text
from lib.gguf.texts import LLAMA_CPP_TEXTS, TEXTS
from lib.page.tokenizer import tokenizer_values
from lib.tokenizer.base import Tokenizer, UnknownText
from lib.tokenizer.bpe import BPETokenizer
from lib.tokenizer.bytes_ import BytesTokenizer
from lib.tokenizer.char import CharTokenizer
from lib.tokenizer.extended import ExtendedTokenizer
from lib.tokenizer.gpt2 import GPT2Tokenizer
from lib.tokenizer.patterns import LLAMA_CPP_NAMES, PATTERNS
from lib.tokenizer.pretrained import PretrainedTokenizer
from lib.tokenizer.symbols import SymbolsTokenizer
from lib.tokenizer.unigram_tokenizer import UnigramTokenizer
from lib.tokenizer.word import WordTokenizer
from tests.page.node import needs_node, run_in_node
from tests.tokenizer.cut_vocabularies import load_cut, read_cut
from tests.tokenizer.test_tokenizers import PARTS

#: Every pair of the parts that patterns tell apart, contractions in both cases, and Unicode's odd corners.
ODD = [a + b for a in PARTS for b in PARTS]
ODD += ["I'LL we'Re 'S'ſ x'ſ they'VE 'T", "\ufeffmark", "a\u200bb\u00adc", "\u0000\u0001\u001f", "🏳️‍🌈🏳️‍🌈", "ǅ ǈ Ⅷ ⅷ ① ² ½ ٣ ৪"]
ODD += [
    "\u1680x \u2000 \u2028\u2029y",
    "</script><!--",
    "ﬁ ﷺ",
    "e\u0301\u0323 \u0323\u0301e",
    "a" * 300,
    " " * 50 + "a",
    "\n" * 40 + "b",
]
ALL = [*TEXTS, *LLAMA_CPP_TEXTS, *ODD]

CODE = """
const tokenizer = tokenizer_module.readTokenizer(data.tokenizer);
return data.texts.map((text) => {
  let ids;
  try { ids = tokenizer.encode(text); } catch (error) { return {error: error.message}; }
  const bytes = ids.flatMap((id, n) => [...tokenizer.bytesAfter(n ? ids[n - 1] : null, id)]);
  return {ids, bytes, pieces: ids.map((id) => tokenizer_module.visibleText(tokenizer.tokenBytes(id)))};
});
"""


def check(tokenizer: Tokenizer, folder: Path, texts: list[str] = ALL) -> list[dict[str, Any]]:
    """Encode the `texts` in JavaScript, and compare; what was found."""
    values = json.loads(json.dumps(tokenizer_values(tokenizer)))
    found: list[dict[str, Any]] = run_in_node(CODE, folder, "tokenizer", tokenizer=values, texts=texts)
    for text, theirs in zip(texts, found, strict=True):
        try:
            ids = tokenizer.encode(text)
        except UnknownText:
            assert "error" in theirs, text
            continue
        assert theirs.get("ids") == ids, repr(text)
        assert bytes(theirs["bytes"]) == tokenizer.decode_bytes(ids), repr(text)
        assert theirs["pieces"] == [token_text(tokenizer, id) for id in ids]
    return found


def learned(pattern: str = "gpt2", ties: str = "bytes") -> BPETokenizer:
    return BPETokenizer.train([["".join(ALL)]], vocab_size=900, pattern=pattern, ties=ties)


@needs_node
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_cuts_texts_as_ours_does(tmp_path: Path, pattern: str) -> None:
    assert not any("error" in one for one in check(learned(pattern), tmp_path))


@needs_node
@pytest.mark.parametrize(
    "tokenizer",
    [
        BytesTokenizer(),
        CharTokenizer.train([["".join(TEXTS)]], Path()),
        SymbolsTokenizer.train([["".join(ALL)]], Path()),
        SymbolsTokenizer.train([["".join(TEXTS)]], Path()),
        WordTokenizer.train([["".join(TEXTS)]], Path()),
        learned(ties="hf"),
        ExtendedTokenizer(WordTokenizer.train([["".join(TEXTS)]], Path()), ["<a>", "<b>"]),
        ExtendedTokenizer(CharTokenizer.train([["".join(ALL)]], Path()), ["<|endoftext|>"]),
    ],
    ids=lambda tokenizer: tokenizer.kind,
)
def test_every_kind_of_tokenizer_gives_equal_ids_and_bytes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    check(tokenizer, tmp_path)


@needs_node
def test_gpt2s_vocabulary_gives_equal_ids(tmp_path: Path, fetched: Callable[[str], Path]) -> None:
    folder = fetched("gpt2")
    texts = [*ALL, (fetched("hamlet") / "hamlet.txt").read_bytes().decode("utf-8")[:20000]]
    check(GPT2Tokenizer.train([], folder), tmp_path, texts)


@needs_node
@pytest.mark.parametrize("name", load_cut())
def test_the_released_vocabularies_give_the_ids_of_their_release_or_are_refused(tmp_path: Path, name: str) -> None:
    tokenizer = read_cut(load_cut()[name], tmp_path / "cut.gguf")
    supported = isinstance(tokenizer, PretrainedTokenizer) and not tokenizer.added
    if supported and LLAMA_CPP_NAMES.get(str(tokenizer.pattern)) in PATTERNS:
        check(tokenizer, tmp_path, [text for text, _ in load_cut()[name]["goldens"]])
    else:
        with pytest.raises(UsageError, match="has no form in a page; those of kind bytes"):
            tokenizer_values(tokenizer)


@needs_node
@pytest.mark.parametrize("word", ["a" * 9000, "ab" * 4000, "漢字" * 2000, "=" * 9000])
def test_a_very_long_word_is_merged_in_time(tmp_path: Path, word: str) -> None:
    started = time.monotonic()
    check(learned(), tmp_path, [word])
    assert time.monotonic() - started < 20  # some tenths of a second; a minute, if every merge joins all pairs again


@needs_node
def test_a_vocabulary_that_composes_texts_does_so_in_the_page(tmp_path: Path) -> None:
    bpe = learned("qwen2")
    tokenizer = PretrainedTokenizer("qwen2", [*bpe.tokens, b"<end>"], [len(bpe.tokens)], len(bpe.tokens), nfc=True)
    check(tokenizer, tmp_path)


@needs_node
def test_a_byte_without_a_token_is_an_error(tmp_path: Path) -> None:
    tokens = [bytes([byte]) for byte in range(256) if byte != ord("z")]
    (found,) = check(PretrainedTokenizer("gpt-2", tokens, [], None), tmp_path, ["az"])
    assert "no token for a byte" in found["error"]


@needs_node
def test_a_character_without_a_token_is_named_with_its_place(tmp_path: Path) -> None:
    (found,) = check(CharTokenizer("ab😀"), tmp_path, ["a😀bé"])
    assert found["error"] == '"é" at position 3 is not among the 3 tokens of this model; leave it out'


def test_a_unigram_vocabulary_is_refused_with_the_kinds_that_have_a_form() -> None:
    tokenizer = UnigramTokenizer.train([["to be, or not to be " * 20]], Path(), vocab_size=280)
    with pytest.raises(UsageError, match=r"kind unigram has no form in a page; those of kind bytes, char, .* and gpt2"):
        tokenizer_values(tokenizer)
