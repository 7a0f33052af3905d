"""Special tokens that are added to a vocabulary: the same ids for text, and nothing that a text is encoded to."""

from pathlib import Path

import numpy as np
import pytest

from lib.chat.messages import Message
from lib.chat.template import IM_END, IM_START, Alpaca, ChatML, ChatTemplate, encode_segments, special_id
from lib.tokenizer.base import ENDOFTEXT, Tokenizer
from lib.tokenizer.bpe import BPETokenizer
from lib.tokenizer.bytes_ import BytesTokenizer
from lib.tokenizer.char import CharTokenizer
from lib.tokenizer.extended import is_extension, special_names, with_special_tokens
from lib.tokenizer.pretrained import PretrainedTokenizer
from lib.tokenizer.registry import load_tokenizer, tokenizer_from_saved
from lib.tokenizer.word import WordTokenizer

TEXT = f"user assistant ### Instruction: Response: Say {IM_END} or {IM_START}, 12 naïve times.\n\n{ENDOFTEXT} <| |>"
BASES: list[Tokenizer] = [
    BPETokenizer.train([[TEXT * 3]], vocab_size=300),
    BPETokenizer.train([[TEXT * 3]], vocab_size=300, pattern="digits", ties="hf"),
    CharTokenizer.train([[TEXT]], Path()),
    BytesTokenizer(),
    WordTokenizer.train([[TEXT]], Path()),
]


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.kind)
@pytest.mark.parametrize("template", [ChatML(), Alpaca()], ids=lambda template: template.name)
def test_a_text_has_the_same_ids_and_none_of_them_is_new(base: Tokenizer, template: ChatTemplate, tmp_path: Path) -> None:
    tokenizer = with_special_tokens(base, template.special)
    assert tokenizer.encode(TEXT) == base.encode(TEXT)
    assert np.concatenate(list(tokenizer.encode_stream([TEXT[:40], TEXT[40:]]))).tolist() == base.encode(TEXT)
    assert not set(tokenizer.special_ids()) & set(tokenizer.encode(TEXT)) - {base.unknown}
    assert set(template.special) <= set(special_names(tokenizer))
    assert len(special_names(tokenizer)) == tokenizer.vocab_size - base.vocab_size + len(base.special_ids())
    ids, _ = encode_segments(template.segments([Message("user", TEXT)], answer=True), tokenizer)
    if base.lossless:
        assert tokenizer.decode(ids) == template.text([Message("user", TEXT)], answer=True)
        assert sum(tokenizer.byte_lengths()[ids]) == len(template.text([Message("user", TEXT)], answer=True).encode()) - sum(
            len(tokenizer.token_bytes(id)) for id in ids if id in tokenizer.special_ids()
        )
    tokenizer.save(tmp_path / "tokenizer.json")
    assert load_tokenizer(tmp_path).identity() == tokenizer.identity()
    assert load_tokenizer(tmp_path).encode(TEXT) == base.encode(TEXT)
    assert with_special_tokens(tokenizer, template.special) is tokenizer


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.kind)
def test_an_extension_is_recognized(base: Tokenizer) -> None:
    tokenizer = with_special_tokens(base, ChatML.special)
    assert is_extension(tokenizer, base)
    assert is_extension(with_special_tokens(tokenizer, ["<|tool|>"]), tokenizer)
    assert not is_extension(base, tokenizer)
    assert not is_extension(tokenizer, CharTokenizer("ab"))


def test_a_vocabulary_with_an_end_of_text_is_given_it() -> None:
    tokenizer = with_special_tokens(BytesTokenizer(), [ENDOFTEXT])
    assert tokenizer.endoftext == special_id(ENDOFTEXT, tokenizer) == 256
    assert isinstance(with_special_tokens(BASES[0], ChatML.special), PretrainedTokenizer)
    assert with_special_tokens(BASES[0], ChatML.special).endoftext == BASES[0].endoftext


@pytest.mark.parametrize(
    "saved", [{}, {"base": {"kind": "extended"}, "names": []}, {"base": {"kind": "bytes"}, "names": ["a", "a"]}]
)
def test_a_damaged_one_is_refused(saved: dict[str, object]) -> None:
    with pytest.raises((ValueError, LookupError)):
        tokenizer_from_saved({"kind": "extended"} | saved)
