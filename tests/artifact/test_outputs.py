"""No output overwrites an input of its command, nor a part of an artifact."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import TEXT, Here


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize(
    "words",
    [
        "evaluate run --text play.txt -o play.txt",
        "evaluate run --text play.txt -o link.txt",
        "evaluate run --text link.txt -o play.txt",
        "evaluate run --per-token --text play.txt -o play.txt",
        "generate run --prompts prompts.jsonl -o prompts.jsonl",
        "plot tokens run --text page.html -o page.html",
        "evaluate run -o run/model.safetensors",
        "evaluate run -o run/manifest.json",
        "evaluate run -o tokens/shard-00000.npy",
        "evaluate run -o run/checkpoint/state.json",
        "generate run -o dataset/dataset.json",
        "generate run --json -o run/samples.jsonl",
        "plot loss run -o picture.svg",
        "report run -o run/tokenizer.json",
    ],
)
def test_an_output_over_an_input_or_over_a_part_of_an_artifact_is_refused(
    copied: Path, here: Here, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied)
    shutil.copy("play.txt", "page.html")
    Path("link.txt").symlink_to("play.txt")
    Path("prompts.jsonl").write_text('"To be"\n')
    Path("picture.svg").symlink_to("run/config.json")
    before = content(copied)
    name, *rest = words.split()
    message = here(name, *rest, code=2).err
    assert message.startswith(f"{name}: error: {rest[rest.index('-o') + 1]} is ")
    assert "choose another output" in message
    assert content(copied) == before


def test_an_output_may_be_next_to_the_inputs_of_a_command(copied: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copied)
    for _ in range(2):  # the second time over the first one's
        here("generate", "run", "run", "-o", "run/sample.txt")  # a prompt that is the name of a folder
    Path("copy.txt").write_text(TEXT, encoding="utf-8")
    here("generate", "run", "copy.txt", "-o", "copy.txt")  # a prompt that is the name of the output
    assert Path("copy.txt").read_text(encoding="utf-8") != TEXT
