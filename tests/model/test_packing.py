"""Packed texts: each as if it were alone, whatever stands next to it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lib.config.model import ModelConfig
from lib.config.params import load_params, resolve_config
from lib.model.language_model import LanguageModel
from lib.model.packing import PackedTargets, Packing
from lib.model.registry import build_model
from tests.conftest import PROJECT

DEBUG = resolve_config(load_params(PROJECT / "params.yaml"), "debug").model
MODERN = {"positions": "rotary", "norm": "rms", "feed_forward": "swiglu", "n_kv_heads": 1, "qk_norm": True}
SHAPES: dict[str, dict[str, object]] = {
    "bigram": {"kind": "bigram", "n_layers": 1, "n_heads": 1, "qkv_bias": False},
    "lstm": {"kind": "lstm", "n_heads": 1},
    "single_head": {"kind": "single_head", "n_layers": 1, "n_heads": 1},
    "multi_head": {"kind": "multi_head", "n_layers": 1},
    "single_block": {"kind": "single_block", "n_layers": 1},
    "gpt": {},
    "gpt, naive": {"attention_impl": "naive", "layer_impl": "naive"},
    "sinusoidal, window": {"positions": "sinusoidal", "window": 3},
    "strided": {"window": 2, "attention_pattern": "strided"},
    "modern, n-grams": MODERN | {"ngram_order": 3, "ngram_rows": 50},
}
LENGTHS = [5, 1, 9, 4]
TEXTS = torch.tensor([[0] * 5 + [1] + [2] * 9 + [3] * 4 + [-1] * 3])


def model_of(shape: dict[str, object]) -> LanguageModel:
    config: ModelConfig = replace(DEBUG, vocab_size=40, **shape)  # type: ignore[arg-type]
    model = build_model(config)
    model.initialize(torch.Generator().manual_seed(1))
    for name, weight in model.named_parameters():
        if name.startswith("ngram_emb."):
            torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(2))
    return model.eval()


def draw(seed: int) -> Tensor:
    return torch.randint(0, 40, TEXTS.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_a_packed_text_gets_the_numbers_it_would_get_alone(shape: str) -> None:
    model, ids = model_of(SHAPES[shape]), draw(3)
    packed = model.features(ids, packing=Packing(TEXTS))[0]
    start = 0
    for length in LENGTHS:
        alone = model.features(ids[:, start : start + length])[0]
        torch.testing.assert_close(packed[start : start + length], alone, rtol=1e-5, atol=1e-5)
        start += length


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_another_text_next_to_it_does_not_change_a_bit(shape: str) -> None:
    model, ids = model_of(SHAPES[shape]), draw(3)
    others = torch.where(TEXTS == 2, ids, draw(4))
    mine, theirs = (model.features(given, packing=Packing(TEXTS))[TEXTS == 2] for given in (ids, others))
    assert torch.equal(mine, theirs)
    assert not torch.equal(ids, others)


def test_positions_begin_again_with_each_text() -> None:
    packing = Packing(TEXTS)
    assert packing.positions.tolist() == [[*range(5), 0, *range(9), *range(4), *range(3)]]
    assert packing.before(torch.arange(22)[None], 2)[0, 4:9].tolist() == [2, -1, -1, -1, 6]


@pytest.mark.parametrize("shape", ["gpt", "gpt, naive", "modern, n-grams", "bigram"])
def test_the_loss_is_that_of_the_learned_tokens_alone(shape: str) -> None:
    model, ids, targets = model_of(SHAPES[shape]), draw(3), draw(5)
    trained = torch.zeros_like(TEXTS, dtype=torch.bool)
    trained[0, [2, 3, 8, 13, 17]] = True
    packed = PackedTargets(Packing(TEXTS), trained)
    loss = model.loss(ids, targets, packed=packed)
    logits = model.out_head(model.features(ids, packing=packed.packing))
    expected = torch.nn.functional.cross_entropy(logits[trained], targets[trained], reduction="sum")
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    wanted = torch.autograd.grad(expected, list(model.parameters()), allow_unused=True)
    for mine, theirs in zip(gradients, wanted, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None:
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
