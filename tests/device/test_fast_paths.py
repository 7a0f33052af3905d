"""The fast paths of training: the same numbers as the naive ones, in any precision."""

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lib.artifact.tensors import load_tensors
from lib.data.dataset import Dataset
from lib.device.compile import should_compile
from lib.device.distributed import ProcessGroup
from lib.device.hardware import deterministic_kernels, matmul_rate
from lib.device.precision import LossScale, autocast, choose_precision
from lib.errors import UsageError
from lib.model import loss
from lib.model.dropout import Dropout
from lib.model.loss import linear_cross_entropy, naive_cross_entropy
from lib.model.registry import build_model, count_operations
from lib.run.folder import MODEL_FILE
from lib.run.metrics import TIMINGS_FILE
from lib.run.state import read_state
from lib.train.events import Notice
from lib.train.muon import newton_schulz
from lib.train.next_token import NextToken
from lib.train.session import fit_vocabulary
from lib.train.trainer import Trainer
from tests.loss_scale import assert_too_large_a_scale_falls
from tests.train.test_loop import CPU, config, outcome, train, trainer


def naive_trainer(small: Path, **changes: Any) -> Trainer:
    parameters = config(max_steps=60, **changes)
    model_config = fit_vocabulary(parameters.model, Dataset(small / "dataset").tokens.load_tokenizer())
    model_config = type(model_config)(**vars(model_config) | {"attention_impl": "naive", "layer_impl": "naive"})
    model = build_model(model_config)
    model.initialize(torch.Generator().manual_seed(1))
    return Trainer(NextToken(model, Dataset(small / "dataset"), parameters.train, CPU))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_fast_path_has_the_loss_curve_of_the_naive_one(small: Path, optimizer: str) -> None:
    fast, naive = trainer(small, max_steps=60, optimizer=optimizer), naive_trainer(small, optimizer=optimizer)
    assert fast.model.fused
    assert not naive.model.fused
    for _ in range(50):
        step, naive_step = fast.train_step(), naive.train_step()
        assert step.train_loss == pytest.approx(naive_step.train_loss, rel=2e-4), f"step {step.step}"
        assert step.grad_norm == pytest.approx(naive_step.grad_norm, rel=1e-2), f"step {step.step}"
    assert fast.validate().loss == pytest.approx(naive.validate().loss, rel=2e-4)


