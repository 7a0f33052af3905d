"""Tokenizers in GGUF files: written and read back."""

from pathlib import Path

import numpy as np
import pytest

from lib.errors import MakegptError
from lib.gguf.llama_cpp import load_in_llama_cpp
from lib.gguf.reader import open_gguf
from lib.gguf.tokenizer import read_tokenizer, tokenizer_values
from lib.gguf.writer import write_gguf
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.bpe import TIES, BPETokenizer
from lib.tokenizer.bytes_ import BytesTokenizer
from lib.tokenizer.char import CharTokenizer
from lib.tokenizer.patterns import PATTERNS
from lib.tokenizer.pretrained import PretrainedTokenizer
from lib.tokenizer.sentencepiece import SentencePieceTokenizer
from lib.tokenizer.word import WordTokenizer
from tests.gguf.test_gguf import KEYS, C, random_tensors
from tests.gguf.test_llama_cpp import FOLDER, needs_llama_cpp
from tests.tokenizer.cut_models import read_cut_model
from tests.tokenizer.cut_vocabularies import load_cut, read_cut

BYTES = [bytes([byte]) for byte in range(256)]
TEXT = "the whale, the whale! the end in 1851"


def test_bytes_and_characters_are_the_model_that_takes_the_longest_token() -> None:
    for tokenizer, tokens in ((CharTokenizer("\n\\aé"), ["\\x0a", "\\\\", "a", "\\xc3\\xa9"]), (BytesTokenizer(), None)):
        values = tokenizer_values(tokenizer)
        assert values["tokenizer.ggml.model"] == "rwkv"
        assert tokens in (None, values["tokenizer.ggml.tokens"])
        assert len(set(values["tokenizer.ggml.tokens"])) == tokenizer.vocab_size
        assert "tokenizer.ggml.eos_token_id" not in values


def test_bpe_has_merges_a_pattern_by_name_and_a_token_that_ends_a_text() -> None:
    values = tokenizer_values(BPETokenizer.train([[TEXT]], vocab_size=260))
    assert values["tokenizer.ggml.pre"] == "gpt-2"
    assert values["tokenizer.ggml.merges"] == ["h e", "t he", "Ġ w"]
    assert values["tokenizer.ggml.tokens"][-2:] == ["Ġw", "<|endoftext|>"]
    assert values["tokenizer.ggml.token_type"].tolist() == [1] * 259 + [3]
    assert values["tokenizer.ggml.eos_token_id"] == 259


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (WordTokenizer.train([["to be"]], Path()), "no tokenizer of kind word"),
        (BPETokenizer.train([[TEXT]], vocab_size=260, pattern="digits"), "no name for the pattern digits"),
        (PretrainedTokenizer("qwen2", [*BYTES, b"whale"], [], None), "some have no merge, and with the pre-tokenizer qwen2"),
        (PretrainedTokenizer(["a"], BYTES, [], None), "no name for the pattern"),
        (
            SentencePieceTokenizer("bpe", ["<unk>", "a"], [0, -1], [2, 1], unknown=0, endoftext=None),
            "bpe needs pieces for bytes",
        ),
    ],
)
def test_what_llama_cpp_has_no_form_for_is_refused_by_name(tokenizer: Tokenizer, message: str) -> None:
    with pytest.raises(MakegptError, match=message):
        tokenizer_values(tokenizer)


@pytest.mark.parametrize("tokens", [["ab"], ["a", "a"], ["\\q"], ["\\"], ["é"], ["\\xc3"]], ids=str)
def test_pieces_that_are_not_single_characters_are_refused(tmp_path: Path, tokens: list[str]) -> None:
    values = {"general.architecture": "gpt2", "tokenizer.ggml.model": "rwkv", "tokenizer.ggml.tokens": tokens}
    values["tokenizer.ggml.token_type"] = [1] * len(tokens)
    write_gguf(tmp_path / "a.gguf", values, {"token_embd.weight": np.ones((1, 32), np.float32)}, "f32")
    with open_gguf(tmp_path / "a.gguf") as file, pytest.raises(MakegptError, match="cannot be followed"):
        read_tokenizer(file)


# In the real llama.cpp.

ODD = "It's 1851: the  whale!\n\n “Whale” — 漢字 🐋 e\u0301 33333\t\r\n ab\\x41  "
UNIGRAM, CUT_VOCABULARIES = "botchan_en_unigram_1000", load_cut()
TRAINED: dict[str, Tokenizer] = {
    **{
        f"{name}, {ties}": BPETokenizer.train([[TEXT + ODD]], vocab_size=280, pattern=name, ties=ties)
        for name in PATTERNS
        if name != "digits"
        for ties in TIES
    },
    "char": CharTokenizer("".join(sorted(set(ODD)))),
    "bytes": BytesTokenizer(),
}


@needs_llama_cpp
@pytest.mark.parametrize("name", [*TRAINED, *CUT_VOCABULARIES, UNIGRAM])
def test_llama_cpp_gives_the_same_ids(name: str, tmp_path: Path) -> None:
    if name in CUT_VOCABULARIES:
        tokenizer = read_cut(CUT_VOCABULARIES[name], tmp_path / "cut.gguf")
    else:
        tokenizer = read_cut_model(name, tmp_path) if name == UNIGRAM else TRAINED[name]
    keys = {f"llama.{key}": value for key, value in KEYS.items()}
    floats = {"llama.attention.layer_norm_rms_epsilon": 1e-5}
    values = {"general.architecture": "llama", **keys, **floats, **tokenizer_values(tokenizer)}
    tensors = random_tensors() | {"token_embd.weight": np.zeros((tokenizer.vocab_size, C), np.float32)}
    write_gguf(tmp_path / "a.gguf", values, tensors, "f32")
    goldens = [text for text, _ in CUT_VOCABULARIES[name]["goldens"]] if name in CUT_VOCABULARIES else []
    with load_in_llama_cpp(FOLDER, tmp_path / "a.gguf", 8) as model:
        for text in [ODD, *([ODD[::-1]] if name != "char" else []), *goldens]:
            assert model.tokenize(text) == tokenizer.encode(text), text
    with open_gguf(tmp_path / "a.gguf") as file:
        again = read_tokenizer(file)
    assert again.encode(ODD) == tokenizer.encode(ODD)
    assert tokenizer_values(again).keys() == tokenizer_values(tokenizer).keys()
