"""The options beyond GPT-2: each against its formula, its fused equivalent and its limiting case."""

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from lib.errors import UsageError
from lib.model.attention import MultiHeadAttention
from lib.model.feed_forward import FeedForward, SwiGLU, silu
from lib.model.heads import Heads
from lib.model.language_model import LanguageModel
from lib.model.loss import cross_entropy
from lib.model.ngram_embeddings import FACTOR, PRIME, NGramEmbeddings, ngram_hashes
from lib.model.norm import rms_norm
from lib.model.positions import Llama3Scaling, Rotary, Sinusoidal, angles, frequencies
from lib.model.registry import count_parameters
from tests.model.test_formulas import config_of, ids, small_model
from tests.model.test_ladder import fill, numbers

OPTIONS: list[dict[str, Any]] = [
    {},
    {"positions": "sinusoidal"},
    {"positions": "rotary"},
    {"norm": "rms"},
    {"norm_position": "post"},
    {"norm_position": "post", "positions": "sinusoidal", "feed_forward": "relu", "tie_weights": True},
    {"feed_forward": "relu"},
    {"feed_forward": "swiglu"},
    {"n_kv_heads": 1},
    {"n_kv_heads": 2},
    {"qk_norm": True},
    {"window": 1},
    {"window": 5},
    {"window": 32},
    {"window": 100},
    {"window": 3, "attention_pattern": "strided"},
    {"window": 1, "attention_pattern": "fixed"},
    {"window": 3, "n_kv_heads": 2},
    {"window": 4, "attention_pattern": "fixed", "summary_tokens": 2},
    {"window": 3, "attention_pattern": "fixed", "positions": "rotary"},
    {"ngram_order": 2, "ngram_rows": 50},
    {"ngram_order": 4, "ngram_rows": 1000, "positions": "rotary"},
    {"head_dim": 12, "n_kv_heads": 2, "qk_norm": True, "positions": "rotary", "rope_base": 1e6},
    {"positions": "rotary", "rope_factor": 8, "rope_original_context": 16},
    {"ff_dim": 40, "out_bias": False, "norm_eps": 1e-2},
    {"ff_dim": 40, "out_bias": False, "norm_eps": 1e-2, "norm": "rms", "feed_forward": "swiglu"},
    {"tie_weights": True},
    {"qkv_bias": True},
    {"qkv_bias": True, "n_kv_heads": 2, "window": 7},
    {"positions": "rotary", "norm": "rms", "feed_forward": "swiglu", "n_kv_heads": 2, "qk_norm": True},
    {"positions": "rotary", "norm": "rms", "feed_forward": "swiglu", "n_kv_heads": 2, "qk_norm": True, "window": 5},
]
NAMES = [" ".join(f"{key}={value}" for key, value in option.items()) or "plain" for option in OPTIONS]


def with_option(option: dict[str, Any], impl: str = "fused") -> LanguageModel:
    return small_model(n_heads=4, attention_impl=impl, layer_impl=impl, **option)


