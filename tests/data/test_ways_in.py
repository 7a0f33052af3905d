"""One door for every text that comes in: whatever way it takes, the same text gives the same outcome."""

import io
import json
import os
import random
import subprocess
from pathlib import Path
from typing import Callable, Iterator

import click
import numpy as np
import pytest

from lib.artifact.manifest import read_manifest
from lib.data.text import PIECE_BYTES, ReadCounter, decode_utf8, detect_encoding, open_document
from lib.errors import MakegptError
from lib.generate.request import encode_prompt, read_prompt, read_prompts
from lib.tokenizer.byte_level import _BORDER
from lib.tokenizer.bytes_ import BytesTokenizer
from lib.tokenizer.registry import make_tokenizer
from lib.tokenizer.splitting import cut_at_blanks
from lib.tokenizer.word import WordTokenizer
from tests.conftest import BIN, Here
from tests.data.test_gutenberg import FRAME

BOM = b"\xef\xbb\xbf"
PLAIN = "To be, or not to be: café.\n".encode()

ODD = {
    "plain": PLAIN,
    "a byte-order mark": BOM + PLAIN,
    "CRLF": PLAIN.replace(b"\n", b"\r\n") * 2,
    "a frame": BOM + FRAME[0] + PLAIN + FRAME[1],
    "half a frame": FRAME[0] + PLAIN,
    "an invalid byte": PLAIN + b"\xff",
    "NUL": PLAIN + b"\0",
    "nothing": b"",
    "a mark alone": BOM,
    "an empty frame": FRAME[0] + FRAME[1],
    "UTF-16": PLAIN.decode().encode("utf-16"),
    "UTF-16 without a mark": PLAIN.decode().encode("utf-16-le"),
    "UTF-32": PLAIN.decode().encode("utf-32"),
    "blanks": b" \n\n ",
}


