"""The model against the formulas, PyTorch's functions, and the published parameter counts."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from lib.config.model import ModelConfig
from lib.config.params import load_params, resolve_config
from lib.errors import MakegptError
from lib.model.causal_attention import attention_weights
from lib.model.feed_forward import gelu
from lib.model.language_model import LanguageModel
from lib.model.loss import cross_entropy, naive_cross_entropy
from lib.model.norm import layer_norm
from lib.model.registry import build_model, count_parameters
from tests.conftest import PROJECT

TREE = load_params(PROJECT / "params.yaml")
VOCABULARY = {"gpt2": 50257, "bytes": 256, "char": 65}


def config_of(name: str, **changes: Any) -> ModelConfig:
    config = resolve_config(TREE, name)
    return dataclasses.replace(config.model, **{"vocab_size": VOCABULARY[config.tokenize.tokenizer], **changes})


def small_model(seed: int = 1, **changes: Any) -> LanguageModel:
    model = build_model(config_of("debug", **changes))
    model.initialize(torch.Generator().manual_seed(seed))
    return model.eval()


def ids(rows: int = 2, length: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (rows, length), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("gpt_real", 162_419_712),
        ("gpt_demo", 119_906_304),
        ("gpt_deep", 59_976_192),
        ("gpt_balanced", 49_336_320),
        ("decoder", 618_752),
        ("published_char", 808_320),
        ("published_verdict", 162_419_712),
    ],
)
def test_parameter_counts_are_those_of_params_yaml(name: str, parameters: int) -> None:
    assert count_parameters(build_model(config_of(name), "meta")) == parameters


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("vocabulary", "width"), [(65, 128), (256, 32), (50_257, 384), (50_257, 768)])
def test_the_initial_loss_is_near_that_of_a_uniform_guess(vocabulary: int, width: int, tied: bool) -> None:
    model = build_model(config_of("debug", vocab_size=vocabulary, emb_dim=width, n_heads=4, tie_weights=tied))
    model.initialize(torch.Generator().manual_seed(1))
    ids = torch.randint(0, vocabulary, (8, 33), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        loss = F.cross_entropy(model.eval()(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).item()
    assert abs(loss - math.log(vocabulary)) < 0.1


def test_initial_weights_follow_from_the_seed() -> None:
    first, second, other = (dict(small_model(seed).named_parameters()) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["tok_emb.weight"], other["tok_emb.weight"])


def test_layer_norm_is_pytorchs() -> None:
    x = torch.randn(4, 7, 32) * 3 + 1
    scale, shift = torch.randn(32), torch.randn(32)
    torch.testing.assert_close(layer_norm(x, scale, shift, 1e-5), F.layer_norm(x, (32,), scale, shift), rtol=1e-5, atol=1e-5)


def test_layer_norm_gives_mean_0_and_variance_1() -> None:
    rows = layer_norm(torch.randn(5, 64) * 9 - 4, torch.ones(64), torch.zeros(64), 1e-5)
    torch.testing.assert_close(rows.mean(-1), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(rows.var(-1, unbiased=False), torch.ones(5), atol=1e-4, rtol=0)


def test_gelu_is_pytorchs_tanh_form() -> None:
    x = torch.linspace(-6, 6, 101)
    torch.testing.assert_close(gelu(x), F.gelu(x, approximate="tanh"), rtol=1e-5, atol=1e-6)


def test_naive_attention_is_pytorchs() -> None:
    q, k, v = torch.randn(3, 2, 4, 9, 8)
    future = torch.ones(9, 9, dtype=torch.bool).triu(1)
    naive = attention_weights(q, k, future) @ v
    torch.testing.assert_close(naive, F.scaled_dot_product_attention(q, k, v, is_causal=True), rtol=1e-5, atol=1e-5)


def test_naive_cross_entropy_is_pytorchs_for_large_logits_too() -> None:
    logits, targets = torch.randn(12, 50) * 100, torch.randint(0, 50, (12,))
    torch.testing.assert_close(naive_cross_entropy(logits, targets), cross_entropy(logits, targets))


def test_the_last_prediction_depends_on_every_token() -> None:
    model = small_model()
    last = model(ids(1))[0, -1]
    for t in range(32):
        changed = ids(1).clone()
        changed[0, t] = (changed[0, t] + 1) % 256
        assert not torch.equal(last, model(changed)[0, -1]), t


def test_the_next_tokens_logits_are_those_of_the_whole_forward_pass() -> None:
    model = small_model()
    torch.testing.assert_close(model.next_token_logits(ids()), model(ids())[:, -1], rtol=1e-5, atol=1e-5)


def test_a_tied_head_is_the_embedding() -> None:
    model = small_model(tie_weights=True)
    assert model.out_head.weight is model.tok_emb.weight
    assert "out_head.weight" not in dict(model.named_parameters())


def test_dropout_acts_in_training_only() -> None:
    model = small_model(drop_rate=0.5)
    assert torch.equal(model(ids()), model(ids()))
    model.train()
    assert not torch.equal(model(ids()), model(ids()))


def test_more_tokens_than_the_context_are_refused() -> None:
    with pytest.raises(MakegptError, match="33 tokens are more than the model's context of 32"):
        small_model()(ids(1, 33))


def test_weight_decay_applies_to_matrices_and_embeddings_only() -> None:
    model = small_model(qkv_bias=True)
    undecayed = {name for name, _ in model.named_parameters() if not model.uses_weight_decay(name)}
    assert all(name.endswith((".bias", ".scale", ".shift")) for name in undecayed)
    assert {"tok_emb.weight", "out_head.weight"} & undecayed == set()
