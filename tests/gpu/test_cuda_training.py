"""Training on a CUDA device: the CPU's loss curve, any precision, compiled, resumed to the same bytes."""

import json
import math
from pathlib import Path
from typing import Any, Iterator

import pytest
import torch

from lib.artifact.tensors import load_tensors
from lib.data.dataset import Dataset
from lib.device.hardware import deterministic_kernels
from lib.device.precision import autocast
from lib.run.folder import MODEL_FILE, load_run
from lib.run.metrics import METRICS_FILE, TIMINGS_FILE, read_metrics
from lib.run.samples import SAMPLES_FILE
from lib.run.state import CHECKPOINT_FOLDER, read_state
from lib.train.events import Notice, Stopped
from lib.train.next_token import NextToken
from lib.train.session import train_run
from tests.gpu.material import CPU, CUDA, RECIPES, needs_cuda, small_config, small_dataset, small_trainer
from tests.loss_scale import assert_too_large_a_scale_falls

pytestmark = needs_cuda


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    """A compiled model is compiled again for each training; PyTorch gives up after eight."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("design", ["gpt_balanced", "gpt_modern"])
def test_the_loss_curve_in_float32_is_that_of_the_cpu(dataset: Dataset, design: str, recipe: str) -> None:
    changes = RECIPES[recipe] | ({"head_init": "zero"} if recipe == "gpt_balanced" and design == "gpt_modern" else {})
    on_cpu, on_cuda = (small_trainer(dataset, device, design, **changes) for device in (CPU, CUDA))
    assert (on_cuda.trained is on_cuda.model) == (recipe not in ("shared rows", "gpt_balanced"))
    for _ in range(20):
        expected, actual = on_cpu.train_step(), on_cuda.train_step()
        assert actual.train_loss == pytest.approx(expected.train_loss, rel=1e-3), f"step {actual.step}"
        assert actual.grad_norm == pytest.approx(expected.grad_norm, rel=2e-2), f"step {actual.step}"
    assert actual.train_loss < 0.8 * math.log(256)
    assert on_cuda.validate().loss == pytest.approx(on_cpu.validate().loss, rel=1e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("recipe", ["adamw", "muon", "gpt_balanced"])
def test_a_training_in_16_bits_learns_as_in_float32(dataset: Dataset, precision: str, recipe: str) -> None:
    reference = small_trainer(dataset, CUDA, **RECIPES[recipe])
    trainer = small_trainer(dataset, CUDA, **RECIPES[recipe] | {"precision": precision})
    for _ in range(30):
        expected, actual = reference.train_step(), trainer.train_step()
        assert actual.train_loss == pytest.approx(expected.train_loss, rel=5e-2), f"step {actual.step}"
    assert actual.train_loss != expected.train_loss
    assert trainer.validate().loss == pytest.approx(reference.validate().loss, rel=5e-2)
    assert all(weight.dtype == torch.float32 for weight in trainer.model.parameters())
    if precision == "float16":
        assert trainer.loss_scale is not None
        assert trainer.loss_scale.value > 1


def test_a_loss_scale_that_is_too_large_falls_and_the_step_is_done_again(dataset: Dataset) -> None:
    scaled, reference = (small_trainer(dataset, CUDA, precision="float16") for _ in range(2))
    assert_too_large_a_scale_falls(scaled, reference, lowest=2.0**5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_compiled_training_has_the_same_losses_with_a_smaller_last_piece(dataset: Dataset, precision: str) -> None:
    changes = {"batch_size": 8, "grad_accum_steps": 1, "precision": precision}
    plain, compiled = (small_trainer(dataset, CUDA, compile=choice, **changes) for choice in ("off", "on"))
    for trainer in (plain, compiled):
        trainer._pieces = 3  # of 2, 3 and 3 windows
    assert plain.compile() is None
    assert compiled.compile() is None
    assert isinstance(compiled.objective, NextToken)
    assert compiled.objective._loss != compiled.trained.loss
    for _ in range(5):
        expected, actual = plain.train_step(), compiled.train_step()
        assert actual.train_loss == pytest.approx(expected.train_loss, rel=1e-4 if precision == "float32" else 1e-2)
        assert actual.grad_norm == pytest.approx(expected.grad_norm, rel=1e-2 if precision == "float32" else 5e-2)
    assert compiled.validate().loss == pytest.approx(plain.validate().loss, rel=1e-4 if precision == "float32" else 1e-2)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("recipe", ["adamw", "gpt_balanced"])
def test_a_step_between_its_batch_and_its_loss_does_not_wait_for_the_device(
    dataset: Dataset, recipe: str, precision: str, deterministic: bool
) -> None:
    changes = RECIPES[recipe] | {"precision": precision, "batch_size": 64}  # 4,096 tokens: the embedding's sum sorts them
    trainer = small_trainer(dataset, CUDA, **changes)
    with deterministic_kernels(CUDA if deterministic else CPU):
        trainer.train_step()  # what is set up at first use may wait
        objective = trainer.objective
        assert isinstance(objective, NextToken)
        ids, soft, _ = objective._batch(trainer.state.step, range(64))
        weights = list(trainer.trained.parameters())
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            with autocast(trainer.precision, CUDA):
                loss = trainer.trained.loss(ids[:, :-1], ids[:, 1:], soft)
            loss.backward()
            objective.finish_gradient()
            norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
            torch.nn.utils.clip_grads_with_norm_(weights, 1.0, norm)
            for optimizer in trainer.optimizers:
                optimizer.step()
            trainer._forget_gradients()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(norm)


def train(folder: Path, dataset: Dataset, device: torch.device, *, stop_after: int | None = None, **changes: Any) -> list[Any]:
    """Train 10 steps in `folder`, or stop earlier; the events."""
    settings = {"max_steps": 10, "eval_interval": 5, "batch_size": 8, "warmup_steps": 2, "sample_tokens": 20}
    config = small_config("gpt_balanced", *(f"train.{name}={value}" for name, value in (settings | changes).items()))
    steps = 0

    def stop_asked() -> bool:
        nonlocal steps
        steps += 1
        return steps == stop_after

    data = Dataset(dataset.folder)
    return list(train_run(folder, data, config.model, config.train, device, resume=True, started="now", stop_asked=stop_asked))


def outcome(folder: Path) -> dict[str, bytes]:
    """What a finished training must have the same bytes of."""
    return {name: (folder / name).read_bytes() for name in (MODEL_FILE, METRICS_FILE, SAMPLES_FILE)}


@pytest.mark.parametrize(
    ("recipe", "precision", "compile", "batch_size"),
    [
        ("adamw", "float32", "off", 8),  # 512 tokens; from 3,073 on PyTorch adds up an embedding's gradient in another way
        ("adamw", "float32", "off", 64),
        ("muon", "bfloat16", "off", 8),
        ("muon", "bfloat16", "off", 64),
        ("gpt_balanced", "float32", "off", 64),
        ("gpt_balanced", "float16", "off", 64),
        ("adamw", "float32", "on", 64),
        ("gpt_balanced", "bfloat16", "on", 64),
    ],
)
def test_a_stopped_training_resumes_to_the_bytes_of_one_left_alone(
    dataset: Dataset, tmp_path: Path, recipe: str, precision: str, compile: str, batch_size: int
) -> None:
    changes = RECIPES["adamw"] | RECIPES[recipe] | {"precision": precision, "compile": compile, "batch_size": batch_size}
    whole = train(tmp_path / "whole", dataset, CUDA, **changes)
    assert not [event for event in whole if isinstance(event, Notice)], "without a notice that compilation failed"
    assert train(tmp_path / "run", dataset, CUDA, stop_after=3, **changes)[-1] == Stopped(3)
    resumed = train(tmp_path / "run", dataset, CUDA, **changes)
    assert Notice("resuming after step 3 of 10") in resumed
    tensors = [load_tensors(tmp_path / name / MODEL_FILE)[0] for name in ("run", "whole")]
    differing = [name for name in tensors[1] if not torch.equal(tensors[0][name], tensors[1][name])]
    assert not differing
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


@pytest.mark.parametrize(("first", "second"), [(CUDA, CPU), (CPU, CUDA)], ids=["cuda to cpu", "cpu to cuda"])
@pytest.mark.parametrize("recipe", ["adamw", "gpt_balanced"])
def test_a_training_resumes_on_the_other_device_with_a_notice(
    dataset: Dataset, tmp_path: Path, recipe: str, first: torch.device, second: torch.device
) -> None:
    changes = RECIPES["adamw"] | RECIPES[recipe] | {"precision": "float32", "compile": "off"}
    train(tmp_path / "whole", dataset, CPU, **changes)
    train(tmp_path / "run", dataset, first, stop_after=5, **changes)
    state = read_state(tmp_path / "run")
    assert state is not None
    assert state.device == first.type
    optimizer = load_tensors(tmp_path / "run" / CHECKPOINT_FOLDER / state.optimizer)[0]
    assert all(value.item() == 5 for name, value in optimizer.items() if name.startswith("step/"))
    events = train(tmp_path / "run", dataset, second, **changes)
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert any(f"on {first.type}, not on {second.type}" in text for text in notices), notices
    expected, actual = read_metrics(tmp_path / "whole"), read_metrics(tmp_path / "run")
    assert [line.step for line in actual] == [line.step for line in expected]
    for line, reference in zip(actual[1:], expected[1:], strict=True):
        assert line.train_loss == pytest.approx(reference.train_loss, rel=1e-3)
    assert actual[-1].val_loss == pytest.approx(expected[-1].val_loss, rel=1e-3)
    weights = load_run(tmp_path / "run", CUDA).model.get_parameter("out_head.weight").cpu()
    torch.testing.assert_close(
        weights, load_run(tmp_path / "whole", CPU).model.get_parameter("out_head.weight"), atol=5e-3, rtol=0
    )


def test_a_bfloat16_training_on_cuda_continues_in_float32_on_the_cpu_with_a_notice(dataset: Dataset, tmp_path: Path) -> None:
    changes = {"precision": "auto", "compile": "off"}
    train(tmp_path / "run", dataset, CUDA, stop_after=5, **changes)
    state = read_state(tmp_path / "run")
    assert state is not None
    assert state.precision in ("torch.bfloat16", "torch.float16")
    notices = [event.text for event in train(tmp_path / "run", dataset, CPU, **changes) if isinstance(event, Notice)]
    assert any("not in float32" in text and "last bits may differ" in text for text in notices), notices


def test_deterministic_kernels_are_in_use_only_while_a_training_runs(dataset: Dataset, tmp_path: Path) -> None:
    config = small_config("gpt_balanced", "train.max_steps=1", "train.compile=off", "train.sample_interval=0")
    events = train_run(
        tmp_path / "run", dataset, config.model, config.train, CUDA, resume=True, started="now", stop_asked=lambda: False
    )
    next(events)
    assert torch.are_deterministic_algorithms_enabled()
    list(events)
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_timings_of_a_training_on_cuda_are_possible(dataset: Dataset, tmp_path: Path) -> None:
    train(tmp_path / "run", dataset, CUDA, compile="off")
    lines = [json.loads(line) for line in (tmp_path / "run" / TIMINGS_FILE).read_text().splitlines()]
    assert len(lines) == 10
    assert all(0 <= line["mfu"] < 1 for line in lines)  # rounded, nearly 0 for so small a model
    assert all(line["tokens_per_second"] > 1000 for line in lines[1:])
    assert all(0 < line["memory"] <= torch.cuda.get_device_properties(0).total_memory for line in lines)
