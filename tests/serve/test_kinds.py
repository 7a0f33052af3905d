"""Models of other kinds in the same formats: an encoder-decoder, and one whose tokens are words."""

from pathlib import Path
from typing import Any, Iterator

import pytest

from lib import Model
from tests.conftest import TINY, Stage
from tests.evaluate.test_translation import DICTIONARY, SETTINGS
from tests.serve.running import Running, running

GREEDY = {"temperature": 0, "max_tokens": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, stage: Stage) -> Path:
    """A folder with the runs sounds, an encoder-decoder, and words, a recurrent network."""
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "words.dict").write_text(DICTIONARY)
    stage("tokenize", "--parallel", folder / "words.dict", "--tokenizer", "symbols", "-o", folder / "pairs")
    stage("build-dataset", folder / "pairs", "-o", folder / "sources", "--config", "g2p", "--val-fraction", 0.2)
    stage("train", folder / "sources", *SETTINGS, "--max-steps", 30, "-o", folder / "sounds")
    (folder / "text.txt").write_text("The cat sat on the mat, and the dog sat on the cat.\n" * 40)
    stage("tokenize", folder / "text.txt", "-o", folder / "tokens", "--tokenizer", "word")
    stage("build-dataset", folder / "tokens", "-o", folder / "dataset", "--config", "debug")
    lstm = [word for size in ("kind=lstm", "n_layers=1", "n_heads=1") for word in ("--set", f"model.{size}")]
    stage("train", folder / "dataset", "-o", folder / "words", "--config", "debug", *TINY, *lstm)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Running]:
    with running(folder / "sounds", folder / "words") as server:
        yield server


def complete(server: Running, status: int = 200, **body: Any) -> Any:
    return server.post("/v1/completions", GREEDY | body, status)


def test_an_encoder_decoder_writes_what_belongs_to_the_prompt(server: Running, folder: Path) -> None:
    model = Model.from_run(folder / "sounds", device="cpu")
    written = model.generate("batok", temperature=0, max_new_tokens=6)
    ids = model.tokenizer.encode("batok")
    for prompt in ("batok", ids):
        answer = complete(server, model="sounds", prompt=prompt)
        assert answer["choices"][0]["text"] == written
        assert answer["usage"]["prompt_tokens"] == len(ids)
    echoed = complete(server, model="sounds", prompt="batok", echo=True)
    assert echoed["choices"][0]["text"] == f"batok{written}"


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"prompt": ""}, "is empty"),
        ({"prompt": "xyz"}, "'x' is not among"),
        ({"prompt": "batok", "echo": True, "logprobs": 1}, "gives no probability to its source"),
        ({"prompt": "ba" * 40}, "80 tokens"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused(server: Running, body: Any, complaint: str) -> None:
    assert complaint in complete(server, 400, model="sounds", **body)["error"]["message"]


def test_the_tokens_of_words_have_the_spaces_of_the_text(server: Running, folder: Path) -> None:
    model = Model.from_run(folder / "words", device="cpu")
    choice = complete(server, model="words", prompt="The cat", echo=True, logprobs=2)["choices"][0]
    assert choice["text"] == "The cat" + model.generate("The cat", temperature=0, max_new_tokens=6)
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == choice["text"]
    for offset, token in zip(logprobs["text_offset"], logprobs["tokens"], strict=True):
        assert choice["text"][offset:].startswith(token)
    alone = complete(server, model="words", prompt="The cat", logprobs=2)["choices"][0]
    assert alone["text"] == "".join(alone["logprobs"]["tokens"]) == choice["text"].removeprefix("The cat")
