"""The model ladder from a bigram to a decoder: each model alone, and each part equal to the one it extends."""

import ast
import math

import pytest
import torch
from torch.nn import functional as F

from lib.config.model import UNSUPPORTED_OPTIONS
from lib.errors import MakegptError, UsageError
from lib.model.attention import MultiHeadAttention
from lib.model.causal_attention import CausalAttention, attention_weights, causal_mask
from lib.model.dropout import Dropout, dropout, dropout_16bit
from lib.model.heads import Heads
from lib.model.language_model import LanguageModel
from lib.model.loss import cross_entropy
from lib.model.maps import attention_maps
from lib.model.registry import LADDER, MODELS, build_model, count_parameters
from lib.model.self_attention import BareSelfAttention, SelfAttention
from lib.model.shortcut import DeepNetwork, mean_gradients
from lib.model.simplified_attention import simplified_attention, softmax
from tests.conftest import PROJECT
from tests.model.test_formulas import config_of

LADDER_MODELS = ["bigram", "lstm", "single_head", "multi_head", "single_block", "decoder"]


def model_of(name: str, seed: int = 1, **changes: object) -> LanguageModel:
    model = build_model(config_of(name, **changes))
    model.initialize(torch.Generator().manual_seed(seed))
    return model.eval()


def ids(rows: int = 2, length: int = 8, seed: int = 3) -> torch.Tensor:
    return torch.randint(0, 65, (rows, length), generator=torch.Generator().manual_seed(seed))


def fill(module: torch.nn.Module, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.normal_(0, 0.5, generator=generator)


def numbers(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("bigram", 4_225),
        ("lstm", 616_320),
        ("single_head", 22_656),
        ("multi_head", 26_816),
        ("single_block", 60_288),
        ("decoder", 618_752),
    ],
)
def test_a_model_has_the_parameters_of_its_parts(name: str, parameters: int) -> None:
    assert count_parameters(build_model(config_of(name), "meta")) == parameters


@pytest.mark.parametrize("name", LADDER_MODELS)
def test_a_model_starts_near_a_uniform_guess_and_overfits_one_batch(name: str) -> None:
    model = model_of(name).train()
    batch = ids(2, 9)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.3 if name == "bigram" else 0.01)
    losses = []
    for _ in range(60):
        loss = cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten()) / 16
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert abs(losses[0] - math.log(65)) < 0.25
    # a bigram cannot distinguish two followers of one character; a single head averages all that it attends to
    assert losses[-1] < {"bigram": 1.0, "single_head": 0.3}.get(name, 0.1)


@pytest.mark.parametrize("name", LADDER_MODELS)
def test_no_model_depends_on_future_tokens(name: str) -> None:
    model = model_of(name)
    before = model(ids(1))
    for t in range(8):
        changed = ids(1).clone()
        changed[0, t] = (changed[0, t] + 1) % 65
        assert torch.equal(before[:, :t], model(changed)[:, :t])
        assert not torch.equal(before[:, t], model(changed)[:, t])


@pytest.mark.parametrize("name", LADDER_MODELS)
def test_every_model_but_the_bigram_depends_on_earlier_tokens(name: str) -> None:
    model = model_of(name)
    changed = ids(1).clone()
    changed[0, 0] = (changed[0, 0] + 1) % 65
    assert torch.equal(model(ids(1))[:, -1], model(changed)[:, -1]) == (name == "bigram")


@pytest.mark.parametrize("name", LADDER_MODELS)
@pytest.mark.parametrize("wrong", [65, 1000, -1])
def test_ids_outside_the_vocabulary_are_refused_by_name(name: str, wrong: int) -> None:
    unknown = ids(1).clone()
    unknown[0, -1] = wrong  # the last, since a bigram uses no other
    for predict in (model_of(name), model_of(name).next_token_logits):
        with pytest.raises(MakegptError, match=f"the id {wrong} is not in the model's vocabulary of 65 tokens, 0 to 64"):
            predict(unknown)


@pytest.mark.parametrize("name", LADDER_MODELS)
def test_the_next_tokens_logits_are_the_last_row_of_all(name: str) -> None:
    model = model_of(name)
    torch.testing.assert_close(model.next_token_logits(ids()), model(ids())[:, -1], rtol=1e-5, atol=1e-5)


