"""Training from weights that are there: a fine-tune begins where its source ended, and is as exact as any training."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lib.artifact.io import sha256_of
from lib.artifact.tensors import load_tensors, read_tensor_metadata
from lib.config.schema import Config
from lib.data.dataset import Dataset, build_dataset
from lib.errors import MakegptError, UsageError
from lib.evaluate.evaluation import evaluate
from lib.evaluate.span import dataset_span
from lib.run.folder import MODEL_FILE, dataset_folder, finished_manifest, load_run
from lib.run.metrics import StepMetrics, read_metrics
from lib.tokenizer.registry import load_tokenizer
from lib.train.session import train_run
from tests.conftest import TINY, Here
from tests.device.test_distributed import train_forked
from tests.train.test_loop import CPU, config, outcome


def train(
    folder: Path,
    data: Path,
    made: Config,
    init_from: Path | None,
    *,
    resume: bool = True,
    stop_after: int | None = None,
    **model: Any,
) -> list[Any]:
    steps = 0

    def asked() -> bool:
        nonlocal steps
        steps += 1
        return steps == stop_after

    chosen = dataclasses.replace(made.model, **model)
    settings: dict[str, Any] = {"resume": resume, "started": "now", "stop_asked": asked, "init_from": init_from}
    return list(train_run(folder, Dataset(data), chosen, made.train, CPU, **settings))


def begun_with(events: list[Any]) -> float:
    """The validation loss before the first step."""
    return next(event.val_loss for event in events if isinstance(event, StepMetrics) and event.step == 0)


@pytest.fixture(scope="module")
def tuned(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that began with the weights of small/run."""
    folder = tmp_path_factory.mktemp("tuned") / "run"
    train(folder, small / "dataset", config(seed=2), small / "run")
    return folder


def test_it_begins_with_the_loss_the_source_ended_with(small: Path, tmp_path: Path) -> None:
    events = train(tmp_path / "run", small / "dataset", config(seed=2), small / "run", stop_after=1)
    source = load_run(small / "run", CPU)
    stretch = dataset_span(small / "run", source, Dataset(small / "dataset"), "val")
    loss = evaluate(source, stretch, CPU).loss
    assert begun_with(events) == pytest.approx(loss, rel=1e-5)
    random = train(tmp_path / "random", small / "dataset", config(seed=2), None, stop_after=1)
    assert begun_with(random) > loss + 0.1


def test_the_run_tells_what_it_began_with(tuned: Path, small: Path, here: Here) -> None:
    sha256 = sha256_of(small / "run" / MODEL_FILE)
    assert finished_manifest(tuned).metadata["init_from"] == sha256
    assert read_tensor_metadata(tuned / MODEL_FILE)["init_from"] == sha256
    told = json.loads(here("inspect", tuned, "--json").out)
    assert [each["is"] for each in told["from"]] == ["dataset", "run"]
    assert dataset_folder(tuned).resolve() == (small / "dataset").resolve()
    verified = here("inspect", tuned, "--verify").err
    assert f"{small / 'run'}: every file is as it was written" in verified


@pytest.mark.parametrize("stop_after", [1, 7])
def test_a_stopped_fine_tune_goes_on_to_the_same_bytes_without_the_sources_weights(
    small: Path, tuned: Path, tmp_path: Path, stop_after: int
) -> None:
    source = Path(shutil.copytree(small / "run", tmp_path / "source"))
    train(tmp_path / "run", small / "dataset", config(seed=2), source, stop_after=stop_after)
    os.truncate(source / MODEL_FILE, 0)
    train(tmp_path / "run", small / "dataset", config(seed=2), source)
    assert outcome(tmp_path / "run") == outcome(tuned)


