"""A training of a part of the weights: what it changes, what it saves, and that it is as exact as any training."""

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lib.artifact.tensors import load_tensors, read_tensor_metadata
from lib.data.dataset import Dataset
from lib.errors import MakegptError, UsageError
from lib.evaluate.evaluation import evaluate
from lib.evaluate.span import dataset_span
from lib.run.folder import ADAPTER_FILE, MODEL_FILE, finished_manifest, load_run
from lib.run.metrics import read_metrics
from lib.run.state import CHECKPOINT_FOLDER, read_state
from lib.train.estimate import estimate_training
from tests import forks
from tests.conftest import TINY, Here, Stage
from tests.device.test_distributed import train_forked
from tests.train.test_initial_weights import begun_with, train
from tests.train.test_loop import CPU, config, outcome

LORA: dict[str, Any] = {"finetune": "lora", "learning_rate": 0.03, "lora_rank": 4, "lora_alpha": 8}
WORDS = [f"--set=train.{name}={value}" for name, value in LORA.items()]


@pytest.fixture(scope="module")
def adapted(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has trained adapters of small/run."""
    folder = tmp_path_factory.mktemp("adapted") / "run"
    train(folder, small / "dataset", config(**LORA), small / "run")
    return folder


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_tensors(path)[0]


def test_it_begins_with_the_loss_of_the_base_and_ends_below(small: Path, adapted: Path, tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", small / "dataset", config(), small / "run", stop_after=1)
    lines = read_metrics(adapted)
    assert lines[0].val_loss == begun_with(whole)
    assert lines[-1].val_loss is not None
    assert lines[-1].val_loss < begun_with(whole) - 0.005


def test_checkpoints_hold_the_adapters_and_their_state_alone(adapted: Path) -> None:
    state = read_state(adapted)
    assert state is not None
    weights, moments = (tensors(adapted / CHECKPOINT_FOLDER / name) for name in (state.weights, state.optimizer))
    assert all(".adapters." in name for name in weights)
    assert moments.keys() == {f"{kind}/{name}" for name in weights for kind in ("step", "exp_avg", "exp_avg_sq")}
    assert sorted(entry.name for entry in (adapted / CHECKPOINT_FOLDER).iterdir()) == sorted(
        [state.weights, state.optimizer, "state.json"]
    )


def test_the_finished_weights_are_the_bases_plus_the_adapters_products(small: Path, adapted: Path) -> None:
    before, after = tensors(small / "run" / MODEL_FILE), tensors(adapted / MODEL_FILE)
    adapters = tensors(adapted / ADAPTER_FILE)
    assert after.keys() == before.keys()
    assert finished_manifest(adapted).metadata["parameters"] == sum(tensor.numel() for tensor in before.values())
    for name, weight in before.items():
        layer = name.removesuffix(".weight")
        products = [
            8 / 4 * adapters[f"{layer}.adapters.{part}.B"] @ adapters[f"{layer}.adapters.{part}.A"]
            for part in ("query", "key", "value", "out", "expand", "contract")
            if f"{layer}.adapters.{part}.A" in adapters
        ]
        torch.testing.assert_close(after[name], weight + torch.cat(products) if products else weight, rtol=0, atol=1e-6)
        assert products or torch.equal(after[name], weight)


def test_every_stage_reads_it_as_any_run(small: Path, adapted: Path, here: Here) -> None:
    run = load_run(adapted, CPU)
    loss = evaluate(run, dataset_span(adapted, run, Dataset(small / "dataset"), "val"), CPU).loss
    assert loss == pytest.approx(read_metrics(adapted)[-1].val_loss, rel=1e-5)
    assert here("generate", adapted, "to be", "--max-new-tokens", 5, "--weights", "int8").out
    assert f"{adapted}: every file is as it was written" in here("inspect", adapted, "--verify").err


@pytest.mark.parametrize("stop_after", [1, 7])
def test_a_stopped_one_goes_on_to_the_same_bytes(small: Path, adapted: Path, tmp_path: Path, stop_after: int) -> None:
    folder = tmp_path / "run"
    train(folder, small / "dataset", config(**LORA), small / "run", stop_after=stop_after)
    assert not (folder / MODEL_FILE).exists()
    train(folder, small / "dataset", config(**LORA), small / "run")
    assert outcome(folder) == outcome(adapted)
    assert (folder / ADAPTER_FILE).read_bytes() == (adapted / ADAPTER_FILE).read_bytes()


def test_a_killed_one_goes_on_to_the_same_bytes(small: Path, tmp_path: Path, stage: Stage) -> None:
    words = [str(small / "dataset"), "--config", "debug", "--init-from", str(small / "run"), *WORDS, "--quiet"]
    words += ["--set=train.checkpoint_interval=3", "--set=train.max_steps=150", "--set=train.eval_interval=50"]
    began = time.monotonic()
    stage("train", *words, "-o", tmp_path / "whole")
    seconds = time.monotonic() - began
    for part in (0.4, 0.6):
        killed = forks.shared().start(["train", *words, "-o", str(tmp_path / "run")])
        time.sleep(part * seconds)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        killed.outputs()
    stage("train", *words, "-o", tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_a_stopped_one_can_be_evaluated_and_needs_its_base(small: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(small / "run", tmp_path / "source"))
    folder = tmp_path / "run"
    train(folder, small / "dataset", config(**LORA), source, stop_after=8)
    run = load_run(folder, CPU, "last")
    loss = evaluate(run, dataset_span(folder, run, Dataset(small / "dataset"), "val"), CPU).loss
    assert loss == pytest.approx(read_metrics(folder)[-1].val_loss, rel=1e-5)
    os.truncate(source / MODEL_FILE, 100)
    with pytest.raises(MakegptError, match="has saved only the weights that it trains"):
        load_run(folder, CPU, "last")
    with pytest.raises(MakegptError, match=r"source/model.safetensors is damaged"):
        train(folder, small / "dataset", config(**LORA), source)


def test_the_best_adapters_are_merged_if_they_are_to_be_published(small: Path, tmp_path: Path) -> None:
    worsening = LORA | {"learning_rate": 20.0, "eval_interval": 2, "warmup_steps": 0, "min_lr_ratio": 1.0, "publish": "best"}
    folder = tmp_path / "run"
    train(folder, small / "dataset", config(**worsening), small / "run")
    losses = {line.step: line.val_loss for line in read_metrics(folder)[1:] if line.val_loss is not None}
    best = min(losses, key=lambda step: losses[step] or 0.0)
    assert best < 12
    assert read_tensor_metadata(folder / MODEL_FILE)["step"] == read_tensor_metadata(folder / ADAPTER_FILE)["step"] == best
    run = load_run(folder, CPU)
    loss = evaluate(run, dataset_span(folder, run, Dataset(small / "dataset"), "val"), CPU).loss
    assert loss == pytest.approx(losses[best], rel=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("finetune", ["lora", "last_block"])
def test_two_processes_train_the_same_weights_as_one(small: Path, tmp_path: Path, optimizer: str, finetune: str) -> None:
    words = [f"--set=train.optimizer={optimizer}", f"--finetune={finetune}"]
    ended = train_forked(2, small / "dataset", tmp_path / "two", *TINY, *words, "--init-from", str(small / "run"))
    assert [code for code, _ in ended] == [0, 0], ended
    train(tmp_path / "one", small / "dataset", config(optimizer=optimizer, finetune=finetune), small / "run")
    one, two = (tensors(tmp_path / name / MODEL_FILE) for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-4)


def test_the_last_block_changes_alone_with_the_final_norm_and_the_head(small: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", small / "dataset", config(finetune="last_block"), small / "run", stop_after=5)
    train(tmp_path / "run", small / "dataset", config(finetune="last_block"), small / "run")
    train(tmp_path / "whole", small / "dataset", config(finetune="last_block"), small / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    before, after = tensors(small / "run" / MODEL_FILE), tensors(tmp_path / "run" / MODEL_FILE)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith(("blocks.1.", "final_norm.", "out_head."))}
    assert not (tmp_path / "run" / ADAPTER_FILE).exists()


@pytest.mark.parametrize("finetune", ["lora", "last_block"])
def test_frozen_weights_need_a_run_that_they_are_from(small: Path, tmp_path: Path, finetune: str) -> None:
    with pytest.raises(
        UsageError, match=f"finetune={finetune} leaves most weights as they are; name the run .*--init-from RUN"
    ):
        train(tmp_path / "run", small / "dataset", config(finetune=finetune), None)


def test_unknown_targets_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="lora_targets has 'quer'; did you mean 'query'"):
        config(lora_targets="quer,value")


def test_the_plan_counts_no_gradients_and_no_moments_of_frozen_weights(small: Path) -> None:
    model = load_run(small / "run", CPU).config
    whole, lora, last = (
        estimate_training(model, config(finetune=finetune).train, CPU, 100)["memory_bytes"]
        for finetune in ("all", "lora", "last_block")
    )
    parameters = sum(tensor.numel() for tensor in tensors(small / "run" / MODEL_FILE).values())
    assert 0 < whole - lora <= 4 * 4 * parameters
    assert last < lora
