"""Learning from rewards: advantages, the estimate of the divergence, answers, and a training that earns more."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lib.config.params import load_params, resolve_config
from lib.data.dataset import Dataset
from lib.device.distributed import SINGLE_PROCESS
from lib.run.folder import load_run
from lib.run.metrics import read_metrics
from lib.train.grpo import GRPO, advantages, kl_terms, reward_contains, reward_exact, split_last_answer
from lib.train.objective import Start
from lib.train.trainer import Trainer
from tests.conftest import PROJECT, Here
from tests.train.answers import SETTINGS, base_run

CPU = torch.device("cpu")


def test_an_advantage_is_what_an_answer_is_better_than_its_group() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    assert advantages(rewards).tolist() == [[0.75, -0.25, -0.25, -0.25], [0.0] * 4]


def test_the_expected_gradient_is_that_of_the_expected_reward() -> None:
    logits = torch.tensor([0.3, -0.2, 0.9], requires_grad=True)
    rewards = torch.tensor([1.0, 0.0, 0.0])
    p = logits.softmax(0)
    (expected,) = torch.autograd.grad((p * rewards).sum(), logits, retain_graph=True)
    # each answer in the loss as often as it would be drawn, its advantage over the mean reward
    gains = rewards - (p * rewards).sum()
    (gradient,) = torch.autograd.grad(-(p.detach() * gains.detach() * p.log()).sum(), logits)
    assert gradient.tolist() == pytest.approx((-expected).tolist(), abs=1e-7)


def test_the_divergence_is_estimated_without_bias_and_never_below_0() -> None:
    generator = torch.Generator().manual_seed(1)
    p, reference = torch.randn(2, 7, generator=generator, dtype=torch.float64).log_softmax(1)
    terms = kl_terms(-p, -reference)
    assert terms.min() >= 0
    assert (p.exp() * terms).sum().item() == pytest.approx((p.exp() * (p - reference)).sum().item())
    assert kl_terms(-p, -p).tolist() == [0.0] * 7


def test_rewards() -> None:
    right = [7, 8, 0]
    assert [reward_exact(answer, right) for answer in ([7, 8, 0], [7, 8], [7, 8, 8, 0])] == [1, 0, 0]
    assert [reward_contains(answer, right) for answer in ([7, 8, 0], [1, 7, 8, 9], [7, 0], [8, 7])] == [1, 1, 0, 0]


def test_a_question_is_what_comes_before_the_last_answer() -> None:
    learned = np.array([0, 0, 1, 1, 0, 1, 1, 0], bool)
    assert split_last_answer(np.arange(8), learned) == ([0, 1, 2, 3, 4], [5, 6])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rewards")


@pytest.fixture
def base(folder: Path, here: Here) -> Path:
    return base_run(folder, here)


def trainer(base: Path, **changes: Any) -> Trainer:
    config = resolve_config(load_params(PROJECT / "params.yaml"), "debug", ["train.batch_size=6", "train.task=grpo"])
    settings = replace(config.train, answer_tokens=6, **changes)
    start = Start(model=lambda: load_run(base, CPU).model)
    return Trainer(GRPO(load_run(base, CPU).model, Dataset(base.parent / "right"), settings, CPU, SINGLE_PROCESS, start))


def test_the_loss_is_the_mean_over_the_answers_of_the_whole_batch(base: Path) -> None:
    whole, cut = trainer(base), trainer(base, grad_accum_steps=3)
    for step in range(2):
        first, second = whole.train_step(), cut.train_step()
        assert first.train_loss == pytest.approx(second.train_loss, rel=1e-4, abs=1e-6)
        assert first.grad_norm == pytest.approx(second.grad_norm, rel=1e-3)
        assert first.values == pytest.approx(second.values, rel=1e-3, abs=1e-6)
        if not step:
            assert first.values["kl"] == pytest.approx(0, abs=1e-6)


def test_a_training_earns_more_and_ends_with_the_same_bytes_after_a_resume(base: Path, here: Here) -> None:
    folder = base.parent
    reward = ("--set", "train.reward=contains", "--set", "train.answer_tokens=6")
    train = ("train", folder / "right", "--init-from", base, "--task", "grpo", *reward, *SETTINGS)
    here(*train, "--max-steps", 20, "-o", folder / "whole")
    here(*train, "--max-steps", 20, "-o", folder / "stopped", "--stop-after", "0s")
    here(*train, "--max-steps", 20, "-o", folder / "stopped")
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (folder / "whole" / name).read_bytes() == (folder / "stopped" / name).read_bytes()
    metrics = read_metrics(folder / "whole")
    earned = [line.values["reward"] for line in metrics if line.step]
    assert sum(earned[-5:]) / 5 > sum(earned[:5]) / 5 + 0.1
    assert metrics[-1].values["kl"] > 0
    here("plot", "values", folder / "whole", folder / "stopped", "-o", folder / "values.svg")
    figure = (folder / "values.svg").read_text()
    assert all(name in figure for name in ("reward", "exact", "kl", "completions/mean_length", "whole", "stopped"))
    assert "measured nothing but its loss" in here("plot", "values", base, "-o", folder / "x.svg", code=2).err


def test_what_cannot_be_answered_is_refused(base: Path, here: Here, tmp_path: Path, small: Path) -> None:
    folder = base.parent

    def refused(*words: Any) -> str:
        error = here("train", *words, "--task", "grpo", "-o", tmp_path / "run", *SETTINGS, code=2).err
        assert not (tmp_path / "run" / "manifest.json").exists()
        return str(error)

    assert "name its run with --init-from" in refused(folder / "right")
    assert "has pairs of answers" in refused(folder / "pairs", "--init-from", base)
    assert "do not fit into a context of 24" in refused(
        folder / "right", "--init-from", base, "--set", "train.answer_tokens=30"
    )
    words = (
        "train",
        small / "dataset",
        "--init-from",
        small / "run",
        "--task",
        "grpo",
        "--config",
        "debug",
        "-o",
        tmp_path / "r",
    )
    assert "has running text; tokenize a file of questions" in here(*words, code=2).err