@pytest.mark.parametrize("length", [32, 9])
@pytest.mark.parametrize("option", OPTIONS, ids=NAMES)
def test_fused_equals_naive(option: dict[str, Any], length: int) -> None:
    results = []
    for impl in ("naive", "fused"):
        model = with_option(option, impl)
        batch = ids(2, length + 1)
        logits = model(batch[:, :-1])
        (cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()) / (2 * length)).backward()  # type: ignore[no-untyped-call]
        results.append((logits.detach(), {name: weight.grad for name, weight in model.named_parameters()}))
    (logits, gradients), (fused_logits, fused_gradients) = results
    torch.testing.assert_close(logits, fused_logits, rtol=1e-5, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, fused_gradients[name], rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("impl", ["naive", "fused"])
@pytest.mark.parametrize("option", OPTIONS, ids=NAMES)
def test_no_position_depends_on_a_later_one(option: dict[str, Any], impl: str) -> None:
    model = with_option(option, impl)
    before = model(ids(1))
    for t in (1, 15, 31):
        changed = ids(1).clone()
        changed[0, t] = (changed[0, t] + 1) % 256
        after = model(changed)
        assert torch.equal(before[:, :t], after[:, :t])
        assert not torch.equal(before[:, t], after[:, t])


def test_rms_norm_is_pytorchs() -> None:
    x, scale = numbers(4, 7, 32) * 3 + 1, numbers(32, seed=4)
    torch.testing.assert_close(rms_norm(x, scale, 1e-5), F.rms_norm(x, (32,), scale, 1e-5), rtol=1e-5, atol=1e-5)


def test_silu_is_pytorchs() -> None:
    x = torch.linspace(-200, 200, 801, requires_grad=True)
    torch.testing.assert_close(silu(x), F.silu(x), rtol=1e-5, atol=1e-6)
    ours, theirs = (torch.autograd.grad(function(x).sum(), x)[0] for function in (silu, F.silu))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_swiglu_has_nearly_as_many_parameters_as_gelu() -> None:
    for width in (128, 384, 768):
        ratio = count_parameters(SwiGLU(width)) / count_parameters(FeedForward(width))
        assert 0.98 < ratio < 1.02


def test_sinusoidal_positions_are_the_papers() -> None:
    table = Sinusoidal(50, 6).table
    for t, i in [(0, 0), (7, 1), (49, 2)]:
        angle = torch.tensor(t / 10_000 ** (2 * i / 6))
        torch.testing.assert_close(table[t, 2 * i : 2 * i + 2], torch.stack([angle.sin(), angle.cos()]))


def test_sinusoidal_positions_have_no_parameters_and_depend_on_the_position() -> None:
    model = with_option({"positions": "sinusoidal"})
    assert "pos_emb.weight" not in dict(model.named_parameters())
    same = torch.full((1, 4), 7)
    assert not torch.allclose(model(same)[0, 0], model(same)[0, 3])


def test_the_hash_of_an_n_gram_is_that_of_a_plain_loop() -> None:
    tokens = torch.randint(0, 50_257, (2, 12), generator=torch.Generator().manual_seed(1))
    for order in (2, 3, 8):
        for row, hashes in zip(tokens.tolist(), ngram_hashes(tokens, order).tolist(), strict=True):
            for end, value in enumerate(hashes, start=order):
                expected = 0
                for id in row[end - order : end]:
                    expected = (expected * FACTOR + id + 2) % PRIME
                assert value == expected


def test_n_gram_embeddings_begin_as_without_them_and_are_the_rows_of_each_order() -> None:
    option = {"ngram_order": 3, "ngram_rows": 1000}
    without, model = small_model(), small_model(**option)
    for each in (without, model):
        each.initialize(torch.Generator().manual_seed(1))
    names = dict(without.named_parameters())
    for name, weight in model.named_parameters():
        assert torch.equal(weight, names[name]) if name in names else not weight.any()
    assert torch.equal(without(ids(2)), model(ids(2)))
    table: Any = NGramEmbeddings(3, 1000, 4)
    fill(table)
    batch = ids(1, 5)
    padded = torch.cat([torch.full((1, 2), -1), batch], dim=1)
    bigrams, trigrams = ngram_hashes(padded[:, 1:], 2) % 1000, ngram_hashes(padded, 3) % 1000
    expected = table.tables[0].weight[bigrams] + table.tables[1].weight[trigrams]
    torch.testing.assert_close(table(batch), expected)
    torch.testing.assert_close(table(batch[:, 2:], batch[:, :2]), expected[:, 2:])


@pytest.mark.parametrize(("order", "rows"), [(1, 5), (3, None)])
def test_an_order_of_n_grams_and_their_rows_go_together(order: int, rows: int | None) -> None:
    with pytest.raises(UsageError, match="1 and null for no n-grams"):
        small_model(ngram_order=order, ngram_rows=rows)


def test_rotary_scores_depend_on_the_offset_only() -> None:
    rotary = Rotary(64, 8)
    q, k = numbers(8), numbers(8, seed=9)
    rotated_q, rotated_k = (rotary(vector.expand(1, 1, 64, 8))[0, 0] for vector in (q, k))
    scores = rotated_q @ rotated_k.T  # every position with every other
    for offset in (0, 1, 5, 40):
        diagonal = scores.diagonal(-offset)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(scores[5, 0], scores[6, 0], atol=1e-3)


def test_rotary_keeps_lengths_and_does_not_change_position_0() -> None:
    x = numbers(2, 3, 16, 8)
    rotated = Rotary(16, 8)(x)
    torch.testing.assert_close(rotated.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(rotated[:, :, 0], x[:, :, 0])


@pytest.mark.parametrize("fused", [False, True])
def test_one_group_per_head_is_multi_head_attention(fused: bool) -> None:
    separate, grouped = Heads(12, 3, 9, 4), MultiHeadAttention(12, 4, 9, n_kv_heads=4, fused=fused)
    fill(separate)
    with torch.no_grad():
        parts = [getattr(head, name).weight for name in ("W_query", "W_key", "W_value") for head in separate.heads]
        grouped.W_qkv.weight.copy_(torch.cat(parts))
        grouped.out_proj.weight.copy_(torch.eye(12))
    x = numbers(2, 9, 12)
    torch.testing.assert_close(grouped(x), separate(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_group_equals_heads_with_copies_of_its_keys_and_values(groups: int, fused: bool) -> None:
    grouped, plain = MultiHeadAttention(12, 4, 9, n_kv_heads=groups, fused=fused), MultiHeadAttention(12, 4, 9)
    fill(grouped)
    with torch.no_grad():
        q, k, v = grouped.W_qkv.weight.split([12, 3 * groups, 3 * groups])
        k, v = (part.view(groups, 3, 12).repeat_interleave(4 // groups, dim=0).view(12, 12) for part in (k, v))
        plain.W_qkv.weight.copy_(torch.cat([q, k, v]))
        plain.out_proj.load_state_dict(grouped.out_proj.state_dict())
    x = numbers(2, 9, 12)
    torch.testing.assert_close(grouped(x), plain(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", ["naive", "fused"])
@pytest.mark.parametrize("window", [32, 100])
def test_a_window_as_long_as_the_context_is_full_attention(window: int, impl: str) -> None:
    torch.testing.assert_close(with_option({"window": window}, impl)(ids()), with_option({}, impl)(ids()), rtol=1e-5, atol=1e-5)


def test_tokens_outside_of_every_layers_window_have_no_effect() -> None:
    model = with_option({"window": 4, "n_layers": 2})  # two layers look back 2 · (4 - 1) tokens
    last = model(ids(1))[0, -1]
    for back, matters in [(7, False), (6, True), (0, True)]:
        changed = ids(1).clone()
        changed[0, 31 - back] = (changed[0, 31 - back] + 1) % 256
        assert torch.equal(last, model(changed)[0, -1]) != matters


def test_query_key_norm_keeps_scores_within_the_root_of_the_head_size() -> None:
    attention = MultiHeadAttention(16, 2, 6, qk_norm=True)
    fill(attention.W_qkv)
    with torch.no_grad():
        attention.W_qkv.weight.mul_(1000)
    q, k, _ = attention.queries_keys_values(numbers(1, 6, 16))
    scores = q @ k.transpose(-2, -1) / 8**0.5
    assert scores.abs().max() <= 8**0.5 + 1e-4


def test_llama_3_scaling_slows_the_slow_waves_and_keeps_the_fast_ones() -> None:
    factor, low, high, context = 8.0, 1.0, 4.0, 64
    for speed, slowed in zip(
        frequencies(32).tolist(),
        angles(2, 32, scaling=Llama3Scaling(factor, low, high, context))[1].tolist(),
        strict=True,
    ):
        wavelength = 2 * math.pi / speed
        if wavelength < context / high:
            expected = speed
        elif wavelength > context / low:
            expected = speed / factor
        else:
            smooth = (context / wavelength - low) / (high - low)
            expected = (1 - smooth) * speed / factor + smooth * speed
        assert slowed == pytest.approx(expected, rel=1e-5)


def test_without_scaling_the_angles_are_those_of_the_paper() -> None:
    off = with_option({"positions": "rotary"})
    assert torch.equal(off.blocks[0].attention.rotate.cos, angles(32, 8).cos())  # type: ignore[union-attr, index]
    on = with_option({"positions": "rotary", "rope_factor": 8, "rope_original_context": 16})
    assert not torch.allclose(on(ids(1)), off(ids(1)), atol=1e-3)


def test_gpt_modern_uses_the_modern_options_together() -> None:
    config = config_of("gpt_modern")
    chosen = (config.positions, config.norm, config.feed_forward, config.qk_norm)
    assert chosen == ("rotary", "rms", "swiglu", True)
    assert config.n_kv_heads is not None
    assert config.n_kv_heads < config.n_heads
    assert not config.out_bias


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_heads": 4, "n_kv_heads": 3}, "model.n_heads=4 must be divisible by model.n_kv_heads=3; use 1 or 2 or 4"),
        ({"n_heads": 32, "positions": "rotary"}, "divided by model.n_heads=32 is 1"),
        ({"emb_dim": 33, "n_heads": 3, "positions": "sinusoidal"}, "needs an even model.emb_dim, not 33"),
        ({"rope_factor": 8}, "model.rope_factor=8 needs model.positions=rotary, not learned"),
        ({"positions": "rotary", "rope_original_context": 16}, "model.rope_original_context=16 has no effect"),
        (
            {"positions": "rotary", "rope_factor": 8, "rope_high_freq_factor": 1},
            "model.rope_low_freq_factor=1 must be below model.rope_high_freq_factor=1",
        ),
    ],
)
def test_impossible_options_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        config_of("debug", **change)
    assert message in str(caught.value)
