"""LoRA: nothing changes before the first step, only the adapters learn, and merged they are one matrix again."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lib.config.params import load_params, resolve_config
from lib.errors import UsageError
from lib.generate.quantize import InferenceModel
from lib.model.finetuning import Finetuning, select_trained
from lib.model.language_model import LanguageModel
from lib.model.layers import Linear
from lib.model.lora import AdaptedLinear, Adapter, add_adapters, merged_weights
from lib.model.registry import build_model
from lib.run.weights import fill_weights
from tests.conftest import PROJECT
from tests.model.test_packing import MODERN

DEBUG = resolve_config(load_params(PROJECT / "params.yaml"), "debug").model
KINDS: dict[str, dict[str, object]] = {
    "gpt2": {"qkv_bias": True},
    "untied naive": {"attention_impl": "naive", "layer_impl": "naive"},
    "llama": MODERN | {"qk_norm": False, "tie_weights": True, "out_bias": False},
    "qwen3": MODERN | {"head_dim": 8},
    "single_block": {"kind": "single_block", "n_layers": 1},
    "multi_head": {"kind": "multi_head", "n_layers": 1},
    "single_head": {"kind": "single_head", "n_layers": 1, "n_heads": 1},
}
IDS = torch.randint(0, 40, (2, 9), generator=torch.Generator().manual_seed(3))


def draw(seed: int = 2) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model_of(kind: str) -> LanguageModel:
    model = build_model(replace(DEBUG, vocab_size=40, **KINDS[kind]))  # type: ignore[arg-type]
    model.initialize(draw(1))
    return model.eval()


def adapted(kind: str, *targets: str, learned: bool = True) -> LanguageModel:
    """A model with adapters, which have learned something."""
    model = model_of(kind)
    add_adapters(model, 4, 8.0, targets or None, draw())
    for name, weight in model.named_parameters():
        if learned and name.endswith(".B"):
            torch.nn.init.normal_(weight, std=0.3, generator=draw(len(name)))
    return model


def trained_names(model: torch.nn.Module) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


@torch.no_grad()
def logits(model: LanguageModel) -> Tensor:
    return model(IDS)


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_change_no_bit_of_the_logits_before_the_first_step(kind: str) -> None:
    assert torch.equal(logits(adapted(kind, learned=False)), logits(model_of(kind)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_model_computes_what_the_adapted_one_does(kind: str) -> None:
    model, merged = adapted(kind), model_of(kind)
    fill_weights(merged, merged_weights(model), PROJECT)
    assert (logits(merged) - logits(model_of(kind))).abs().max() > 0.01
    torch.testing.assert_close(logits(merged), logits(model), rtol=1e-5, atol=1e-5)


def test_merged_without_a_step_every_weight_keeps_its_bits() -> None:
    before = dict(model_of("llama").named_parameters())
    merged = merged_weights(adapted("llama", learned=False))
    assert merged.keys() == before.keys()
    assert all(torch.equal(merged[name], weight) for name, weight in before.items())


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_generation_reads_the_merged_matrices_from_an_adapted_model(kind: str) -> None:
    inference = InferenceModel(adapted(kind))
    cache = inference.cache(12)
    assert cache is not None
    with torch.no_grad():
        inference.next_token_logits(IDS[:1, :8], [cache])
        step = inference.next_token_logits(IDS[:1, 8:], [cache])
    torch.testing.assert_close(step[0], logits(adapted(kind))[0, -1], rtol=1e-5, atol=1e-5)


def test_queries_keys_and_values_of_one_matrix_have_separate_adapters() -> None:
    model, plain = adapted("llama", "query", "value"), model_of("llama")
    changed = merged_weights(model)["blocks.1.attention.W_qkv.weight"] != plain.get_parameter("blocks.1.attention.W_qkv.weight")
    query, key, value = (rows.any().item() for rows in changed.split(model.config.qkv_rows))
    assert (query, key, value) == (True, False, True)
    names = {name.split(".", 2)[2] for name in trained_names(model) if name.startswith("blocks.1.")}
    assert names == {f"attention.W_qkv.adapters.{part}.{matrix}" for part in ("query", "value") for matrix in "AB"}


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_adapters_get_gradients_and_those_of_the_formula(kind: str) -> None:
    model = adapted(kind)
    model.loss(IDS[:, :-1], IDS[:, 1:]).backward()
    assert {name for name, weight in model.named_parameters() if weight.grad is not None} == trained_names(model)
    assert all(".adapters." in name for name in trained_names(model))


def test_the_gradients_are_those_of_the_written_formula() -> None:
    linear = Linear(5, 3)
    torch.nn.init.normal_(linear.weight, generator=draw())
    adapter = Adapter(5, 3, rank=2, alpha=6.0, generator=draw(4))
    torch.nn.init.normal_(adapter.B, generator=draw(5))
    x, upstream = torch.randn(7, 5, generator=draw(6)), torch.randn(7, 3, generator=draw(7))
    (AdaptedLinear(linear, {"out": 3}, {"out": adapter})(x) * upstream).sum().backward()
    A, B = (matrix.detach().clone().requires_grad_() for matrix in (adapter.A, adapter.B))
    naive = x @ (linear.weight + 6.0 / 2 * B @ A).T + linear.bias
    (naive * upstream).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(adapter.A.grad, A.grad)
    torch.testing.assert_close(adapter.B.grad, B.grad)


def test_a_is_uniform_within_one_over_the_root_of_its_inputs_and_follows_the_seed() -> None:
    first, again, other = (Adapter(400, 8, 16, 16.0, draw(seed)).A for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0.99 * 400**-0.5 < first.abs().max() <= 400**-0.5
    assert first.std().item() == pytest.approx(400**-0.5 / 3**0.5, rel=0.05)


@pytest.mark.parametrize(
    ("kind", "targets", "message"),
    [
        ("gpt2", ["gate"], "lora_targets=gate is no matrix of this model; query, key, value, out, expand, contract can have"),
        ("multi_head", ["query", "expand"], "lora_targets=expand is no matrix of this model; query, key, value, out can have"),
    ],
)
def test_a_matrix_that_the_model_lacks_is_refused_by_name(kind: str, targets: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        adapted(kind, *targets)


def test_a_bigram_has_nothing_to_adapt() -> None:
    bigram = build_model(replace(DEBUG, vocab_size=40, kind="bigram", n_layers=1, n_heads=1, qkv_bias=False))
    with pytest.raises(UsageError, match="lora_targets=all is no matrix of this model; none of its matrices can have"):
        add_adapters(bigram, 4, 8.0)


@pytest.mark.parametrize(("kind", "head"), [("gpt2", {"out_head.weight"}), ("llama", set())])
def test_the_last_block_the_final_norm_and_a_separate_head_are_trained(kind: str, head: set[str]) -> None:
    model = model_of(kind)
    select_trained(model, Finetuning(finetune="last_block"))
    model.loss(IDS[:, :-1], IDS[:, 1:]).backward()
    trained = {name for name in dict(model.named_parameters()) if name.startswith(("blocks.1.", "final_norm."))} | head
    assert {name for name, weight in model.named_parameters() if weight.grad is not None} == trained == trained_names(model)


def test_a_frozen_head_costs_no_gradient_and_changes_none() -> None:
    free, frozen = model_of("llama"), model_of("llama")
    frozen.tok_emb.requires_grad_(False)
    for model in (free, frozen):
        model.loss(IDS[:, :-1], IDS[:, 1:]).backward()
    assert frozen.tok_emb.weight.grad is None
    assert all(
        torch.equal(weight.grad, free.get_parameter(name).grad)
        for name, weight in frozen.named_parameters()
        if weight.requires_grad
    )


def test_the_last_block_needs_a_stack_of_blocks() -> None:
    with pytest.raises(UsageError, match=r"last_block needs a stack of blocks, model\.kind=gpt, not multi_head"):
        select_trained(model_of("multi_head"), Finetuning(finetune="last_block"))