@pytest.mark.parametrize("at_once", [1, 48 * 3, 1 << 26])
@pytest.mark.parametrize("vocabulary", [1, 33, 48])
def test_linear_cross_entropy_is_the_head_and_the_naive_loss(
    monkeypatch: pytest.MonkeyPatch, at_once: int, vocabulary: int
) -> None:
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", at_once)
    draw = torch.Generator().manual_seed(vocabulary)
    x, weight = torch.randn(7, 5, generator=draw), 30 * torch.randn(vocabulary, 5, generator=draw)
    targets = torch.randint(vocabulary, (7,), generator=draw)
    results, expected = [], []
    for compute, outputs in (
        (lambda a, w: linear_cross_entropy(a, w, targets), results),
        (lambda a, w: naive_cross_entropy(a @ w.T, targets), expected),
    ):
        a, w = x.clone().requires_grad_(), weight.clone().requires_grad_()
        nats = compute(a, w)
        outputs += [nats, *torch.autograd.grad(nats / 7, (a, w))]
    for actual, reference in zip(results, expected, strict=True):
        torch.testing.assert_close(actual, reference, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert linear_cross_entropy(x, weight, targets) == results[0]


def test_linear_cross_entropy_in_bfloat16_is_near_that_in_float32() -> None:
    draw = torch.Generator().manual_seed(1)
    x, weight = torch.randn(64, 32, generator=draw), torch.randn(50, 32, generator=draw) / 5
    targets = torch.randint(50, (64,), generator=draw)
    gradients = []
    for context in (autocast(torch.float32, CPU), autocast(torch.bfloat16, CPU)):
        a, w = x.clone().requires_grad_(), weight.clone().requires_grad_()
        with context:
            assert linear_cross_entropy(a.bfloat16(), w, targets).dtype == torch.float32
            nats = linear_cross_entropy(a, w, targets)
        assert nats.dtype == torch.float32
        gradients.append((nats, *torch.autograd.grad(nats, (a, w))))
    for exact, near in zip(*gradients, strict=True):
        assert near.dtype == torch.float32
        assert (exact - near).norm() < 0.01 * exact.norm()
        assert not torch.equal(exact, near), "the products were done in bfloat16"


@pytest.mark.parametrize("shape", [(8, 8), (8, 24), (24, 8)])
def test_newton_schulz_by_the_smaller_square_is_the_iteration_itself(shape: tuple[int, int]) -> None:
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    x = gradient / gradient.norm()
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    torch.testing.assert_close(newton_schulz(gradient), x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_sixteen_bits_have_the_loss_of_thirty_two(small: Path, kind: str) -> None:
    float32, low = trainer(small, max_steps=60), trainer(small, max_steps=60, precision=kind)
    for _ in range(50):
        step, low_step = float32.train_step(), low.train_step()
    assert step.train_loss != low_step.train_loss
    assert step.train_loss == pytest.approx(low_step.train_loss, rel=0.02)
    assert {weight.dtype for weight in low.model.parameters()} == {torch.float32}


def test_a_loss_scale_that_is_too_high_is_halved_and_the_batch_repeated(small: Path) -> None:
    scaled, reference = (trainer(small, precision="float16") for _ in range(2))
    assert_too_large_a_scale_falls(scaled, reference, lowest=2.0**10)


def test_a_loss_scale_doubles_after_a_thousand_good_steps_and_falls_to_one_at_least() -> None:
    assert LossScale(8.0, since=5).after(1004) == LossScale(8.0, since=5)
    assert LossScale(8.0, since=5).after(1005) == LossScale(16.0, since=1005)
    assert LossScale(1.5).lower(7) == LossScale(1.0, since=7)


def test_float16_resumes_with_its_scale_to_the_same_bytes(small: Path, tmp_path: Path) -> None:
    chosen = config(precision="float16", max_steps=6, batch_size=2)
    train(tmp_path / "whole", small, chosen)
    train(tmp_path / "run", small, chosen, stop_after=3)
    state = read_state(tmp_path / "run")
    assert state is not None
    assert state.loss_scale is not None
    assert state.loss_scale[0] > 1
    train(tmp_path / "run", small, chosen)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_auto_chooses_a_supported_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, mps = torch.device("cuda"), torch.device("mps")
    assert choose_precision("auto", CPU) == choose_precision("auto", mps) == torch.float32
    assert choose_precision("bfloat16", CPU) == torch.bfloat16
    for has, expected in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has: has)
        assert choose_precision("auto", cuda) == expected
    assert [should_compile(choice, CPU) for choice in ("auto", "on", "off")] == [False, True, False]
    assert [should_compile(choice, cuda) for choice in ("auto", "on", "off")] == [True, True, False]


@pytest.mark.parametrize(("device", "expected"), [("cpu", False), ("cuda", True)])
def test_deterministic_kernels_are_asked_for_on_cuda_alone_and_not_afterwards(
    monkeypatch: pytest.MonkeyPatch, device: str, expected: bool
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that what the block sets is undone
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    fill = torch.utils.deterministic.fill_uninitialized_memory
    with deterministic_kernels(torch.device(device)):
        assert torch.are_deterministic_algorithms_enabled() == expected
        assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if expected else None)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory == fill


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_has_the_same_losses(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config as inductor

    torch.compiler.reset()
    monkeypatch.setattr(torch._dynamo.config, "error_on_recompile", True)
    monkeypatch.setattr(inductor, "compile_threads", 1)  # more are processes that load torch first
    plain, fast = (trainer(small, n_layers=1, compile=choice) for choice in ("off", "on"))
    assert fast.compile() is None
    assert plain.compile() is None
    for _ in range(3):
        assert fast.train_step().train_loss == pytest.approx(plain.train_step().train_loss, rel=1e-4)
    assert fast.validate().loss == pytest.approx(plain.validate().loss, rel=1e-4)


def test_without_a_compiler_the_training_continues_with_a_notice(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(function: Any) -> Any:
        def fail(*_: Any) -> Any:
            raise RuntimeError("no compiler\nand more")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    events = train(tmp_path / "run", small, config(compile="on"))
    assert Notice("torch.compile does not work here (RuntimeError: no compiler); continuing without it") in events
    tensors = [load_tensors(folder / MODEL_FILE)[0] for folder in (tmp_path / "run", small / "run")]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[1])


def test_rows_of_a_batch_are_those_of_the_whole_batch(small: Path) -> None:
    data = Dataset(small / "dataset")
    whole = data.batch(1, 7, 10)
    for size in (1, 2, 3, 7):
        parts = [ProcessGroup(rank, size).share(10) for rank in range(size)]
        assert [row for part in parts for row in part] == list(range(10))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        for part in parts:
            assert (data.batch(1, 7, 10, part) == whole[part.start : part.stop]).all()


def test_more_processes_than_windows_are_refused(small: Path) -> None:
    parameters = config()
    with pytest.raises(
        UsageError, match=r"batch_size=4 cannot be shared by 5 processes with train.grad_accum_steps=1; 5 windows"
    ):
        Trainer(NextToken(trainer(small).model, Dataset(small / "dataset"), parameters.train, CPU, ProcessGroup(0, 5)))


def test_dropout_does_not_depend_on_how_a_batch_is_split(small: Path) -> None:
    """A micro-batch is the same in any process: those of the processes, in order, are those of accumulation."""
    losses = []
    for group, pieces in ((ProcessGroup(0, 1), 4), (ProcessGroup(0, 2), 2), (ProcessGroup(1, 2), 2)):
        parameters = config(grad_accum_steps=pieces)
        model = trainer(small).model
        for module in model.modules():
            if isinstance(module, Dropout):
                module.rate = 0.3
        process = Trainer(NextToken(model, Dataset(small / "dataset"), parameters.train, CPU))
        process.group, process._pieces = _WithoutPeers(group.rank, group.size), 4
        losses.append(process._loss_and_gradients()[0])
    assert losses[0] == pytest.approx(losses[1] + losses[2], rel=1e-5)


class _WithoutPeers(ProcessGroup):
    """One process of several, without the others: sums are its own."""

    def total(self, number: float, device: torch.device) -> float:
        return number


def test_timings_have_the_mfu(small: Path) -> None:
    lines = [json.loads(line) for line in (small / "run" / TIMINGS_FILE).read_text().splitlines()]
    assert all(0 < line["mfu"] < 1 for line in lines)
    assert all(math.isfinite(line["memory"]) for line in lines)


def test_operations_are_six_per_weight_and_twelve_per_width_and_token(small: Path) -> None:
    model = trainer(small).model
    products = sum(w.numel() for name, w in model.named_parameters() if w.dim() == 2 and "_emb" not in name)
    assert count_operations(model) == 6 * products + 12 * 2 * 32 * 32
    assert matmul_rate(CPU, (8, 64, 16), repeats=2) > 1e6
