"""The readers under test: for each the files that it reads, how they are damaged, and the calls that a stage makes."""

import copy
import io
import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, Callable

import torch

from lib.artifact.manifest import MANIFEST
from lib.config.params import config_names, load_params, resolve_config
from lib.config.strict_yaml import YamlTree
from lib.data.corpus import decode_ids
from lib.data.dataset import Dataset
from lib.data.downloads import load_inputs
from lib.data.shards import Tokens
from lib.evaluate.choices import encode_item, read_items
from lib.evaluate.comparison import comparison_rows, comparison_table
from lib.evaluate.results import read_evaluation
from lib.generate.request import encode_prompt, read_prompts
from lib.huggingface.convert import _tokenizer, from_hf_config
from lib.huggingface.files import HF_CONFIG_FILE, open_tensors, weight_files
from lib.huggingface.layout import read_weights
from lib.report.run_data import read_run_data
from lib.reproduce.checks import CHECKS
from lib.reproduce.references import load_references
from lib.run.folder import dataset_folder, load_run
from lib.run.lineage import describe_artifact, lineage_lines, verify_lineage
from lib.run.metrics import read_metrics, training_seconds
from lib.run.samples import read_samples
from lib.run.state import read_state
from lib.study.results import read_results
from lib.study.sweep import load_study
from lib.tokenizer.base import Tokenizer, UnknownText
from lib.tokenizer.gpt2 import GPT2Tokenizer, read_released
from lib.tokenizer.registry import load_tokenizer, make_tokenizer  # fmt: skip
from tests.fuzz import mutation

Damage = Callable[[Random, bytes], bytes]


@dataclass(frozen=True)
class Reader:
    """`files` are what is damaged, by their name in the folder that `read` gets. `weight`: its share of the inputs."""

    name: str
    files: dict[str, Damage]
    read: Callable[[Path], Any]
    weight: float = 2
    listed_in: str | None = None  # the artifact whose manifest lists the files


def _tokens(folder: Path) -> None:
    tokens = Tokens(folder / "tokens")
    tokens.read(0, min(4, len(tokens)))
    _use(tokens.load_tokenizer())


def _use(made: Tokenizer) -> None:
    with suppress(UnknownText):
        made.decode_bytes(encode_prompt(made, "a b").ids)
    made.decode_bytes([0, made.vocab_size - 1])
    made.byte_lengths()
    made.identity()


def _dataset(folder: Path) -> None:
    data = Dataset(folder / "dataset")
    data.batch(0, 0, 2)
    data.identity()


def _run(folder: Path) -> None:
    load_run(folder / "run", torch.device("cpu"))


def _last(folder: Path) -> None:
    read_state(folder / "run")
    load_run(folder / "run", torch.device("cpu"), "last")


def _lines(folder: Path) -> None:
    training_seconds(folder / "run")
    read_samples(folder / "run")
    read_metrics(folder / "run")


def _manifest(folder: Path) -> None:
    for path in (folder / "run" / "model.safetensors", folder / "tokens" / "shard-00000.npy", folder / "run"):
        lineage_lines(describe_artifact(path))
    verify_lineage(folder / "run")
    read_run_data(folder / "run", 1)
    dataset_folder(folder / "run")


def _evaluation(folder: Path) -> None:
    read_evaluation(folder / "run")
    comparison_table(comparison_rows([folder / "run"]))


def _import(source: Path) -> None:
    """All that import-weights reads; nothing is written."""
    with open_tensors(weight_files(source)) as held:
        layout, config = from_hf_config(source / HF_CONFIG_FILE)
        _tokenizer(source, config)
        read_weights(layout, held, config, source)


def _hugging_face(folder: Path) -> None:
    _import(folder / "theirs")


def _sharded(folder: Path) -> None:
    _import(folder / "sharded")


def _tasks(folder: Path) -> None:
    for item in read_items(folder / "tasks.jsonl"):
        encode_item(item, _BYTES, [10], 32)


def _prompts(folder: Path) -> None:
    list(read_prompts(io.BytesIO((folder / "prompts.jsonl").read_bytes()), _BYTES, str(folder)))


def _ids(folder: Path) -> None:
    list(decode_ids(io.BytesIO((folder / "ids").read_bytes()), _BYTES))


def _params(folder: Path) -> None:
    tree = load_params(folder / "params.yaml")
    load_inputs(tree)
    said, tree["defaults"] = tree["defaults"], copy.deepcopy(_tree()["defaults"])
    for section, values in said.items():
        known = tree["defaults"].get(section)
        tree["defaults"][section] = known | values if isinstance(known, dict) and isinstance(values, dict) else values
    for name in (None, *config_names(tree)):
        resolve_config(tree, name)


def _set(folder: Path) -> None:
    resolve_config(_tree(), "debug", [(folder / "set").read_bytes().decode("utf-8", "replace")])


def _study(folder: Path) -> None:
    load_study(folder / "study.yaml")


