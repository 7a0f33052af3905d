"""Damaged and hostile folders through the real commands, and the kinds of damage that a random input seldom has."""

import json
import os
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from lib.artifact.io import read_json
from lib.artifact.manifest import (
    MANIFEST,
    FileDigest,
    Input,
    describe_files,
    identity_of,
    new_manifest,
    read_manifest,
    write_manifest,
)
from lib.artifact.strict_json import MAX_BYTES, loads_json
from lib.artifact.tensors import load_tensors
from lib.config.strict_yaml import read_yaml
from lib.data.shards import open_shard
from lib.errors import MakegptError, one_line
from lib.huggingface.files import HF_CONFIG_FILE
from lib.run.folder import MODEL_FILE, load_run
from lib.run.lineage import describe_artifact
from lib.run.state import CHECKPOINT_FOLDER, STATE_FILE
from tests.conftest import Here

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(PLAIN)
def test_what_is_json_is_read_as_it_was_written(data: Any) -> None:
    assert loads_json(json.dumps(data)) == data
    assert loads_json(json.dumps(data, ensure_ascii=False).encode()) == data


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": 1, "a": 2}', "duplicate key 'a'"),
        (b"[NaN]", "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"[1e999]", "1e999 is too large"),
        (b"[" + b"9" * 400 + b"]", "is too large"),
        (b"[" * 65 + b"]" * 65, "more than 64 levels"),
        (b"[" * 100_000, "more than 64 levels"),
        (b'"\xff"', "byte 1 is not valid UTF-8"),
        (b'"\xed\xa0\x80"', "not valid UTF-8"),
        ("[1]".encode("utf-16"), "not valid UTF-8"),
        (b"", "not valid JSON"),
        (b" " * (MAX_BYTES + 1), "longer than 64 MB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_json_is_refused_in_words(content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        loads_json(content)


def test_a_whole_number_of_more_than_64_bits_is_no_whole_number() -> None:
    for number in (2**63 - 1, -(2**63), 0):
        assert (loads_json(str(number)), type(loads_json(str(number)))) == (number, int)
    for number in (2**63, -(2**63) - 1, 10**30):
        assert type(loads_json(str(number))) is float


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(MakegptError, match="it is not a file"):
        read_json(tmp_path / "config.json")


def test_a_message_is_one_line_of_bounded_length_that_no_terminal_obeys() -> None:
    message = str(MakegptError("a\x1b[31m\x07\r\nb\u202ec\udcff" + "x" * 10**6 + "; do this"))
    assert message.startswith("a\\x1b[31m\\x07 b\\u202ec\\udcff")
    assert message.endswith("; do this")
    assert len(message) < 1100
    assert message == one_line(message)
    assert one_line("naïve — 😀 „ок“") == "naïve — 😀 „ок“"


DAMAGES = [
    ("evaluate", "config.json", "emb_dim", 10**8, "does not fit the model in its config.json"),
    ("generate", "config.json", "n_layers", 4000, "tensors are no 4000 blocks"),
    ("generate", "config.json", "n_layers", 10**9, "n_layers=1000000000 must be between 1 and 4096"),
    ("evaluate", "config.json", "context_length", 10**6, "does not fit the model"),
    ("generate", "config.json", "vocab_size", 2**32, "the tokenizer has 256 tokens"),
    ("evaluate", "config.json", "n_heads", 7, "must be divisible by"),
    ("generate", "config.json", "kind", "\x1b[31mgpt", "\\x1b[31mgpt is unknown"),
]


@pytest.mark.parametrize(("name", "file", "key", "value", "said"), DAMAGES, ids=[f"{d[2]}={d[3]!r}" for d in DAMAGES])
def test_a_config_that_claims_another_model_is_refused_before_it_takes_memory(
    copied: Path, here: Here, name: str, file: str, key: str, value: Any, said: str
) -> None:
    folder = copied / "run"
    saved = json.loads((folder / file).read_bytes())
    saved["model"][key] = value
    (folder / file).write_text(json.dumps(saved))
    listed(folder, file)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code = 2 if "must be" in said or "unknown" in said else 1
    line = here(name, folder, *(["a"] if name == "generate" else []), code=code).err
    assert said in line
    assert str(folder) in line
    assert line.count("\n") == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


def listed(folder: Path, *names: str) -> None:
    """Have the manifest of `folder` list these files as they are now."""
    manifest = read_manifest(folder, None)
    write_manifest(folder, replace(manifest, outputs=manifest.outputs | describe_files(folder, names)))


def changed(folder: Path, **parts: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_text(json.dumps(manifest | parts))


@pytest.mark.parametrize("name", ["../run/config.json", "/etc/passwd", "..", "a\x00b", ""])
def test_a_manifest_that_lists_a_file_outside_of_its_folder_is_refused(copied: Path, here: Here, name: str) -> None:
    changed(copied / "tokens", outputs={name: {"bytes": 1, "sha256": "00"}})
    line = here("inspect", copied / "tokens", "--verify", code=1).err
    assert "which is not a file of this folder" in line
    assert line.count("\n") == 1


def test_artifacts_that_were_made_from_each_other_are_refused(copied: Path, here: Here) -> None:
    tokens, dataset = copied / "tokens", copied / "dataset"
    identity = identity_of(read_manifest(dataset, "dataset"))
    changed(tokens, inputs={"../dataset": {"identity": identity}})
    for words in ([dataset], [dataset, "--verify"], [copied / "run"]):
        line = here("inspect", *words, code=1).err
        assert "was made from itself" in line
        assert line.count("\n") == 1


def test_a_way_back_that_branches_without_end_is_refused(tmp_path: Path) -> None:
    """Twenty layers of two artifacts, each made from both of the layer before: a million ways back."""
    outputs = {"a": FileDigest(0, "00")}
    empty = new_manifest("run", "merge", parameters={}, inputs={}, outputs=outputs, metadata={}, started="")
    identity = Input(identity=identity_of(empty))
    for layer in range(20):
        for side in "ab":
            folder = tmp_path / f"{layer}{side}"
            folder.mkdir()
            before = {f"../{layer - 1}{each}": identity for each in "ab"} if layer else {}
            write_manifest(folder, replace(empty, inputs=before))
    with pytest.raises(MakegptError, match="too many artifacts"):
        describe_artifact(tmp_path / "19a")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("manifest.json", b"[" * 100_000, "more than 64 levels"),
        ("manifest.json", b"\x1b]0;owned\x07", "not valid JSON"),
        ("checkpoint/state.json", b'{"step": -1}', "state.json is damaged: step must be a whole number of at least 0"),
        ("config.json", b"[]", "describes no model"),
        ("tokenizer.json", b'{"kind": "gpt2", "tokens": ["YQ==", "YQ=="]}', "its vocabulary cannot be read"),
        ("tokenizer.json", b'{"kind": ["gpt2"]}', "is not a makegpt tokenizer"),
        ("model.safetensors", b"\xff" * 64, "cannot be read as safetensors"),
        ("metrics.jsonl", b"{}\n", "metrics.jsonl is damaged: line 1: step is missing; train the run again"),
    ],
)
def test_a_damaged_run_is_told_by_the_command_that_reads_it(
    copied: Path, here: Here, name: str, content: bytes, said: str
) -> None:
    folder = copied / "run"
    (folder / name).write_bytes(content)
    if name in read_json(copied / "dataset" / MANIFEST) or (name != "manifest.json" and "/" not in name):
        listed(folder, name)
    words: dict[str, list[Any]] = {
        "checkpoint/state.json": ["generate", folder, "a", "--weights", "last"],
        "metrics.jsonl": ["plot", "loss", folder, "-o", copied / "loss.png"],
    }
    command, *rest = words.get(name, ["generate", folder, "a"])
    line = here(command, *rest, code=1).err
    assert said in line
    assert line.count("\n") == 1
    assert line.isprintable() or line.rstrip("\n").isprintable()


def test_a_resumed_training_refuses_a_state_that_is_damaged(copied: Path, here: Here) -> None:
    folder = copied / "run"
    (folder / MODEL_FILE).unlink()
    state = folder / CHECKPOINT_FOLDER / STATE_FILE
    state.write_text(json.dumps(json.loads(state.read_bytes()) | {"step": True}))
    parameters = json.loads((folder / MANIFEST).read_bytes())["parameters"]["train"]
    sets = [word for key, value in parameters.items() if value is not None for word in ("--set", f"train.{key}={value}")]
    line = here("train", copied / "dataset", "-o", folder, "--config", "debug", *sets, code=1).err.splitlines()[-1]
    assert "state.json is damaged: step must be a whole number; start over" in line


@pytest.mark.parametrize("shape", ["(1000000000000000,)", "(-1,)", "(True,)", "(1, 2)", "(9**9**9,)"])
def test_a_shard_that_claims_another_size_is_refused(tmp_path: Path, shape: str) -> None:
    np.save(tmp_path / "a.npy", np.arange(9, dtype=np.uint16))
    assert open_shard(tmp_path / "a.npy").tolist() == list(range(9))
    content = (tmp_path / "a.npy").read_bytes()
    header = f"{{'descr': '<u2', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    (tmp_path / "a.npy").write_bytes(content[:10] + header + content[128:])
    with pytest.raises(MakegptError, match=r"a\.npy"):
        open_shard(tmp_path / "a.npy")


def test_weights_of_another_type_are_refused(copied: Path) -> None:
    path = copied / "run" / MODEL_FILE
    tensors, metadata = load_tensors(path)
    save_file({name: tensor.to(torch.int64) for name, tensor in tensors.items()}, path, {"makegpt": json.dumps(metadata)})
    listed(copied / "run", MODEL_FILE)
    with pytest.raises(MakegptError, match=r"torch.int64, not torch.float32"):
        load_run(copied / "run", torch.device("cpu"))


def test_a_foreign_config_of_a_billion_blocks_is_refused_at_once(tmp_path: Path, here: Here) -> None:
    save_file({"wte.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    sizes = {"vocab_size": 2, "n_positions": 2, "n_embd": 2, "n_head": 1, "n_layer": 4000}
    (tmp_path / HF_CONFIG_FILE).write_text(json.dumps({"model_type": "gpt2", **sizes}))
    (tmp_path / "tokenizer.json").write_text(json.dumps({"kind": "char", "characters": "ab"}))
    assert "1 tensors are too few for 4000 blocks" in here("import-weights", tmp_path, "-o", tmp_path / "run", code=1).err


BOMB = "a: &a [x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "at most 100000 values"),
        ("a: &a {b: *a}", "at most 100000 values"),
        ("a: " + "[" * 50_000, "brackets are nested more than 20 deep"),
        ("".join(" " * n + "a:\n" for n in range(600)), "nested too deeply"),
        ('a: "\\UFFFFFFFF"', "not valid YAML"),
        ("a: b\n" * 100_000, "at most 262144 characters"),
    ],
    ids=["aliases", "an alias of itself", "brackets", "blocks", "no character", "length"],
)
def test_yaml_that_stands_for_more_than_it_says_is_refused(text: str, said: str) -> None:
    with pytest.raises(MakegptError, match=said):
        read_yaml(text, "params.yaml")


def test_a_nul_character_on_the_command_line_is_refused(here: Here) -> None:
    for name in ("inspect", "evaluate", "tokenize", "train"):
        assert "an argument contains a NUL character" in here(name, "a\0b", code=2).err


def test_what_is_shown_of_an_artifact_moves_no_cursor(copied: Path, here: Here) -> None:
    changed(copied / "tokens", metadata={"\x1b[2Jname": "\x1b]0;owned\x07", "list": [{}, 1], "more": [{}]})
    shown = here("inspect", copied / "tokens").out
    assert "\x1b" not in shown
    assert "\\x1b]0;owned\\x07" in shown
