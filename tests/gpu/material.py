"""What the tests on CUDA share: small models and a small dataset, the same on both devices."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lib.config.model import ModelConfig
from lib.config.params import load_params, resolve_config
from lib.config.schema import Config
from lib.data.corpus import write_corpus
from lib.data.dataset import Dataset, build_dataset
from lib.data.text import open_document
from lib.device.precision import autocast
from lib.model.language_model import LanguageModel
from lib.model.registry import build_model
from lib.train.initial_weights import init_head
from lib.train.next_token import NextToken
from lib.train.session import fit_vocabulary
from lib.train.trainer import Trainer
from tests.conftest import PROJECT, TEXT

CPU, CUDA = torch.device("cpu"), torch.device("cuda")

needs_cuda = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("default"),  # drivers and compilers have warnings of their own
]

VOCABULARY = 97
CONTEXT = 64

SMALL = ("model.context_length=64", "model.emb_dim=64", "model.n_heads=4", "model.n_layers=2")

#: Name -> the config that it is a small form of, and what is changed.
DESIGNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "gpt_balanced": ("gpt_balanced", SMALL),
    "gpt_modern": ("gpt_modern", SMALL),
    "gpt2_small": ("gpt2_small", SMALL),
    "window": ("gpt_balanced", (*SMALL, "model.window=16", "model.positions=sinusoidal")),
    "bigram": ("bigram", ("model.context_length=64",)),
    "lstm": ("lstm", ("model.emb_dim=64",)),
    "single_head": ("single_head", ("model.context_length=64",)),
    "multi_head": ("multi_head", ("model.context_length=64",)),
    "single_block": ("single_block", ("model.context_length=64",)),
}


def small_config(design: str, *changes: str) -> Config:
    """The configuration of a small design, with `changes`."""
    name, small = DESIGNS[design]
    return resolve_config(load_params(PROJECT / "params.yaml"), name, [*small, *changes])


def model_config(design: str, implementation: str = "fused") -> ModelConfig:
    """The model of a small design over a vocabulary of 97 tokens; `implementation`: fused or naive."""
    return dataclasses.replace(
        small_config(design).model,
        vocab_size=VOCABULARY,
        attention_impl=implementation,
        layer_impl=implementation,
    )


def random_model(config: ModelConfig, device: torch.device) -> LanguageModel:
    """The model with weights drawn on the CPU, the same for every device; biases are not zero."""
    model = build_model(config)
    generator = torch.Generator().manual_seed(1)
    model.initialize(generator)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.add_(torch.empty_like(weight).normal_(0.0, 0.1, generator=generator))
    return model.to(device).eval()


def random_ids(rows: int, columns: int) -> Tensor:
    """Ids of the small vocabulary on the CPU, (rows, columns)."""
    return torch.randint(VOCABULARY, (rows, columns), generator=torch.Generator().manual_seed(2))


def loss_and_gradient(
    model: LanguageModel, ids: Tensor, precision: torch.dtype = torch.float32, scale: float = 1.0
) -> tuple[float, dict[str, Tensor]]:
    """The mean loss of `ids`, (B, T + 1), in nats/token, and the gradient of every parameter, on the CPU."""
    device = next(model.parameters()).device
    ids = ids.to(device)
    model.zero_grad()
    with autocast(precision, device):
        loss = model.loss(ids[:, :-1], ids[:, 1:]) / ids[:, 1:].numel()
    (loss * scale).backward()
    gradients = {
        name: weight.grad.detach().cpu() / scale for name, weight in model.named_parameters() if weight.grad is not None
    }
    return loss.item(), gradients


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """The norm of the difference as a fraction of the norm of `expected`."""
    return ((actual - expected).norm() / expected.norm()).item()


def flat(tensors: dict[str, Tensor]) -> Tensor:
    """All numbers in one vector, by name."""
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


def small_dataset(folder: Path) -> Dataset:
    """The dataset of the tests' text, bytes in windows of 64 tokens, made in `folder`."""
    (folder / "play.txt").write_text(TEXT, encoding="utf-8")
    config = small_config("gpt_balanced").tokenize
    write_corpus(
        folder / "tokens", [open_document(folder / "play.txt")], "bytes", config, started="now", on_bytes=lambda _: None
    )
    build_dataset(folder / "tokens", folder / "dataset", context_length=CONTEXT, stride=None, val_fraction=0.2, started="now")
    return Dataset(folder / "dataset")


def small_trainer(dataset: Dataset, device: torch.device, design: str = "gpt_balanced", **changes: Any) -> Trainer:
    """A training in memory on `device`, its initial weights drawn on the CPU; `changes`: parameters of section train."""
    settings = {"max_steps": 40, "batch_size": 8, "warmup_steps": 5, "compile": "off", "precision": "float32"} | RECIPES[
        "adamw"
    ]
    config = small_config(design, *(f"train.{name}={value}" for name, value in (settings | changes).items()))
    model = build_model(fit_vocabulary(config.model, dataset.tokens.load_tokenizer()))
    model.initialize(torch.Generator().manual_seed(1))
    init_head(model, config.train.head_init, dataset)
    return Trainer(NextToken(model.to(device), dataset, config.train, device))


#: Recipes of training: parameters of section train.
RECIPES: dict[str, dict[str, Any]] = {
    "adamw": {
        "optimizer": "adamw", "learning_rate": 3e-3, "embedding_lr_mult": 1, "head_init": "random", "counts_share": 0,
        "invented_share": 0,
    },
    "muon": {"optimizer": "muon", "learning_rate": 1e-2},
    "accumulated": {"batch_size": 6, "grad_accum_steps": 3},
    "shared rows": {"head_init": "zero", "unseen_rows": "shared"},
    "counts": {"head_init": "zero", "unseen_rows": "separate", "counts_share": 0.9, "invented_share": 0.5},
    "gpt_balanced": {
        "optimizer": "muon", "head_init": "unigram", "unseen_rows": "shared", "counts_share": 0.9, "invented_share": 0.5,
    },
}  # fmt: skip
