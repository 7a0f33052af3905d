"""`make chat`: from conversations, and maybe pretrained weights, to a model that answers, next to the base and to counts."""

import json
import shutil
from pathlib import Path

import pytest

from lib.artifact.io import sha256_of
from lib.artifact.manifest import read_manifest
from lib.pipeline.freshness import Freshness
from lib.pipeline.hashes import Hashes
from lib.pipeline.steps import build_pipeline
from tests.conftest import Here
from tests.pipeline.test_make import ENVIRONMENT, make, project

CONFIGS = """
  tiny:
    extends: debug
    train: {max_steps: 8, eval_interval: 4}
  tuned:
    extends: tiny
    build-dataset: {val_fraction: 0.2, test_fraction: 0.2}
    model: {context_length: 64}
    evaluate: {split: test, ngram_order: 2, passages: 2}
    generate: {prompt: Say a., max_new_tokens: 8, temperature: 0}
  preferring:
    extends: tiny
    build-dataset: {val_fraction: 0.2, test_fraction: 0.2}
    model: {context_length: 64}
    train: {task: dpo, max_steps: 2}
    evaluate: {split: test}
  own:
    extends: debug
    train: {max_steps: 8, eval_interval: 4}
    build-dataset: {val_fraction: 0.2, test_fraction: 0.2}
    model: {context_length: 64}
    evaluate: {split: test, ngram_order: 2, passages: 2}
    generate: {prompt: Say a., max_new_tokens: 8, temperature: 0}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with conversations, pretrained weights called tiny, and the configs above."""
    folder = project(tmp_path_factory.mktemp("chat") / "project")
    lines = [json.dumps({"instruction": f"Say {letter}.", "input": "", "output": letter * 3}) for letter in "abcdefghij" * 2]
    (folder / "data").mkdir()
    (folder / "data" / "talk.jsonl").write_text("\n".join(lines), encoding="utf-8")
    pairs = [json.loads(line) for line in lines]
    pairs = [{**pair, "chosen": pair["output"], "rejected": pair["output"][:1]} for pair in pairs]
    (folder / "data" / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    entry = "  {}:\n    about: a test\n    license: none\n{}    files:\n      {}: {}\n"
    talk = entry.format("talk", "    conversations: alpaca\n", "talk.jsonl", sha256_of(folder / "data" / "talk.jsonl"))
    talk += entry.format("pairs", "    conversations: alpaca\n", "pairs.jsonl", sha256_of(folder / "data" / "pairs.jsonl"))
    tiny = entry.format("tiny", "", "tiny/model.safetensors", "0" * 64)
    text = (folder / "params.yaml").read_text(encoding="utf-8")
    text = text.replace("configs:\n", f"configs:{CONFIGS}", 1).replace("inputs:\n", f"inputs:\n{talk}{tiny}", 1)
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def base(folder: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run of the pretrained weights, trained here on the same conversations."""
    run = folder / "artifacts" / "runs" / "tiny"
    if not run.exists():
        monkeypatch.chdir(folder)
        monkeypatch.setenv("MAKEGPT_PARAMS", str(folder / "params.yaml"))
        here("tokenize", "--chat", "--format", "alpaca", "data/talk.jsonl", "-o", "base-tokens", "--config", "tiny")
        context = ("--config", "tiny", "--context-length", 64)
        here("build-dataset", "base-tokens", "-o", "base-dataset", *context)
        here("train", "base-dataset", "-o", run, "--config", "tiny", "--set", "model.context_length=64", "--quiet")
    return run


def reasons_of(folder: Path, config: str, change: str = "", dataset: str = "talk") -> dict[str, str | None]:
    hashes = Hashes(folder / "hashes.json")
    reasons = Freshness(build_pipeline(config, dataset, "", change, hashes), hashes).reasons()
    return {stage: reason for stage, reason in reasons.items() if stage not in ("plot", "report")}


def test_a_training_from_pretrained_weights_is_made_once(folder: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setitem(ENVIRONMENT, "MAKEGPT_PARAMS", str(folder / "params.yaml"))
    monkeypatch.setenv("MAKEGPT_PARAMS", str(folder / "params.yaml"))
    assert all(reasons_of(folder, "tuned").values())
    done = make(folder, "chat", CONFIG="tuned", DATASET="talk")
    run = folder / "artifacts" / "runs" / "tuned-talk"
    assert read_manifest(run, "run").metadata["init_from"] == sha256_of(base / "model.safetensors")
    names = [line.split()[0] for line in done.stdout.splitlines() if line.strip()]
    assert {"tiny", "tuned-talk", "uniform", "bigram"} <= set(names)
    assert (run / "sample.txt").read_text(encoding="utf-8")
    assert not any(reasons_of(folder, "tuned").values())
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("artifacts/**/*") if path.is_file()}
    again = make(folder, "chat", CONFIG="tuned", DATASET="talk")
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("artifacts/**/*") if path.is_file()}
    assert {path for path in after if before.get(path) != after[path]} <= {folder / "artifacts" / "stamps" / "hashes.json"}
    assert again.stdout.splitlines() == done.stdout.splitlines()[-len(again.stdout.splitlines()) :]
    # other pretrained weights: what was made from them is made again
    shutil.copytree(base, folder / "kept")
    manifest = json.loads((base / "manifest.json").read_text())
    manifest["outputs"]["model.safetensors"]["sha256"] = "1" * 64
    (base / "manifest.json").write_text(json.dumps(manifest))
    reasons = reasons_of(folder, "tuned")
    assert reasons["tokenize"] is None
    assert "began with other weights than those of artifacts/runs/tiny" in (reasons["train"] or "")
    assert "of other weights" in (reasons["base"] or "")
    shutil.rmtree(base)
    (folder / "kept").rename(base)


def test_a_training_on_pairs_of_answers_ends_in_a_figure_and_is_made_once(
    folder: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setitem(ENVIRONMENT, "MAKEGPT_PARAMS", str(folder / "params.yaml"))
    monkeypatch.setenv("MAKEGPT_PARAMS", str(folder / "params.yaml"))
    make(folder, "plot", CONFIG="preferring", DATASET="pairs")
    run = folder / "artifacts" / "runs" / "preferring-pairs"
    assert json.loads((run / "evaluation.json").read_text())["moved"]["beta"] == 0.1
    assert (run / "values.png").read_bytes() == (folder / "artifacts" / "plots" / "PREFERRING-pairs.png").read_bytes()
    assert not any(reasons_of(folder, "preferring", dataset="pairs").values())
    assert make(folder, "plot", CONFIG="preferring", DATASET="pairs").stdout.splitlines()[-1:] in (
        [],
        ["make: Nothing to be done for 'plot'."],
    )
    changed = reasons_of(folder, "preferring", "evaluate.split=val", dataset="pairs")
    assert [stage for stage, reason in changed.items() if reason] == ["evaluate"]


def test_a_training_from_random_weights_has_its_own_vocabulary(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setitem(ENVIRONMENT, "MAKEGPT_PARAMS", str(folder / "params.yaml"))
    monkeypatch.setenv("MAKEGPT_PARAMS", str(folder / "params.yaml"))
    make(folder, "chat", CONFIG="own", DATASET="talk")
    run = folder / "artifacts" / "runs" / "own-talk"
    assert "init_from" not in read_manifest(run, "run").metadata
    assert json.loads((run / "tokenizer.json").read_text())["vocab_size"] == 258
    assert not any(reasons_of(folder, "own").values())
    assert "tokenize.format" not in str(reasons_of(folder, "own", "train.seed=2")["tokenize"])
    assert reasons_of(folder, "own", "train.seed=2")["train"]
