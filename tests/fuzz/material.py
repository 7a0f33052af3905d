"""A small whole of everything that is read, to be damaged: artifacts made by the stages, and a few files written by hand."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any, Callable

from lib.artifact.manifest import MANIFEST
from lib.huggingface.tokenizer import to_hf_tokenizer
from lib.run.folder import EVALUATION_FILE
from lib.tokenizer.bpe import BPETokenizer
from lib.tokenizer.byte_alphabet import BYTE_OF, byte_string
from lib.tokenizer.bytes_ import BytesTokenizer
from lib.tokenizer.char import CharTokenizer
from lib.tokenizer.gpt2 import GPT2Tokenizer
from lib.tokenizer.sentencepiece import CONTROL, NORMAL, UNKNOWN
from lib.tokenizer.unigram_tokenizer import UnigramTokenizer
from lib.tokenizer.word import WordTokenizer
from tests.tokenizer.cut_models import field, varint
from tests.tokenizer.test_sentencepiece import rules

_PARAMS = """defaults:
  train:
    learning_rate: 3e-4
    max_steps: 100
  model:
    drop_rate: 0.1  # a comment
configs:
  small:
    train:
      seed: 2
    model:
      n_layers: 1
  other:
    extends: small
wheels:
  plays==3.0.0:
    sha256: 00ff
inputs:
  play:
    about: a play
    license: public
    files:
      play.txt: "00ff"
    wheel: plays==3.0.0
    member: "plays/{stem}.md"
"""
_STUDY = """shapes:
  paired: true
  dataset: play
  changes:
    - &base
      train.max_steps: 30
    - train.seed: [1, 2]
  runs:
    - {config: debug, step_seconds: 1.5, run_seconds: 7}
again:
  dataset: play
  changes: *base
  runs:
    - {config: debug, step_seconds: 1, run_seconds: 7, model.n_layers: [1, 2]}
"""
_REFERENCES = """ids-dog:
  measures: GPT-2's ids of "The dog"
  expected: [464, 3290]
  source: somebody
  check: ids
  with: {text: The dog}
loss:
  measures: a loss
  expected: 3.25
  tolerance: 0.01
  source: somebody
  not_checked: it takes days