def test_a_bigrams_logits_are_the_rows_of_its_table() -> None:
    model = model_of("bigram")
    assert torch.equal(model(ids()), model.get_parameter("out_head.weight")[ids()])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("single_head", {"n_heads": 4}),
        ("multi_head", {"n_layers": 2}),
        ("single_block", {"norm": "rms"}),
        ("single_block", {"window": 4}),
        ("bigram", {"positions": "rotary"}),
        ("lstm", {"n_heads": 2}),
        ("lstm", {"window": 4}),
        ("single_block", {"attention_pattern": "strided", "window": 4}),
        ("multi_head", {"tie_weights": True}),
    ],
)
def test_an_option_that_a_model_does_not_support_is_refused(name: str, change: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=rf"model\.{next(iter(change))}=.* is not supported by model\.kind={name}"):
        config_of(name, **change)


def test_every_kind_of_the_config_can_be_built() -> None:
    assert list(MODELS) == list(UNSUPPORTED_OPTIONS)


def test_each_file_of_the_ladder_imports_only_from_earlier_ones() -> None:
    folder = PROJECT / "lib" / "model"
    assert {path.stem for path in folder.glob("*.py")} == {*LADDER, "__init__"}
    for number, name in enumerate(LADDER):
        tree = ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lib.model."):
                assert str(node.module).split(".")[2] in LADDER[:number], f"{name} imports {node.module}"


def test_naive_softmax_is_pytorchs_for_large_scores_too() -> None:
    scores = numbers(3, 7) * 300
    torch.testing.assert_close(softmax(scores), torch.softmax(scores, -1))


def test_simplified_attention_mixes_rows_by_similarity() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    near, far = math.e / (math.e + 1), 1 / (math.e + 1)
    torch.testing.assert_close(simplified_attention(x), torch.tensor([[near, far], [far, near]]))


def test_linear_layers_are_transposed_bare_parameters() -> None:
    bare, linear = BareSelfAttention(6, 4), SelfAttention(6, 4)
    fill(bare)
    with torch.no_grad():
        for name in ("W_query", "W_key", "W_value"):
            getattr(linear, name).weight.copy_(getattr(bare, name).T)
    x = numbers(2, 5, 6)
    torch.testing.assert_close(bare(x), linear(x))


def test_attention_without_a_mask_is_pytorchs() -> None:
    attention = SelfAttention(6, 4)
    fill(attention)
    x = numbers(2, 5, 6)
    theirs = F.scaled_dot_product_attention(attention.W_query(x), attention.W_key(x), attention.W_value(x))
    torch.testing.assert_close(attention(x), theirs, rtol=1e-5, atol=1e-5)


def test_rows_of_attention_weights_sum_to_one_and_hide_the_future() -> None:
    weights = attention_weights(numbers(2, 3, 9, 4), numbers(2, 3, 9, 4, seed=5), causal_mask(9))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 9))
    for t in range(9):
        assert (weights[..., t, : t + 1] > 0).all()
        assert (weights[..., t, t + 1 :] == 0).all()


def test_causal_attention_is_pytorchs() -> None:
    attention = CausalAttention(6, 4, 5)
    fill(attention)
    x = numbers(2, 5, 6)
    theirs = F.scaled_dot_product_attention(attention.W_query(x), attention.W_key(x), attention.W_value(x), is_causal=True)
    torch.testing.assert_close(attention(x), theirs, rtol=1e-5, atol=1e-5)


def test_dropout_is_on_the_weights_or_on_the_output() -> None:
    x = numbers(1, 5, 6)
    for place in ("weights", "output"):
        attention = CausalAttention(6, 4, 5, drop_rate=0.5, dropout_on=place)
        fill(attention)
        dropped, whole = attention(x)[0], attention.eval()(x)[0]
        # the first row attends to itself only: dropout on weights zeroes all of it, on outputs single numbers
        zeros = [int((row == 0).sum()) for row in torch.stack([attention.train()(x)[0, 0] for _ in range(64)])]
        assert set(zeros) == {0, 4} if place == "weights" else len(set(zeros)) > 2
        assert dropped.shape == whole.shape
        assert (whole != 0).all()
    with pytest.raises(ValueError, match="weights or output"):
        CausalAttention(6, 4, 5, dropout_on="keys")