class Ways:
    """The names under which a content can be read: each is (what to call, what messages call it)."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._monkeypatch = folder, monkeypatch
        self._open: list[int] = []

    def file(self, content: bytes) -> tuple[str, str]:
        path = self._folder / "text.txt"
        path.write_bytes(content)
        return str(path), str(path)

    def link(self, content: bytes) -> tuple[str, str]:
        path = self._folder / "link.txt"
        if not path.is_symlink():
            path.symlink_to("text.txt")
        return str(path), str(path)

    def pipe(self, content: bytes) -> tuple[str, str]:
        reader, writer = os.pipe()
        self._open.append(reader)
        os.write(writer, content)
        os.close(writer)
        return f"/dev/fd/{reader}", f"/dev/fd/{reader}"

    def stdin(self, content: bytes) -> tuple[str, str]:
        self._monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        return "-", "stdin"

    def close(self) -> None:
        for number in self._open:
            os.close(number)


@pytest.fixture
def ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ways]:
    ways = Ways(tmp_path, monkeypatch)
    yield ways
    ways.close()


def outcomes(ways: Ways, content: bytes, outcome: Callable[[str], str]) -> list[str]:
    results = []
    for way in (ways.file, ways.link, ways.pipe, ways.stdin):
        word, name = way(content)
        results.append(outcome(word).replace(name, "NAME"))
    return results


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("errors", ["strict", "replace"])
def test_tokenize_makes_the_same_of_a_text_whatever_way_it_comes(
    odd: str, errors: str, ways: Ways, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from stages.tokenize import main

    def outcome(word: str) -> str:
        with pytest.raises(SystemExit) as left:
            main(["-o", str(tmp_path / "T"), "--tokenizer", "bytes", "--set", f"tokenize.errors={errors}", word])
        said = capsys.readouterr().err
        assert "bug in makegpt" not in said
        if left.value.code:
            return said
        return said + repr(np.load(tmp_path / "T" / "shard-00000.npy").tobytes())

    first, *others = outcomes(ways, ODD[odd], outcome)
    assert others == [first] * 3


@pytest.mark.parametrize("odd", ODD)
def test_a_model_reads_the_same_text_whatever_way_it_comes(odd: str, ways: Ways, small: Path, here: Here) -> None:
    def outcome(word: str) -> str:
        refused = odd in ("an invalid byte", "NUL", "nothing", "a mark alone", "an empty frame") or odd.startswith("UTF")
        done = here("plot", "tokens", small / "run", "--text", word, code=int(refused))
        return done.err + done.out

    first, *others = outcomes(ways, ODD[odd], outcome)
    assert others == [first] * 3


def test_evaluate_reads_pipes_and_cuts_as_from_a_file(ways: Ways, small: Path, here: Here) -> None:
    def outcome(word: str) -> str:
        done = here("evaluate", small / "run", "--text", word, "--per-token")
        assert "cut" in done.err
        return str(done.out)

    content = BOM + FRAME[0] + PLAIN + FRAME[1]
    first, *others = outcomes(ways, content, outcome)
    assert others == [first] * 3
    assert len(first.splitlines()) == len(PLAIN) - 2, "the line break at the end of a framed book goes with its frame"
    ways.stdin(content)
    assert here("evaluate", small / "run", "-", "--per-token").out == first


def test_a_file_of_the_kernel_that_knows_no_size_is_read(tmp_path: Path, here: Here) -> None:
    if not Path("/proc/version").exists():
        pytest.skip("there is no /proc here")
    assert "".join(open_document(Path("/proc/version")).pieces()) == Path("/proc/version").read_text(encoding="utf-8")
    here("tokenize", "/proc/version", "-o", tmp_path / "T", "--tokenizer", "bytes")


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/urandom", "-"])
@pytest.mark.parametrize("verb", ["tokenize", "evaluate", "generate"])
def test_a_device_without_an_end_is_refused(verb: str, name: str, small: Path, tmp_path: Path) -> None:
    words = {"tokenize": [name, "--tokenizer", "bytes"], "evaluate": [small / "run", "--text", name]}
    if verb == "generate" and name != "-":
        pytest.skip("a prompt comes from stdin alone")
    command = [BIN / verb, *words.get(verb, [small / "run", "-"]), "-o", tmp_path / "out.json"]
    with open("/dev/zero", "rb") as endless:
        done = subprocess.run(command, stdin=endless, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "is a device, which may have no end; use a file or a pipe" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_empty_device_is_an_empty_text(here: Here, tmp_path: Path) -> None:
    assert "/dev/null is empty; a text is expected" in here("tokenize", os.devnull, "-o", tmp_path / "T", code=1).err


def test_a_real_pipe_gives_what_the_file_gives(tmp_path: Path) -> None:
    content = ODD["a frame"] * 3
    (tmp_path / "text.txt").write_bytes(content)
    for script in (
        "cat text.txt | {t} -o T2 -", "{t} -o T2 <(cat text.txt)", "{t} -o T2 /dev/stdin < text.txt",
    ):  # fmt: skip
        words = script.format(t=f"'{BIN / 'tokenize'}' --tokenizer bytes")
        subprocess.run(["bash", "-c", words], cwd=tmp_path, check=True, capture_output=True)
        assert np.load(tmp_path / "T2" / "shard-00000.npy").astype(np.uint8).tobytes().count(PLAIN[:-1]) == 3


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", BOM])
def test_a_prompt_on_stdin_loses_a_mark_and_one_line_break(mark: bytes, end: bytes) -> None:
    assert read_prompt(io.BytesIO(mark + PLAIN + end)) == (PLAIN.decode() if end else PLAIN.decode()[:-1])
    assert read_prompt(io.BytesIO(mark + b"a\rb \r" + b"\n" + end)) == ("a\rb \r\n" if end else "a\rb ")


@pytest.mark.parametrize("odd", ["an invalid byte", "NUL", "UTF-16", "UTF-16 without a mark"])
def test_a_prompt_that_is_no_text_is_refused_as_a_text_is(odd: str) -> None:
    with pytest.raises(MakegptError, match=r"^the prompt on stdin(: (byte|character)| looks like a binary)"):
        read_prompt(io.BytesIO(ODD[odd]))
    with pytest.raises(MakegptError, match=r"^x, line 2( |:)"):
        list(read_prompts(io.BytesIO(b'"a"\n' + ODD[odd]), BytesTokenizer(), "x"))


def test_prompts_of_a_pipe_are_those_of_a_file(ways: Ways, small: Path, here: Here) -> None:
    def outcome(word: str) -> str:
        return str(here("generate", small / "run", "--prompts", word, "--json", "--max-new-tokens", 1, code=0).out)

    first, *others = outcomes(ways, BOM + b'"a"\r\n{"prompt": "b\\n"}\r\n', outcome)
    assert others == [first] * 3
    assert [json.loads(line)["prompt"] for line in first.splitlines()] == ["a", "b\n"]


# Words.

BAD = os.fsdecode(b"a\xff")


def texts_of(name: str) -> list[click.Parameter]:
    """The parameters of a stage that take a text of any kind, or a path."""
    from importlib import import_module

    command = import_module(f"stages.{name.replace('-', '_')}").main
    kinds = (click.STRING.__class__, click.Path)
    return [each for each in command.params if isinstance(each.type, kinds) or each.name == "changes"]


STAGES = [
    "evaluate",
    "generate",
    "plot",
    "tokenize",
    "compare",
    "report",
    "inspect",
    "explain",
    "fetch",
    "build-dataset",
    "train",
]


@pytest.mark.parametrize("name", STAGES)
def test_a_word_that_is_no_utf_8_is_no_bug_anywhere(
    name: str, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from importlib import import_module

    monkeypatch.chdir(tmp_path)
    command = import_module(f"stages.{name.replace('-', '_')}").main
    first = {"plot": ["tokens"], "train": [], "fetch": []}.get(name, [])
    for parameter in texts_of(name):
        for bad in (BAD, f"generate.prompt={BAD}", f"plot.prompt={BAD}")[: 3 if parameter.name == "changes" else 1]:
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(PLAIN)))
            run: list[str] = [str(small / "run")] if name in ("evaluate", "generate", "plot") else []
            words = [*first, *run, parameter.opts[0], bad] if isinstance(parameter, click.Option) else [*first, bad]
            with pytest.raises(SystemExit) as left:
                command(words)
            said = capsys.readouterr().err
            assert left.value.code in (0, 1, 2), said
            assert "bug in makegpt" not in said, (words, said)
            if left.value.code:
                assert said.splitlines()[-1].startswith(f"{name}: error: ")


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "RUN", BAD],
        ["generate", "RUN", "a", "--stop", BAD],
        ["generate", "RUN", "--set", f"generate.prompt={BAD}"],
        ["plot", "tokens", "RUN", "--prompt", BAD],
        ["plot", "tokens", "RUN", "--set", f"plot.prompt={BAD}"],
        ["plot", "attention", "RUN", "-o", "x.png", "--prompt", BAD],
    ],
)
def test_a_text_in_a_word_that_is_no_utf_8_is_refused(words: list[str], small: Path, here: Here) -> None:
    words = [str(small / "run") if word == "RUN" else word for word in words]
    assert "character 1" in (said := here(*words, code=2).err) or "character 15" in said or "character 13" in said
    assert "is not valid UTF-8; check the terminal's encoding" in said


def test_a_line_that_is_no_text_does_not_end_a_conversation(small: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = BOM + b"To\r\n\xff\nbe\0\nTo"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
    done = here("generate", small / "run", "--interactive", "--max-new-tokens", 1, "--temperature", 0)
    assert "the prompt: byte 0 (0xff) is not valid UTF-8" in done.err
    assert "the prompt looks like a binary file" in done.err
    one = here("generate", small / "run", "To", "--max-new-tokens", 1, "--temperature", 0).out
    assert done.out == one * 2


@pytest.mark.parametrize(("stop", "hint"), [("\\n", True), ("a\\t", True), ("\\x0a", True), ("\n", False), ("a\\ b", False)])
def test_a_stop_with_an_escape_is_explained(stop: str, hint: bool, small: Path, here: Here) -> None:
    said = here("generate", small / "run", "a", "--max-new-tokens", 1, "--stop", stop).err
    assert ("is a backslash and" in said) == hint


# What is replaced, what is twice, what encoding it is.


@pytest.mark.parametrize(
    ("content", "count"),
    [(b"caf\xe9 \xff\xfe ok", 3), ("\ufffd genuine".encode(), 0), (b"\xe2\x82 \xef\xbf\xbd\xe2", 3), (b"ab\xed\xa0\x80", 3)],
)
def test_replaced_bytes_are_counted(content: bytes, count: int) -> None:
    for before in (0, PIECE_BYTES - 3, PIECE_BYTES - 2, PIECE_BYTES - 1):
        counter = ReadCounter()
        list(decode_utf8(io.BytesIO(b"x" * before + content), "name", "replace", counter=counter))
        assert counter.replaced == count


def test_replaced_bytes_are_reported_and_progress_counts_bytes_read(tmp_path: Path, here: Here) -> None:
    (tmp_path / "latin").write_bytes(b"\xe9" * 200 + b"abc")
    done = here(
        "tokenize", tmp_path / "latin", "-o", tmp_path / "T", "--tokenizer", "bytes", "--set", "tokenize.errors=replace"
    )
    assert "replaced 200 bytes that are not valid UTF-8" in done.err
    read: list[int] = []
    list(open_document(tmp_path / "latin").pieces("replace", ReadCounter(read.append)))
    assert sum(read) == 203


def test_a_file_that_is_named_twice_is_reported_and_listed(tmp_path: Path, here: Here) -> None:
    one, link = tmp_path / "one.txt", tmp_path / "link.txt"
    one.write_bytes(PLAIN)
    link.symlink_to("one.txt")
    said = here("tokenize", one, link, one, "-o", tmp_path / "T", "--tokenizer", "bytes").err
    assert f"{link} is the same file as {one}" in said
    assert f"{one} is named twice" in said
    manifest = read_manifest(tmp_path / "T", "tokens")
    assert manifest.inputs[str(one)].documents == [1, 3]
    assert list(manifest.inputs) == [str(one), str(link)]
    assert "one.txt" in here("inspect", tmp_path / "T").out
    here("inspect", tmp_path / "T", "--verify")
    assert "- is named more than once; stdin can be read once" in here("tokenize", "-", "-", "-o", tmp_path / "U", code=2).err


@pytest.mark.parametrize("sample", ["To be, or not to be", "Être ou ne pas être", "Быть или не быть, to be"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-16", "utf-32"])
def test_wide_encodings_are_named_with_and_without_a_mark(encoding: str, sample: str) -> None:
    head = sample.encode(encoding)
    if "16-" in encoding and sample.startswith("Б"):
        return  # without a mark every second byte of it is 4, not 0
    assert detect_encoding(head) == encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
    assert detect_encoding(sample.encode()) is None


# Where a text begins, and where it may be cut.


def test_a_text_may_begin_with_the_end_of_the_text_before_it(small: Path, here: Here) -> None:
    words = WordTokenizer.train([["to be"]], Path())
    assert encode_prompt(words, None, from_endoftext=True).ids == [words.endoftext]
    assert encode_prompt(words, "to", from_endoftext=True).ids == [words.endoftext, *words.encode("to")]
    assert encode_prompt(words, "to").ids == words.encode("to")
    assert "has no <|endoftext|>" in here("generate", small / "run", "a", "--from-endoftext", code=2).err


def test_gpt2_reads_a_line_without_blanks_piece_by_piece_and_exactly(fetched: Callable[[str], Path]) -> None:
    gpt2 = make_tokenizer("gpt2", [], fetched("gpt2"))
    draw = random.Random(1)
    alphabet = ["ab", "Tо", "12", "½", "'s", "'ll", "'", "''", "。", "一", "…", "_", "^", "\xa0", "e\u0301", "ー", "😀", "."]
    for _ in range(300):
        pieces = ["".join(draw.choices(alphabet, k=draw.randint(1, 12))) for _ in range(draw.randint(1, 6))]
        cut = list(cut_at_blanks(pieces, _BORDER))
        assert "".join(cut) == "".join(pieces)
        assert [id for piece in cut for id in gpt2.encode(piece)] == gpt2.encode("".join(pieces)), pieces
    lengths = [len(piece) for piece in cut_at_blanks(["acgt7" * 100] * 50, _BORDER)]
    assert max(lengths) <= 1000
