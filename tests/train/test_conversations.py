"""Training on conversations: the loss of the answers, however the batch is cut, and the same bytes after a resume."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lib.config.params import load_params, resolve_config
from lib.data.dataset import Dataset
from lib.errors import UsageError
from lib.evaluate.windows import total_nats_of_texts
from lib.model.registry import build_model
from lib.run.folder import load_run, read_chat_template
from lib.run.metrics import read_metrics
from lib.train.next_token import NextToken
from lib.train.trainer import Trainer
from tests.chat.test_template import TOKENIZER
from tests.conftest import PROJECT, Here

CPU = torch.device("cpu")
T = 48
SETTINGS = ("--config", "debug", "--set", f"model.context_length={T}", "--set", "train.batch_size=6", "--quiet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 40 conversations, each a letter that is answered twice."""
    folder = tmp_path_factory.mktemp("talk")
    TOKENIZER.save(folder / "tokenizer.json")
    lines = []
    for number in range(40):
        letter = "abcdefgh"[number % 8]
        messages = [{"role": "user", "content": letter}, {"role": "assistant", "content": letter * (1 + number % 3)}]
        lines.append(json.dumps({"messages": messages}))
    (folder / "talk.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def dataset(folder: Path, here: Here) -> Dataset:
    if not (folder / "dataset").exists():
        here("tokenize", "--chat", folder / "talk.jsonl", "--tokenizer", folder, "-o", folder / "tokens")
        here("build-dataset", folder / "tokens", "-o", folder / "dataset", "--context-length", T, "--val-fraction", 0.2)
    return Dataset(folder / "dataset")


def trainer(dataset: Dataset, **changes: Any) -> Trainer:
    config = resolve_config(load_params(PROJECT / "params.yaml"), "debug", ["train.batch_size=6"])
    model = build_model(replace(config.model, vocab_size=TOKENIZER.vocab_size, context_length=T))
    model.initialize(torch.Generator().manual_seed(1))
    return Trainer(NextToken(model, dataset, replace(config.train, **changes), CPU))


def test_the_loss_is_the_mean_over_the_learned_tokens_of_the_whole_batch(dataset: Dataset) -> None:
    whole, cut = trainer(dataset), trainer(dataset, grad_accum_steps=3)
    windows = dataset.packed_batch(whole.config.seed, 0, 6)
    texts = []
    for row in range(6):
        for text in range(windows.texts[row].max() + 1):
            mine = windows.texts[row] == text
            texts.append((windows.ids[row, mine], windows.trained[row, mine]))
    expected = total_nats_of_texts(whole.model, texts, CPU) / windows.trained.sum()
    for step in range(3):
        first, second = whole.train_step(), cut.train_step()
        assert first.train_loss == pytest.approx(second.train_loss, rel=1e-5)
        assert first.grad_norm == pytest.approx(second.grad_norm, rel=1e-4)
        if not step:
            assert first.train_loss == pytest.approx(expected, rel=1e-5)


def test_validation_counts_each_answer_once(dataset: Dataset) -> None:
    mine = trainer(dataset)
    texts = list(dataset.texts_of("val"))
    tokens = sum(int(learned.sum()) for _, learned in texts)
    assert len(texts) == 8
    assert mine.validate().loss == pytest.approx(total_nats_of_texts(mine.model, texts, CPU) / tokens, rel=1e-6)


def test_counts_do_not_go_with_conversations(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match=r"counts_share counts running text.*set it to 0"):
        trainer(dataset, counts_share=0.5)


def test_a_training_learns_the_form_and_ends_with_the_same_bytes_after_a_resume(
    dataset: Dataset, folder: Path, here: Here
) -> None:
    train = ("train", folder / "dataset", *SETTINGS, "--max-steps", 60)
    here(*train, "-o", folder / "whole")
    here(*train, "-o", folder / "stopped", "--stop-after", "0s")
    assert not (folder / "stopped" / "model.safetensors").exists()
    here(*train, "-o", folder / "stopped")
    whole, stopped = ((folder / name / "model.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert whole == stopped
    losses = [line.val_loss for line in read_metrics(folder / "whole") if line.val_loss is not None]
    assert losses[-1] < 0.7 * losses[0]
    template = read_chat_template(folder / "whole")
    assert template is not None
    assert template.to_saved() == dataset.tokens.chat
    assert load_run(folder / "whole", CPU).tokenizer.identity() == TOKENIZER.identity()
    assert here("generate", folder / "whole", "--chat", "a", "--max-new-tokens", 3).out
