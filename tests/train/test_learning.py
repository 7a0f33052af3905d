"""What a training may learn besides the next token: unigram start, targets softened by counts, one row for unseen tokens."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lib.config.params import load_params, resolve_config
from lib.config.schema import Config
from lib.data.dataset import Dataset
from lib.errors import UsageError
from lib.model.loss import SoftTargets, cross_entropy, linear_cross_entropy, naive_cross_entropy
from lib.model.seen_vocabulary import SeenVocabulary
from lib.ngrams.counts import NGrams
from lib.ngrams.kneser_ney import KneserNey
from lib.run.folder import MODEL_FILE
from lib.run.metrics import METRICS_FILE
from lib.train.estimate import estimate_training
from lib.train.initial_weights import initial_model
from lib.train.next_token import NextToken
from lib.train.schedule import learning_rate
from lib.train.session import train_run
from lib.train.tasks import check_task
from lib.train.teacher import PARTS, Teacher
from lib.train.trainer import Trainer
from tests.conftest import PROJECT

CPU = torch.device("cpu")


def config(*changes: str) -> Config:
    fixed = ["train.max_steps=12", "train.eval_interval=4", "train.batch_size=4", "train.head_init=zero"]
    return resolve_config(load_params(PROJECT / "params.yaml"), "debug", [*fixed, *changes])


def trainer(small: Path, *changes: str) -> Trainer:
    chosen, dataset = config(*changes), Dataset(small / "dataset")
    model_config = dataclasses.replace(chosen.model, vocab_size=dataset.vocab_size)
    model = initial_model(small / "none", None, None, model_config, chosen.train, dataset)
    return Trainer(NextToken(model, dataset, chosen.train, CPU))


def train(folder: Path, small: Path, chosen: Config, stop_after: int | None = None) -> list[Any]:
    steps = iter(range(1, 1000))
    dataset = Dataset(small / "dataset")
    return list(
        train_run(
            folder,
            dataset,
            chosen.model,
            chosen.train,
            CPU,
            resume=True,
            started="now",
            stop_asked=lambda: next(steps) == stop_after,
        )
    )


def soft_targets(count: int, vocab: int, share: float) -> SoftTargets:
    return SoftTargets(torch.softmax(torch.randn(count, vocab, generator=torch.Generator().manual_seed(3)), dim=-1), share)


# Losses with soft targets.


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_three_cross_entropies_agree_on_mixed_targets(share: float) -> None:
    generator = torch.Generator().manual_seed(1)
    x, weight = torch.randn(9, 5, generator=generator), torch.randn(7, 5, generator=generator)
    targets, soft = torch.arange(9) % 7, soft_targets(9, 7, share)
    mixed = (1 - share) * torch.nn.functional.one_hot(targets, 7) + share * soft.rows
    expected = -(mixed * torch.log_softmax(x @ weight.T, dim=-1)).sum()
    for loss in (naive_cross_entropy, cross_entropy):
        assert torch.isclose(loss(x @ weight.T, targets, soft), expected, rtol=1e-5)
    assert torch.isclose(linear_cross_entropy(x, weight, targets, soft), expected, rtol=1e-5)


def test_the_gradients_of_the_fused_loss_are_those_of_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib.model.loss.LOGITS_AT_ONCE", 32)  # several parts
    generator = torch.Generator().manual_seed(1)
    targets, soft = torch.arange(9) % 7, soft_targets(9, 8, 0.4)
    gradients = []
    for fused in (True, False):
        x, weight = torch.randn(9, 5, generator=generator.manual_seed(1)), torch.randn(8, 5, generator=generator.manual_seed(2))
        x.requires_grad_(), weight.requires_grad_()
        if fused:
            linear_cross_entropy(x, weight, targets, soft, copies=20).backward()
        else:
            logits = x @ weight.T + torch.tensor([0.0] * 7 + [math.log(20)])
            cross_entropy(logits, targets, soft).backward()
        gradients.append((x.grad, weight.grad))
    for fused_gradient, gradient in zip(*gradients, strict=True):
        assert torch.allclose(fused_gradient, gradient, atol=1e-6)


# Labels smoothed.


@pytest.mark.parametrize("rows", ["shared", "separate"])
def test_smoothed_labels_are_pytorchs_whether_unseen_tokens_share_a_row_or_not(small: Path, rows: str) -> None:
    smooth = trainer(small, "train.label_smoothing=0.2", f"train.unseen_rows={rows}", "train.optimizer=adamw")
    smooth.train_step()  # so that the logits differ
    ids = torch.tensor(smooth.objective.describe_batch(1))
    with torch.no_grad():
        logits, targets = smooth.model(ids[:, :-1]), ids[:, 1:]
        expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), label_smoothing=0.2)
    assert smooth.train_step().train_loss == pytest.approx(expected.item(), rel=1e-5)
    assert smooth.validate().loss != pytest.approx(expected.item(), rel=1e-3)


@pytest.mark.parametrize("task", ["text", "dpo"])
def test_labels_are_smoothed_once_and_only_where_tokens_are_learned(small: Path, task: str) -> None:
    if task == "text":
        with pytest.raises(UsageError, match="both soften the targets; set one of them to 0"):
            config("train.label_smoothing=0.1", "train.counts_share=0.5")
    else:
        chosen = config("train.label_smoothing=0.1", f"train.task={task}")
        with pytest.raises(
            UsageError, match=r"train\.label_smoothing is for running text and parallel texts, not for --task dpo"
        ):
            check_task(chosen.train, chosen.model, Dataset(small / "dataset"), small / "run")


# One row for all unseen tokens.


@pytest.mark.parametrize("share", ["0", "0.5"])
@pytest.mark.parametrize(
    "design",
    [["model.layer_impl=fused"], ["model.layer_impl=naive"], ["model.ngram_order=3", "model.ngram_rows=500"]],
)
def test_sharing_the_row_of_unseen_tokens_trains_the_same_model(small: Path, share: str, design: list[str]) -> None:
    changes = [f"train.counts_share={share}", "train.optimizer=adamw", *design]
    shared, separate = (trainer(small, *changes, f"train.unseen_rows={rows}") for rows in ("shared", "separate"))
    unseen = set(range(256)) - set(Dataset(small / "dataset").train_ids().tolist())
    assert shared.trained.out_head.weight.shape[0] == 256 - len(unseen) + 1
    assert separate.trained is separate.model
    for _ in range(12):
        one, other = shared.train_step(), separate.train_step()
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-3)
    assert shared.validate().loss == pytest.approx(separate.validate().loss, rel=1e-4)
    rows = shared.model.out_head.weight[sorted(unseen)]
    assert (rows == rows[0]).all()


def test_rows_that_begin_different_or_are_tied_are_trained_one_by_one(small: Path) -> None:
    for changes in (["train.head_init=random"], ["train.head_init=random", "model.tie_weights=true"]):
        each = trainer(small, *changes)
        assert each.trained is each.model


def test_the_whole_model_has_the_weights_of_its_step_whenever_it_is_asked_for(small: Path) -> None:
    running = trainer(small)
    assert running.trained is not running.model
    seen = torch.from_numpy(Dataset(small / "dataset").train_ids())
    for _ in range(2):
        running.train_step()
        head: Any = running.trained.out_head
        assert torch.equal(running.model.out_head.weight[seen], head.weight[:-1])


@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["train.counts_share=0.5", "train.head_init=unigram", "model.ngram_order=2", "model.ngram_rows=300"],
        ["train.counts_share=0.9", "train.invented_share=0.5"],
        ["model.window=2", "model.attention_pattern=strided", "model.drop_rate=0.1"],
    ],
)
def test_a_stopped_training_with_a_shared_row_ends_with_the_same_bytes(small: Path, tmp_path: Path, changes: list[str]) -> None:
    chosen = config(*changes)
    train(tmp_path / "one", small, chosen)
    train(tmp_path / "two", small, chosen, stop_after=5)
    assert not (tmp_path / "two" / MODEL_FILE).exists()
    train(tmp_path / "two", small, chosen)
    for name in (MODEL_FILE, METRICS_FILE):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_seen_tokens_keep_their_own_rows(small: Path) -> None:
    model: Any = trainer(small, "train.unseen_rows=separate").model
    seen = torch.tensor([3, 7, 200])
    vocabulary = SeenVocabulary(model, seen)
    assert vocabulary.columns[seen].tolist() == [0, 1, 2]
    assert vocabulary.columns[4] == 3
    assert torch.equal(vocabulary.trained.tok_emb.weight[:3], model.tok_emb.weight[seen])  # type: ignore[union-attr, index]


# A head that begins with the unigram.


def test_a_head_can_begin_with_the_counted_unigram(small: Path) -> None:
    started = trainer(small, "train.head_init=unigram")
    dataset = Dataset(small / "dataset")
    unigram = KneserNey(NGrams(dataset.tokens, [dataset.split("train")], 1, 256)).rows(dataset.tokens, np.array([0]))[0]
    with torch.no_grad():
        p = torch.softmax(started.model(torch.tensor([[1, 2, 3]])), dim=-1)[0]
    for row in p:
        assert torch.allclose(row, torch.from_numpy(unigram), rtol=1e-3, atol=1e-7)


def test_a_head_can_begin_with_a_uniform_guess(small: Path) -> None:
    assert trainer(small, "train.head_init=zero").validate().loss == pytest.approx(math.log(256), rel=1e-6)


@pytest.mark.parametrize("change", ["model.norm=rms", "model.tie_weights=true"])
def test_a_design_that_cannot_begin_with_the_unigram_is_refused(small: Path, change: str) -> None:
    with pytest.raises(UsageError, match="use model"):
        trainer(small, change, "train.head_init=unigram")


# Positions that begin as waves.


def test_positions_can_begin_as_waves(small: Path) -> None:
    drawn, waves = (trainer(small, f"train.position_init={kind}").model for kind in ("random", "sinusoidal"))
    table: Any = waves.pos_emb.weight  # type: ignore[union-attr]
    T, C = table.shape
    for t, wave in ((1, 0), (7, 3), (T - 1, C // 2 - 1)):
        angle = t * 100.0 ** (-2 * wave / C)
        expected = pytest.approx([0.15 * math.sin(angle), 0.15 * math.cos(angle)], abs=1e-6)
        assert table[t, 2 * wave : 2 * wave + 2].tolist() == expected
    same = [name for name, weight in drawn.named_parameters() if torch.equal(weight, waves.get_parameter(name))]
    assert len(same) == len(list(drawn.parameters())) - 1


def test_one_matrix_looks_back_from_every_position_of_waves(small: Path) -> None:
    table: Any = trainer(small, "train.position_init=sinusoidal").model.pos_emb.weight  # type: ignore[union-attr]
    turned = torch.linalg.lstsq(table[:-1].double(), table[1:].double()).solution
    assert torch.allclose(table[:-1].double() @ turned, table[1:].double(), atol=1e-6)


@pytest.mark.parametrize("change", ["model.positions=rotary", "model.positions=sinusoidal"])
def test_a_design_without_learned_positions_is_refused(small: Path, change: str) -> None:
    with pytest.raises(UsageError, match=r"use model\.kind=gpt and model\.positions=learned"):
        trainer(small, change, "train.position_init=sinusoidal")


# Targets softened by counts.


def test_no_token_is_told_of_itself(small: Path) -> None:
    dataset = Dataset(small / "dataset")
    start, stop = dataset.split("train")
    bounds = np.linspace(start, stop, PARTS + 1).astype(int)
    positions = np.array([1, stop // 2, stop - 1])
    rows = Teacher(dataset, 3).rows(positions)
    for row, position in zip(rows, positions, strict=True):
        part = np.searchsorted(bounds, position, side="right") - 1
        others = [(start, int(bounds[part])), (int(bounds[part + 1]), stop)]
        expected = KneserNey(NGrams(dataset.tokens, others, 3, 256)).rows(dataset.tokens, np.array([position]))[0]
        assert np.array_equal(row.numpy(), expected)
    assert torch.allclose(rows.sum(dim=-1), torch.ones(3), atol=1e-5)


def test_the_columns_of_unseen_tokens_are_summed(small: Path) -> None:
    dataset = Dataset(small / "dataset")
    seen = dataset.train_ids()
    columns = np.full(256, len(seen))
    columns[seen] = np.arange(len(seen))
    positions = np.arange(5, 40)
    whole, summed = Teacher(dataset, 3).rows(positions), Teacher(dataset, 3, columns).rows(positions)
    assert torch.allclose(summed[:, :-1], whole[:, seen], atol=1e-7)
    assert torch.allclose(summed.sum(dim=-1), torch.ones(len(positions)), atol=1e-5)


def test_a_model_that_is_taught_by_counts_alone_learns_the_next_token(small: Path) -> None:
    taught = trainer(small, "train.counts_share=1", "train.max_steps=40", "train.head_init=unigram")
    before = taught.validate().loss
    for _ in range(40):
        taught.train_step()
    assert taught.validate().loss < before - 0.3


# The schedule.


def test_the_learning_rate_falls_along_a_line() -> None:
    train_config = config(
        "train.schedule=linear", "train.warmup_steps=2", "train.min_lr_ratio=0", "train.learning_rate=1"
    ).train
    rates = [learning_rate(step, train_config) for step in range(12)]
    assert rates == pytest.approx([0.5, 1.0, *(1 - step / 10 for step in range(10))])


def test_the_learning_rate_falls_with_the_root_of_the_step_as_in_the_original_transformer() -> None:
    peak = (512 * 4000) ** -0.5
    changes = ("train.warmup_steps=4000", "train.min_lr_ratio=0", f"train.learning_rate={peak}", "train.max_steps=100000")
    original = config("train.schedule=inverse_sqrt", *changes).train
    for step in (1, 2, 1000, 3999, 4000, 4001, 16_000, 100_000):
        assert learning_rate(step - 1, original) == pytest.approx(512**-0.5 * min(step**-0.5, step * 4000**-1.5), rel=1e-9)
    longer = dataclasses.replace(original, max_steps=200_000)
    assert learning_rate(99_999, longer) == learning_rate(99_999, original)  # it does not depend on how long the training is
    floor = dataclasses.replace(original, min_lr_ratio=0.5)
    assert learning_rate(99_999, floor) == pytest.approx(0.5 * peak)
    at_once = dataclasses.replace(original, warmup_steps=0)
    assert [learning_rate(step, at_once) / peak for step in (0, 3, 99)] == pytest.approx([1.0, 0.5, 0.1])


@pytest.mark.parametrize(("units", "least", "most"), [(4.0, 1.2, 4.0), (1.0, 1.0, 1.0), (0.25, 0.25, 0.8)])
def test_the_plan_says_what_bfloat16_would_bring(
    monkeypatch: pytest.MonkeyPatch, units: float, least: float, most: float
) -> None:
    """The products alone become faster or slower, as much as such products were measured to be."""

    def rate(device: torch.device, shape: Any, dtype: torch.dtype) -> float:
        return 1e11 * (units if dtype == torch.bfloat16 else 1.0)

    monkeypatch.setattr("lib.train.estimate.matmul_rate", rate)
    monkeypatch.setattr("lib.train.estimate.pass_rate", lambda device: 1e9)
    chosen = resolve_config(load_params(PROJECT / "params.yaml"), "gpt_balanced")
    model = dataclasses.replace(chosen.model, vocab_size=50257)
    assert least <= estimate_training(model, chosen.train, CPU, 0)["bfloat16_speedup"] <= most
    in_bfloat16 = dataclasses.replace(chosen.train, precision="bfloat16")
    assert estimate_training(model, in_bfloat16, CPU, 0)["bfloat16_speedup"] == 1.0


def test_the_plan_of_a_training_with_a_shared_row_is_that_of_the_smaller_model() -> None:
    chosen = resolve_config(load_params(PROJECT / "params.yaml"), "gpt_balanced")
    model = dataclasses.replace(chosen.model, vocab_size=50257)
    whole, shared = (estimate_training(model, chosen.train, CPU, 5000, seen) for seen in (None, 5500))
    assert shared["parameters"] == whole["parameters"]
    assert shared["memory_bytes"] < 0.7 * whole["memory_bytes"]
    assert shared["seconds"] < 0.9 * whole["seconds"]
    separate = dataclasses.replace(chosen.train, unseen_rows="separate")
    assert estimate_training(model, separate, CPU, 5000, 5500)["memory_bytes"] == whole["memory_bytes"]
