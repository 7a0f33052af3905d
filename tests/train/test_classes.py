"""Training a classifier: the loss however the batch is cut, what is trained, and the same bytes after a resume."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lib.artifact.record import from_json
from lib.artifact.tensors import load_tensors
from lib.config.params import load_params, resolve_config
from lib.data.dataset import Dataset
from lib.data.packing import text_windows
from lib.device.distributed import SINGLE_PROCESS
from lib.model.classifier import WindowTensors, class_logits
from lib.model.finetuning import Finetuning, select_trained
from lib.model.gpt import GPT
from lib.model.registry import build_model
from lib.run.folder import load_classifier, read_classes
from lib.run.metrics import read_metrics
from lib.train.classes import Classes, is_frozen_below
from lib.train.trainer import Trainer
from tests.conftest import PROJECT, Here

CPU = torch.device("cpu")
SETTINGS = ("--config", "debug", "--set", "train.task=classify", "--set", "train.batch_size=6", "--quiet")


def labeled_csv(count: int) -> str:
    """Texts of two classes: those of class `win` have a word that the others lack."""
    words = ["call me later", "see you at home", "ok then", "are you in town", "what a day"]
    rows = [f"{words[n % 5]} {'PRIZE' if n % 2 else 'today'} {n % 7}" for n in range(count)]
    return "label,text\n" + "".join(f"{'win' if n % 2 else 'plain'},{row}\n" for n, row in enumerate(rows))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classes")
    (folder / "texts.csv").write_text(labeled_csv(60))
    return folder


@pytest.fixture
def dataset(folder: Path, here: Here) -> Dataset:
    if not (folder / "dataset").exists():
        here("tokenize", "--labels", folder / "texts.csv", "--tokenizer", "bytes", "-o", folder / "tokens")
        fractions = ("--val-fraction", 0.2, "--test-fraction", 0.2)
        here("build-dataset", folder / "tokens", "-o", folder / "dataset", "--context-length", 32, *fractions)
    return Dataset(folder / "dataset")


def objective(dataset: Dataset, **changes: Any) -> Classes:
    config = resolve_config(load_params(PROJECT / "params.yaml"), "debug", ["train.batch_size=6", "train.task=classify"])
    train = replace(config.train, **changes)
    model = build_model(replace(config.model, vocab_size=256, n_classes=2))
    model.initialize(torch.Generator().manual_seed(1))
    select_trained(model, from_json(Finetuning, asdict(train)))
    return Classes(model, dataset, train, CPU, SINGLE_PROCESS)


def logits_of(texts: list[np.ndarray], model: GPT, capacity: int = 32) -> torch.Tensor:
    with torch.no_grad():
        return class_logits(model, WindowTensors(text_windows(texts, capacity), CPU))


@pytest.mark.parametrize("options", [{}, {"positions": "rotary", "norm": "rms", "n_kv_heads": 1, "window": 5}])
def test_the_logits_of_a_text_do_not_depend_on_what_is_next_to_it(options: dict[str, Any]) -> None:
    config = resolve_config(load_params(PROJECT / "params.yaml"), "debug").model
    model = build_model(replace(config, vocab_size=256, n_classes=3, **options))
    model.initialize(torch.Generator().manual_seed(1))
    assert isinstance(model, GPT)
    random = np.random.default_rng(1)
    texts = [random.integers(0, 256, length) for length in (7, 32, 1, 20, 3, 12)]
    together, alone = logits_of(texts, model), torch.cat([logits_of([text], model) for text in texts])
    assert together.shape == (6, 3)
    assert torch.allclose(together, alone, atol=1e-6)
    naive = torch.stack([model(torch.from_numpy(text)[None])[0, -1] for text in texts])  # the head on every position
    assert torch.allclose(together, naive, atol=1e-6)
    assert torch.allclose(logits_of(texts[::-1], model), together.flip(0), atol=1e-6)


def test_the_loss_is_the_mean_over_the_batch_however_it_is_cut(dataset: Dataset) -> None:
    whole, cut = Trainer(objective(dataset)), Trainer(objective(dataset, grad_accum_steps=3))
    for _ in range(3):
        first, second = whole.train_step(), cut.train_step()
        assert first.train_loss == pytest.approx(second.train_loss, rel=1e-5)
        assert first.grad_norm == pytest.approx(second.grad_norm, rel=1e-4)
        assert first.values == second.values
        assert 0 <= first.values["accuracy"] <= 1


def test_an_epoch_has_every_text_once(dataset: Dataset) -> None:
    mine = objective(dataset)
    assert dataset.labeled is not None
    numbers = [number for step in range(6) for number in mine.describe_batch(step)]
    assert sorted(numbers) == sorted(dataset.labeled.numbers("train").tolist())


def test_validation_counts_each_text_once(dataset: Dataset) -> None:
    mine = objective(dataset)
    assert dataset.labeled is not None
    texts = dataset.labeled.read(dataset.labeled.numbers("val"))
    logits = torch.cat([logits_of([ids], mine.model) for ids, _ in texts])  # type: ignore[arg-type]
    labels = torch.tensor([label for _, label in texts])
    validation = mine.validate()
    assert validation.loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert validation.values["accuracy"] == int((logits.argmax(1) == labels).sum()) / len(labels)


def test_below_the_last_block_nothing_moves_and_kept_features_change_nothing(dataset: Dataset) -> None:
    mine, again = objective(dataset, finetune="last_block"), objective(dataset, finetune="last_block")
    assert is_frozen_below(mine.model)
    assert not is_frozen_below(objective(dataset, finetune="lora").model)
    again._frozen = None
    before = {name: weight.clone() for name, weight in mine.model.named_parameters()}
    kept, computed = Trainer(mine), Trainer(again)
    for _ in range(4):
        first, second = kept.train_step(), computed.train_step()
        assert first.train_loss == pytest.approx(second.train_loss, rel=1e-5)
        assert first.grad_norm == pytest.approx(second.grad_norm, rel=1e-4)
    assert mine.validate().loss == pytest.approx(again.validate().loss, rel=1e-5)
    changed = {name for name, weight in mine.model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if name.startswith(("blocks.1.", "final_norm.", "out_head."))}
    config, first_block = mine.model.config, [weight for name, weight in before.items() if name.startswith("blocks.0.")]
    products = sum(weight.numel() for weight in first_block if weight.dim() == 2)
    saved = again.operations_per_token - mine.operations_per_token
    assert saved == 2 * products + 4 * config.emb_dim * config.context_length  # forward alone: it was frozen


@pytest.mark.parametrize("finetune", ["all", "last_block", "lora"])
def test_a_training_learns_the_classes_and_ends_with_the_same_bytes_after_a_resume(
    dataset: Dataset, folder: Path, here: Here, small: Path, finetune: str
) -> None:
    changes = ("--set", f"train.finetune={finetune}", "--set", "train.learning_rate=1e-2", "--max-steps", 40)
    base = () if finetune == "all" else ("--init-from", small / "run")
    train = ("train", folder / "dataset", *SETTINGS, *changes, *base)
    whole, stopped = folder / f"{finetune}-whole", folder / f"{finetune}-stopped"
    here(*train, "-o", whole)
    here(*train, "-o", stopped, "--stop-after", "0s")
    assert not (stopped / "model.safetensors").exists()
    here(*train, "-o", stopped)
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (whole / name).read_bytes() == (stopped / name).read_bytes()
    assert not (whole / "samples.jsonl").exists()
    last = read_metrics(whole)[-1]
    assert last.values["val_accuracy"] > 0.9
    assert read_classes(whole) == ("plain", "win")
    assert load_classifier(whole, CPU).classes == ("plain", "win")


def test_a_classifier_begins_with_the_body_of_a_model_of_texts(
    dataset: Dataset, folder: Path, here: Here, small: Path, tmp_path: Path
) -> None:
    again = ("train", folder / "dataset", *SETTINGS, "--max-steps", 1, "--set", "train.learning_rate=0")
    here(*again, "-o", tmp_path / "run", "--init-from", small / "run")
    mine, base = (load_tensors(path / "model.safetensors")[0] for path in (tmp_path / "run", small / "run"))
    assert mine["out_head.weight"].shape == (2, 32)
    assert all(torch.equal(mine[name], base[name]) for name in base if name != "out_head.weight")
    refused = here(*again, "-o", tmp_path / "other", "--init-from", tmp_path / "run", code=2).err
    assert "is a classifier; --init-from takes a model of texts" in refused


def test_tasks_and_datasets_must_fit(dataset: Dataset, folder: Path, here: Here, small: Path, tmp_path: Path) -> None:
    assert (
        "from which --task classify learns, not --task text"
        in here("train", folder / "dataset", "--config", "debug", "-o", tmp_path / "r", code=2).err
    )
    assert "needs labeled texts" in here("train", small / "dataset", *SETTINGS, "-o", tmp_path / "r", code=2).err
    three = ("--set", "model.n_classes=3")
    assert (
        "has 2 classes; leave it null" in here("train", folder / "dataset", *SETTINGS, *three, "-o", tmp_path / "r", code=2).err
    )
    assert "labeled texts; leave it out" in here("train", folder / "dataset", *SETTINGS, "--plan", code=2).err
    kind = ("--set", "model.kind=bigram", "--set", "model.n_layers=1", "--set", "model.n_heads=1")
    assert (
        "model.n_classes=2 is not supported"
        in here("train", folder / "dataset", *SETTINGS, *kind, "-o", tmp_path / "r", code=2).err
    )
    assert not (tmp_path / "r").exists()


def test_stages_for_texts_refuse_a_classifier(dataset: Dataset, folder: Path, here: Here, tmp_path: Path) -> None:
    run = folder / "all-whole"
    for words in (("generate", run, "hello"), ("plot", "tokens", run)):
        assert "is a classifier (plain, win), which predicts no tokens" in here(*words, code=2).err
    assert "has model.n_classes=2" in here("export-weights", run, "-o", tmp_path / "e", code=2).err
    assert not (tmp_path / "e").exists()
    saved = json.loads((run / "config.json").read_text())
    assert saved["classes"] == {"names": ["plain", "win"]}
