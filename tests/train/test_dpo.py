"""Direct preference optimization: the loss and its gradient, compared with TRL's and by hand; trainings on pairs."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lib.artifact.tensors import load_tensors
from lib.config.params import load_params, resolve_config
from lib.data.dataset import Dataset
from lib.device.distributed import SINGLE_PROCESS
from lib.run.folder import load_run
from lib.run.metrics import read_metrics
from lib.train.dpo import DPO, VALUES, PairLogProbs, dpo_loss, pair_values, rewards
from lib.train.objective import Start
from lib.train.trainer import Trainer
from tests.conftest import PROJECT, Here
from tests.train.answers import SETTINGS, base_run
from tests.train.trl_dpo import BETA, random_log_probs, trl_dpo

CPU = torch.device("cpu")
GOLDEN = json.loads((Path(__file__).parent / "dpo.json").read_text(encoding="utf-8"))


def pairs(log_probs: torch.Tensor) -> PairLogProbs:
    return PairLogProbs(*log_probs.sum(dim=1).chunk(2))


def test_before_the_first_step_every_loss_is_ln_2_and_every_margin_0() -> None:
    same = pairs(random_log_probs()[0])
    assert dpo_loss(same, same, BETA).tolist() == pytest.approx([math.log(2)] * 5, abs=1e-7)
    values = pair_values(same, same, BETA)
    assert (values["rewards/margins"], values["rewards/accuracies"]) == (0.0, 0.0)


def test_loss_gradient_and_metrics_are_those_of_trl() -> None:
    policy, reference = random_log_probs()
    policy.requires_grad_()
    loss = dpo_loss(pairs(policy), pairs(reference), BETA).mean()
    loss.backward()
    assert policy.grad is not None
    values = {name: value / 5 for name, value in pair_values(pairs(policy), pairs(reference), BETA).items()}
    ours = {"trl": GOLDEN["trl"], "loss": loss.item(), "gradient": policy.grad[:, 0].tolist(), **values}
    assert ours.keys() == GOLDEN.keys()
    for name, value in ours.items():
        assert value == (GOLDEN[name] if name == "trl" else pytest.approx(GOLDEN[name], rel=1e-5)), name


def test_the_goldens_are_what_trl_computes() -> None:
    trl = pytest.importorskip("trl", reason="needs the package `trl`")
    computed = {"trl": trl.__version__, **trl_dpo(*random_log_probs())}
    for name in GOLDEN.keys() - {"trl"}:
        assert computed[name] == pytest.approx(GOLDEN[name], rel=1e-5), name


def test_the_gradient_of_one_pair_by_hand() -> None:
    chosen, rejected = torch.tensor([-2.0], requires_grad=True), torch.tensor([-3.0], requires_grad=True)
    reference = PairLogProbs(torch.tensor([-2.5]), torch.tensor([-2.0]))
    dpo_loss(PairLogProbs(chosen, rejected), reference, 0.5).sum().backward()
    # the chosen answer gained 0.5 and the rejected one lost 1: a margin of 0.5 · 1.5
    slope = 0.5 * (1 - 1 / (1 + math.exp(-0.75)))
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert (chosen.grad.item(), rejected.grad.item()) == pytest.approx((-slope, slope))
    gained = rewards(PairLogProbs(chosen, rejected), reference, 0.5)
    assert (gained.chosen.item(), gained.rejected.item()) == (0.25, -0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("preferences")


@pytest.fixture
def base(folder: Path, here: Here) -> Path:
    return base_run(folder, here)


def trainer(base: Path, **changes: Any) -> Trainer:
    config = resolve_config(load_params(PROJECT / "params.yaml"), "debug", ["train.batch_size=6", "train.task=dpo"])
    model = load_run(base, CPU).model
    dataset = Dataset(base.parent / "pairs")
    return Trainer(DPO(model, dataset, replace(config.train, **changes), CPU, SINGLE_PROCESS, Start(model=lambda: model)))


def test_the_first_loss_of_a_training_is_ln_2_and_the_loss_is_the_mean_over_the_pairs_of_the_batch(base: Path) -> None:
    whole, cut = trainer(base), trainer(base, grad_accum_steps=3)
    assert whole.validate().loss == pytest.approx(math.log(2), abs=1e-6)
    for step in range(3):
        first, second = whole.train_step(), cut.train_step()
        assert first.train_loss == pytest.approx(second.train_loss, rel=1e-5)
        assert first.grad_norm == pytest.approx(second.grad_norm, rel=1e-4)
        assert first.values == pytest.approx(second.values, rel=1e-3, abs=1e-5)
        if not step:
            assert first.train_loss == pytest.approx(math.log(2), abs=1e-6)
            assert first.values["rewards/margins"] == pytest.approx(0, abs=1e-6)


def test_in_sixteen_bits_the_first_losses_are_ln_2_too(base: Path) -> None:
    """The reference is measured as what is compared with it: in 16 bits for the steps, in float32 for validations."""
    sixteen = trainer(base, precision="bfloat16")
    assert sixteen.validate().loss == pytest.approx(math.log(2), abs=1e-6)
    assert sixteen.train_step().train_loss == pytest.approx(math.log(2), abs=1e-3)


def test_a_training_prefers_the_chosen_answers_and_ends_with_the_same_bytes_after_a_resume(base: Path, here: Here) -> None:
    folder = base.parent
    train = ("train", folder / "pairs", "--init-from", base, "--task", "dpo", *SETTINGS, "--max-steps", 20)
    here(*train, "-o", folder / "whole")
    here(*train, "-o", folder / "stopped", "--stop-after", "0s")
    reference = folder / "stopped" / "checkpoint" / "reference.safetensors"
    tensors = load_tensors(reference)[0]
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "numbers": (32,),
        "train": (32, 2),
        "val": (8, 2),
    }
    content = reference.read_bytes()
    reference.write_bytes(content[:-1] + b"?")
    assert "reference.safetensors is damaged" in here(*train, "-o", folder / "stopped", code=1).err
    reference.write_bytes(content)
    here(*train, "-o", folder / "stopped")
    assert (folder / "stopped" / "checkpoint" / "reference.safetensors").read_bytes() == content
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (folder / "whole" / name).read_bytes() == (folder / "stopped" / name).read_bytes()
    first, *_, last = read_metrics(folder / "whole")
    assert set(last.values) == {*VALUES, *(f"val_{name}" for name in VALUES)}
    assert first.val_loss == pytest.approx(math.log(2), abs=1e-6)
    assert last.val_loss is not None
    assert last.val_loss < 0.5
    assert last.values["val_rewards/accuracies"] == 1.0
    # evaluate counts the same, and what the base run finds more likely
    output = here("evaluate", folder / "whole", folder / "pairs")
    evaluation = json.loads(output.out)
    assert evaluation["pairs"] == 8
    assert evaluation["moved"]["accuracy"]["value"] == 1.0
    assert evaluation["moved"]["margin"]["value"] == pytest.approx(last.values["val_rewards/margins"], rel=1e-4)
    assert evaluation["model"]["chosen"]["value"] == pytest.approx(last.values["val_logps/chosen"], rel=1e-4)
    assert evaluation["reference"]["chosen"]["value"] == pytest.approx(first.values["val_logps/chosen"], rel=1e-4)
    assert "val split, 8 pairs" in output.err
    assert "moved" not in json.loads(here("evaluate", base, folder / "pairs").out)
    assert "--dynamic is for texts" in here("evaluate", folder / "whole", folder / "pairs", "--dynamic", code=2).err


def test_what_cannot_be_preferred_is_refused(base: Path, here: Here, tmp_path: Path) -> None:
    folder = base.parent

    def refused(*words: Any) -> str:
        error = here("train", *words, "-o", tmp_path / "run", *SETTINGS, code=2).err
        assert not (tmp_path / "run").exists()
        return str(error)

    assert "name its run with --init-from" in refused(folder / "pairs", "--task", "dpo")
    assert "has conversations; tokenize a file with" in refused(folder / "both", "--task", "dpo", "--init-from", base)
    assert "from which --task dpo learns, not --task text" in refused(folder / "pairs", "--init-from", base)