"""
_RESULTS: dict[str, Any] = {
    "about": {"dates": ["2026-01-01"], "commits": ["abc"], "processors": ["one"], "versions": {"torch": ["2"]}},
    "runs": [
        {
            **dict.fromkeys(("experiment", "config", "dataset", "date", "model_sha256"), "a"),
            **dict.fromkeys(("layers", "width", "seed", "parameters", "in_blocks", "in_embeddings"), 1),
            **dict.fromkeys(("steps", "tokens", "operations", "best_step", "threads"), 1),
            **dict.fromkeys(("learning_rate", "drop_rate", "weight_decay", "loss", "bits_per_byte", "top_1"), 1.5),
            "seconds": 1.0,
            "curve": [[1, 2.5]],
            "standard_error": dict.fromkeys(("loss", "perplexity", "bits_per_byte", "top_1", "top_5"), 0.1),
            "baselines": {"bigram": 2.5},
            "versions": {"torch": "2"},
            "behind_best": {"loss": 0.1, "standard_error": None, "blocks": 3, "significant": None},
        }
    ],
}


def make(folder: Path, stage: Callable[..., Any]) -> None:
    """Fill `folder`; `stage` runs a stage by its name."""
    joined = GPT2Tokenizer([*(bytes([byte]) for byte in BYTE_OF.values()), b"th", b"the"])
    learned = BPETokenizer.train([["the cat and the hat"]], vocab_size=262)
    for made in (
        joined,
        learned,
        UnigramTokenizer.train([["the cat and the hat. " * 5]], vocab_size=275),
        CharTokenizer("\n ab"),
        WordTokenizer(["a", "b", "<|endoftext|>", "<unk>"]),
        BytesTokenizer(),
    ):
        (folder / made.kind).mkdir()
        made.save(folder / made.kind / "tokenizer.json")

    text = folder / "play.txt"
    text.write_text("To be, or not to be, that is the question.\n" * 20, encoding="utf-8")
    shape = ["--config", "debug", "--set", "model.context_length=8"]
    sizes = [
        *shape,
        *(f"--set=model.{size}" for size in ("emb_dim=4", "n_layers=1", "n_heads=2", "tie_weights=true", "qkv_bias=true")),
    ]
    steps = [f"--set=train.{change}" for change in ("max_steps=4", "eval_interval=2", "batch_size=2", "sample_tokens=4")]
    stage("tokenize", text, "-o", folder / "tokens", "--tokenizer", folder / "gpt2")
    stage("build-dataset", folder / "tokens", "-o", folder / "dataset", *shape)
    stage("train", folder / "dataset", "-o", folder / "run", *sizes, *steps)
    stage("evaluate", folder / "run", "-o", folder / "run" / EVALUATION_FILE)
    modern = [f"model.{option}" for option in ("positions=rotary", "norm=rms", "feed_forward=swiglu", "rope_factor=2")]
    options = [word for option in modern for word in ("--set", option)]
    stage("train", folder / "dataset", "-o", folder / "modern", *sizes, *steps, *options)
    for run, name in (("run", "theirs"), ("modern", "llama")):
        stage("export-weights", folder / run, "-o", folder / name)
        (folder / name / MANIFEST).unlink()  # as others write it

    files: dict[str, str] = {
        "tasks.jsonl": '{"prompt": "to", "choices": [" be", " not"], "answer": 0, "group": "x"}\n'
        '{"sentence_good": "to be", "sentence_bad": "be to", "linguistics_term": "order"}\n',
        "prompts.jsonl": '"to be"\n{"prompt": "not", "more": [1, 2.5]}\n',
        "ids": "84 111 32 98 101",
        "set": "train.learning_rate=1e-4",
        "params.yaml": _PARAMS,
        "study.yaml": _STUDY,
        "references.yaml": _REFERENCES,
        "results.json": json.dumps(_RESULTS),
    }
    theirs = to_hf_tokenizer(joined)
    assert theirs is not None
    model = theirs["tokenizer.json"]["model"]
    files["vocab.bpe"] = "#version: 0.2\n" + "".join(f"{' '.join(join)}\n" for join in model["merges"])
    files["encoder.json"] = json.dumps(
        {byte_string(token): id for id, token in enumerate(joined.tokens)} | {"<|endoftext|>": 258}
    )
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")

    (folder / "pieces.model").write_bytes(_sentencepiece())

    sharded = folder / "sharded"
    shutil.copytree(folder / "theirs", sharded)
    (sharded / "model.safetensors").rename(sharded / "model-00001-of-00001.safetensors")
    (sharded / "tokenizer.json").rename(sharded / "vocab.json")
    shutil.copyfile(folder / "encoder.json", sharded / "vocab.json")
    shutil.copyfile(folder / "vocab.bpe", sharded / "merges.txt")
    index = {"metadata": {"total_size": 1}, "weight_map": {"wte.weight": "model-00001-of-00001.safetensors"}}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))


def _sentencepiece() -> bytes:
    """A Unigram model of a few pieces, with rules that normalize texts."""
    typed = [("<unk>", UNKNOWN), ("</s>", CONTROL), ("▁", NORMAL), ("a", NORMAL), ("▁a", NORMAL), ("b", NORMAL)]
    pieces = [
        field(1, name.encode()) + varint(2 << 3 | 5) + struct.pack("<f", -id) + field(3, type)
        for id, (name, type) in enumerate(typed)
    ]
    normalizer = field(1, b"own") + field(2, rules({"A": "a"})) + field(3, 1) + field(4, 0) + field(5, 1)
    return b"".join(field(1, piece) for piece in pieces) + field(2, field(3, 1) + field(42, 1)) + field(3, normalizer)
