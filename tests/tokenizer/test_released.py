"""Vocabularies of released models: llama.cpp's test strings and their ids."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lib.gguf.reader import open_gguf
from lib.gguf.texts import LLAMA_CPP_TEXTS
from lib.gguf.tokenizer import read_tokenizer, tokenizer_values
from lib.tokenizer.base import Tokenizer
from tests.tokenizer.cut_vocabularies import NORMAL, load_cut, read_cut, texts_and_ids

SAVED = load_cut()


@dataclass(frozen=True)
class CutVocabulary:
    """A cut vocabulary: its tokenizer, read from a GGUF file, numbers the tokens that were kept, in the same order."""

    tokenizer: Tokenizer
    ids: list[int]  # those in the whole vocabulary

    def encode(self, text: str) -> list[int]:
        """The ids of `text` in the whole vocabulary."""
        return [self.ids[id] for id in self.tokenizer.encode(text)]


@pytest.fixture(scope="module")
def cut_vocabularies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CutVocabulary]:
    folder = tmp_path_factory.mktemp("vocabularies")
    return {
        name: CutVocabulary(read_cut(saved, folder / name), list(map(int, saved["tokens"]))) for name, saved in SAVED.items()
    }


@pytest.mark.parametrize("name", SAVED)
def test_the_ids_are_those_of_the_released_tokenizer(name: str, cut_vocabularies: dict[str, CutVocabulary]) -> None:
    vocabulary, goldens = cut_vocabularies[name], SAVED[name]["goldens"]
    tokenizer = vocabulary.tokenizer
    assert len(goldens) >= 46
    for text, ids in goldens:
        assert vocabulary.encode(text) == ids, text
        assert tokenizer.decode(tokenizer.encode(text)) == text
    pieces = [character for text, _ in goldens for character in text]
    streamed = [int(id) for ids in tokenizer.encode_stream(pieces) for id in ids]
    assert streamed == tokenizer.encode("".join(pieces))


def test_the_certificate_of_a_gguf_file_compares_the_same_strings() -> None:
    for saved in SAVED.values():
        assert set(LLAMA_CPP_TEXTS) <= {text for text, _ in saved["goldens"]}


@pytest.mark.parametrize("name", SAVED)
def test_it_is_saved_and_loaded_and_written_as_it_was_read(name: str, cut_vocabularies: dict[str, CutVocabulary]) -> None:
    tokenizer, saved = cut_vocabularies[name].tokenizer, SAVED[name]
    again = type(tokenizer).from_saved(json.loads(json.dumps(tokenizer.saved())))
    assert again.identity() == tokenizer.identity()
    values = tokenizer_values(tokenizer)
    assert values["tokenizer.ggml.tokens"] == list(saved["tokens"].values())
    assert values["tokenizer.ggml.token_type"].tolist() == [saved["types"].get(id, NORMAL) for id in saved["tokens"]]
    if "scores" in saved:
        np.testing.assert_array_equal(values["tokenizer.ggml.scores"], np.array(saved["scores"], dtype=np.float32))
    else:
        merges = values["tokenizer.ggml.merges"]
        assert values["tokenizer.ggml.pre"] == saved["pre"]
        assert set(merges) <= set(saved["merges"])
        assert len(set(merges)) == len(merges)


FOLDER = os.environ.get("LLAMA_CPP_MODELS", "")


@pytest.mark.skipif(not FOLDER, reason="LLAMA_CPP_MODELS names no folder; tests/tokenizer/cut_vocabularies.py says which")
@pytest.mark.parametrize("name", SAVED)
def test_the_whole_vocabulary_gives_the_same_ids(name: str) -> None:
    path = Path(FOLDER) / f"ggml-vocab-{name}.gguf"
    with open_gguf(path) as file:
        tokenizer = read_tokenizer(file)
    for text, ids in texts_and_ids(path):
        assert tokenizer.encode(text) == ids, text