def test_the_mask_is_a_buffer_that_is_not_saved() -> None:
    for module in (CausalAttention(6, 4, 5), MultiHeadAttention(6, 2, 5), model_of("decoder")):
        assert any(name.endswith("mask") for name, _ in module.named_buffers())
        assert not any("mask" in name for name in module.state_dict())
    assert CausalAttention(6, 4, 5).to("meta").mask.is_meta


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_separate_heads_equal_one_product_with_the_same_weights(fused: bool, bias: bool) -> None:
    separate = Heads(12, 3, 7, 4, qkv_bias=bias)
    fill(separate)
    multi_head = MultiHeadAttention(12, 4, 7, qkv_bias=bias, fused=fused)
    with torch.no_grad():
        parts = [getattr(head, name) for name in ("W_query", "W_key", "W_value") for head in separate.heads]
        multi_head.W_qkv.weight.copy_(torch.cat([part.weight for part in parts]))
        if bias:
            assert multi_head.W_qkv.bias is not None
            multi_head.W_qkv.bias.copy_(torch.cat([part.bias for part in parts]))
        multi_head.out_proj.weight.copy_(torch.eye(12))
    x = numbers(2, 7, 12)
    torch.testing.assert_close(multi_head(x), separate(x), rtol=1e-5, atol=1e-5)


def test_heads_are_split_by_view_and_transpose_not_by_view_alone() -> None:
    x = torch.arange(2 * 64 * 10).view(2, 64, 10)
    heads = x.view(2, 64, 5, 2).transpose(1, 2)
    assert heads.shape == x.view(2, 5, 64, 2).shape
    assert not torch.equal(heads, x.view(2, 5, 64, 2))
    assert heads[0, 3, 7].tolist() == x[0, 7, 6:8].tolist()


def test_naive_dropout_is_pytorchs() -> None:
    x = numbers(40, 50)
    results = []
    for drop in (lambda: dropout(x, 0.3), lambda: F.dropout(x, 0.3)):
        torch.manual_seed(7)
        results.append(drop())
    torch.testing.assert_close(*results, rtol=1e-6, atol=0)
    assert abs((results[0] == 0).float().mean().item() - 0.3) < 0.05


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(401, 1003), (3,)])
def test_dropout_16bit_drops_as_many_and_keeps_the_mean(rate: float, shape: tuple[int, ...]) -> None:
    torch.manual_seed(3)
    x = torch.ones(shape)
    dropped = dropout_16bit(x, rate)
    values = dropped.unique().tolist()
    assert values == pytest.approx([0.0, 1 / (1 - rate)][-len(values) :], rel=1e-4) or values == [0.0]
    if x.numel() > 100:
        assert (dropped == 0).float().mean().item() == pytest.approx(rate, abs=0.005)
        # neighbors are dropped independently, also those of one draw
        for distance in (1, 2, 4):
            pairs = (dropped[:, distance:] == 0) & (dropped[:, :-distance] == 0)
            assert pairs.float().mean().item() == pytest.approx(rate**2, abs=0.005)


def test_dropout_has_the_same_gradient_naive_and_fused() -> None:
    for fused in (False, True):
        x = torch.ones(1000, requires_grad=True)
        y = Dropout(0.3, fused=fused).train()(x)
        y.sum().backward()
        assert x.grad is not None
        torch.testing.assert_close(x.grad, y.detach())


def test_shortcuts_keep_the_gradient_of_the_first_layer() -> None:
    x = numbers(64, 8)
    first, last = {}, {}
    for shortcuts in (False, True):
        network = DeepNetwork([8] * 12 + [1], shortcuts=shortcuts)
        network.initialize(torch.Generator().manual_seed(1))
        gradients = mean_gradients(network, x)
        first[shortcuts], last[shortcuts] = gradients[0], gradients[-1]
    assert first[False] < 1e-4 * last[False]
    assert first[True] > 1e-3 * last[True]


@pytest.mark.parametrize(
    ("name", "layers", "heads"),
    [("bigram", 0, 0), ("lstm", 0, 0), ("single_head", 1, 1), ("multi_head", 1, 4), ("decoder", 3, 4)],
)
def test_attention_maps_have_every_head_and_sum_to_one(name: str, layers: int, heads: int) -> None:
    maps = attention_maps(model_of(name), ids(1))
    assert [layer.shape for layer in maps] == [(heads, 8, 8)] * layers
    for layer in maps:
        torch.testing.assert_close(layer.sum(-1), torch.ones(heads, 8))