def test_a_source_whose_weights_are_damaged_is_refused_where_they_are_needed(small: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(small / "run", tmp_path / "source"))
    os.truncate(source / MODEL_FILE, 100)
    with pytest.raises(MakegptError, match=r"source/model.safetensors is damaged"):
        train(tmp_path / "run", small / "dataset", config(), source)
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_other_weights_to_begin_with_begin_anew_and_it_is_said(small: Path, tuned: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(folder, small / "dataset", config(seed=2), small / "run", stop_after=5)
    for other in (None, tuned):
        notice, *rest = train(folder, small / "dataset", config(seed=2), other, stop_after=1)
        assert "(other initial weights); starting over" in notice.text
        assert any(isinstance(event, StepMetrics) and event.step == 0 for event in rest)
    (notice,) = train(tuned, small / "dataset", config(seed=2), small / "run")
    assert "is finished already" in notice.text


def test_what_its_weights_do_not_depend_on_may_differ(small: Path, tmp_path: Path) -> None:
    changes = {"drop_rate": 0.1, "attention_impl": "naive", "layer_impl": "naive"}
    events = train(tmp_path / "run", small / "dataset", config(), small / "run", stop_after=1, **changes)
    plain = train(tmp_path / "plain", small / "dataset", config(), small / "run", stop_after=1)
    assert begun_with(events) == pytest.approx(begun_with(plain), rel=1e-5)


def windows(small: Path, tmp_path: Path, context_length: int) -> Path:
    settings: dict[str, Any] = {"stride": None, "val_fraction": 0.1, "started": "now"}
    build_dataset(small / "tokens", tmp_path / "windows", context_length=context_length, **settings)
    return tmp_path / "windows"


def test_a_shorter_context_takes_the_first_positions(small: Path, tmp_path: Path) -> None:
    short = windows(small, tmp_path, 8)
    train(tmp_path / "run", short, config(learning_rate=0.0), small / "run", context_length=8)
    before, after = (load_tensors(folder / MODEL_FILE)[0] for folder in (small / "run", tmp_path / "run"))
    assert torch.equal(after.pop("pos_emb.weight"), before.pop("pos_emb.weight")[:8])
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("positions", ["learned", "rotary", "sinusoidal"])
def test_a_longer_context_is_refused_where_positions_are_learned(small: Path, tmp_path: Path, positions: str) -> None:
    source = tmp_path / "source"
    train(source, small / "dataset", config(max_steps=1), None, positions=positions)
    arguments = (tmp_path / "run", windows(small, tmp_path, 64), config(), source)
    if positions == "learned":
        with pytest.raises(UsageError, match=r"has learned 32 positions; .*--set model.context_length=32"):
            train(*arguments, context_length=64, positions=positions)
    else:
        assert begun_with(train(*arguments, context_length=64, positions=positions, stop_after=1)) > 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"emb_dim": 64}, r"model.emb_dim is 32 in .*, 64 here; use --set model.emb_dim=32$"),
        ({"n_heads": 4, "n_layers": 3}, r"use --set model.n_heads=2 --set model.n_layers=2$"),
        ({"tie_weights": True}, r"model.tie_weights is false in .*, true here; use --set model.tie_weights=false$"),
        ({"window": 8}, r"use --set model.window=null$"),
    ],
)
def test_another_design_is_refused_by_parameter_and_both_values(
    small: Path, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        train(tmp_path / "run", small / "dataset", config(), small / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_another_tokenizer_is_refused_with_what_to_run(small: Path, tmp_path: Path, here: Here) -> None:
    here("tokenize", small / "play.txt", "-o", tmp_path / "tokens", "--tokenizer", "char")
    here("build-dataset", tmp_path / "tokens", "-o", tmp_path / "dataset", "--config", "debug")
    words = [tmp_path / "dataset", "-o", tmp_path / "run", "--config", "debug", "--init-from", small / "run"]
    told = here("train", *words, code=1).err
    assert f"was made with another tokenizer than the model of {small / 'run'}" in told
    assert f"--tokenizer {small / 'run'}`" in told


def test_what_is_no_finished_run_is_refused(small: Path, tmp_path: Path) -> None:
    train(tmp_path / "half", small / "dataset", config(), None, stop_after=2)
    for source, says in {
        small / "dataset": "holds a dataset, not a run",
        tmp_path / "nowhere": "does not exist",
        tmp_path / "half": "has no finished model.safetensors",
    }.items():
        with pytest.raises(MakegptError, match=says):
            train(tmp_path / "run", small / "dataset", config(), source)
    with pytest.raises(UsageError, match="is the run to be trained itself; use another -o"):
        train(tmp_path / "half", small / "dataset", config(), tmp_path / "half")


def test_two_processes_begin_with_the_same_weights(small: Path, tmp_path: Path) -> None:
    ended = train_forked(2, small / "dataset", tmp_path / "two", *TINY, "--init-from", str(small / "run"))
    assert [code for code, _ in ended] == [0, 0], ended
    train(tmp_path / "one", small / "dataset", config(), small / "run")
    one, two = (read_metrics(tmp_path / name) for name in ("one", "two"))
    assert two[0].val_loss == pytest.approx(one[0].val_loss, rel=1e-5)
    assert two[-1].train_loss == pytest.approx(one[-1].train_loss, rel=1e-3)


@pytest.mark.parametrize("tied", [True, False])
def test_new_special_tokens_begin_at_the_mean_of_the_rows(tied: bool, tmp_path: Path, here: Here) -> None:
    """A run on text is continued on conversations, with two tokens that its vocabulary lacks."""
    (tmp_path / "text.txt").write_text("user assistant Say it. " * 40, encoding="utf-8")
    talk = {"messages": [{"role": "user", "content": "Say"}, {"role": "assistant", "content": "it."}]}
    (tmp_path / "talk.jsonl").write_text("\n".join([json.dumps(talk)] * 20), encoding="utf-8")
    settings = ("--config", "debug", "--set", f"model.tie_weights={str(tied).lower()}", "--quiet")
    base, run = tmp_path / "base", tmp_path / "run"
    here("tokenize", tmp_path / "text.txt", "--tokenizer", "bpe", "--set", "tokenize.vocab_size=262", "-o", tmp_path / "text")
    here("build-dataset", tmp_path / "text", "-o", tmp_path / "base-dataset", "--context-length", 32)
    here("train", tmp_path / "base-dataset", "-o", base, *settings, *TINY)
    here("tokenize", "--chat", tmp_path / "talk.jsonl", "--tokenizer", base, "-o", tmp_path / "tokens")
    here("build-dataset", tmp_path / "tokens", "-o", tmp_path / "dataset", "--context-length", 32)
    here("train", tmp_path / "dataset", "-o", run, *settings, *TINY, "--init-from", base, "--set", "train.learning_rate=0")
    before, after = load_tensors(base / MODEL_FILE)[0], load_tensors(run / MODEL_FILE)[0]
    assert before.keys() == after.keys()
    grown = [name for name in before if before[name].shape != after[name].shape]
    assert grown == (["tok_emb.weight"] if tied else ["out_head.weight", "tok_emb.weight"])
    for name in before:
        rows = len(before[name])
        assert torch.equal(after[name][:rows], before[name])
        if name in grown:
            assert len(after[name]) == 264
            assert torch.equal(after[name][rows:], before[name].mean(0).expand(2, -1))
    # the exports have the new tokens too
    here("export-weights", run, "--to", "hf", "-o", tmp_path / "hf")
    here("import-weights", tmp_path / "hf", "-o", tmp_path / "again")
    tokenizers = [load_tokenizer(folder) for folder in (run, tmp_path / "again")]
    assert tokenizers[0].identity() == tokenizers[1].identity()
    here("train", tmp_path / "dataset", "-o", tmp_path / "other", *settings, *TINY, "--init-from", run)
    error = here("train", tmp_path / "base-dataset", "-o", tmp_path / "no", *settings, *TINY, "--init-from", run, code=1).err
    assert "was made with another tokenizer" in error
    words = ["--init-from", base, "--finetune", "lora"]
    error = here("train", tmp_path / "dataset", "-o", tmp_path / "no", *settings, *TINY, *words, code=2).err
    assert f"so the 2 tokens that {base} lacks would never be learned; use train.finetune=all" in error
