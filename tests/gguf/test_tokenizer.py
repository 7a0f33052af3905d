"""Tokenizers in GGUF files: written and read back."""

from pathlib import Path

import numpy as np
import pytest

from lib.errors import MakegptError
from lib.gguf.reader import open_gguf
from lib.gguf.tokenizer import read_tokenizer, tokenizer_values
from lib.gguf.writer import write_gguf
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.bpe import BPETokenizer
from lib.tokenizer.bytes_ import BytesTokenizer
from lib.tokenizer.char import CharTokenizer
from lib.tokenizer.word import WordTokenizer

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