def _references(folder: Path) -> None:
    load_references(CHECKS, folder / "references.yaml")


def _results(folder: Path) -> None:
    read_results(folder / "results.json")


def _released(folder: Path) -> None:
    GPT2Tokenizer(read_released(folder / "vocab.bpe", folder / "encoder.json"))  # type: ignore[attr-defined]


_BYTES = make_tokenizer("bytes", [], Path())
_TREE: list[YamlTree] = []


def _tree() -> YamlTree:
    if not _TREE:
        _TREE.append(load_params())
    return _TREE[0]


_JSON, _LINES, _YAML, _BINARY = mutation.json_text, mutation.json_lines, mutation.yaml_text, mutation.raw_bytes

_MODEL = mutation.safetensors


def _kind(kind: str, weight: float) -> Reader:
    return Reader(
        f"tokenizer-{kind}", {f"{kind}/tokenizer.json": _JSON}, lambda folder: _use(load_tokenizer(folder / kind)), weight
    )


READERS = [
    Reader("tokens", {"manifest.json": _JSON, "tokenizer.json": _JSON, "shard-00000.npy": mutation.npy}, _tokens, 3, "tokens"),
    Reader("dataset", {"manifest.json": _JSON, "dataset.json": _JSON}, _dataset, 2, "dataset"),
    Reader(
        "run",
        {"manifest.json": _JSON, "config.json": _JSON, "tokenizer.json": _JSON, "model.safetensors": _MODEL},
        _run,
        1,
        "run",
    ),
    Reader("state", {"run/checkpoint/state.json": _JSON}, _last),
    Reader("lines", {"run/metrics.jsonl": _LINES, "run/timings.jsonl": _LINES, "run/samples.jsonl": _LINES}, _lines, 4),
    Reader("inspect", {"manifest.json": _JSON}, _manifest, 0.5, "run"),
    Reader("evaluation", {"run/evaluation.json": _JSON}, _evaluation, 0.5),
    _kind("gpt2", 1),
    *(_kind(kind, 4) for kind in ("bpe", "unigram", "char", "word", "bytes")),
    Reader(
        "hugging-face",
        {"theirs/config.json": _JSON, "theirs/tokenizer.json": _JSON, "theirs/model.safetensors": _MODEL},
        _hugging_face,
        1,
    ),
    Reader("llama", {"llama/config.json": _JSON}, lambda folder: _import(folder / "llama"), 1),
    Reader(
        "shards-of-weights",
        {"sharded/model.safetensors.index.json": _JSON, "sharded/vocab.json": _JSON, "sharded/merges.txt": _BINARY},
        _sharded,
        0.5,
    ),
    Reader("prompts", {"prompts.jsonl": _LINES}, _prompts, 8),
    Reader("tasks", {"tasks.jsonl": _LINES}, _tasks, 8),
    Reader("ids", {"ids": mutation.words}, _ids, 5),
    Reader("params.yaml", {"params.yaml": _YAML}, _params, 1),
    Reader("--set", {"set": mutation.words}, _set, 5),
    Reader("study.yaml", {"study.yaml": _YAML}, _study, 1),
    Reader("references.yaml", {"references.yaml": _YAML}, _references, 1),
    Reader("results", {"results.json": _JSON}, _results),
    Reader(
        "sentencepiece",
        {"pieces.model": mutation.protocol_buffer},
        lambda folder: _use(load_tokenizer(folder / "pieces.model")),
        2,
    ),
    Reader("released-vocabulary", {"vocab.bpe": _BINARY, "encoder.json": _JSON}, _released, 1),
]


class Damager:
    """Damages one file of a reader at a time in `folder`, which is a copy of `whole`."""

    def __init__(self, reader: Reader, whole: Path, folder: Path) -> None:
        shutil.copytree(whole, folder)
        self._reader, self._folder = reader, folder
        self._listing = folder / reader.listed_in / MANIFEST if reader.listed_in else None
        self._whole = {path: path.read_bytes() for path in map(self._path, (*reader.files, MANIFEST)) if path.is_file()}
        self._changed: set[Path] = set()

    def _path(self, name: str) -> Path:
        return self._folder / (self._reader.listed_in or ".") / name

    def damage(self, random: Random) -> None:
        """Mend what was damaged before, then damage a file; the manifest lists it as it is then, mostly."""
        for path in self._changed:
            path.write_bytes(self._whole[path])
        name = random.choice(list(self._reader.files))
        path = self._path(name)
        content = self._reader.files[name](random, self._whole[path])
        path.write_bytes(content)
        self._changed = {path}
        if self._listing and name != MANIFEST and random.random() < 0.9:
            manifest = json.loads(self._whole[self._listing])
            manifest["outputs"][name] = {"bytes": len(content), "sha256": sha256(content).hexdigest()}
            self._listing.write_text(json.dumps(manifest))
            self._changed.add(self._listing)
