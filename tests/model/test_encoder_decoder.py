"""The encoder-decoder: PyTorch's nn.Transformer as the standard, what may be seen from where, and how it writes."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lib.config.params import load_params, resolve_config
from lib.errors import MakegptError, UsageError
from lib.generate.batch import TokenSequence
from lib.generate.engine import generate_naive, generate_tokens
from lib.generate.quantize import InferenceModel
from lib.generate.translations import translations
from lib.model.encoder_decoder import EncoderDecoder
from lib.model.feed_forward import gelu, relu
from lib.model.kv_cache import SourceKV
from lib.model.maps import cross_attention_maps
from lib.model.registry import build_model
from tests.conftest import PROJECT
from tests.model.test_formulas import config_of
from tests.model.test_ladder import fill

V, C, H, LAYERS = 40, 32, 4, 2
CPU = torch.device("cpu")
ORIGINAL = {"positions": "sinusoidal", "norm_position": "post", "feed_forward": "relu", "qkv_bias": True}
OPTIONS: list[dict[str, Any]] = [
    {},
    ORIGINAL,
    {"positions": "rotary", "norm": "rms", "feed_forward": "swiglu", "head_dim": 12, "out_bias": False},
]
NAMES = ["plain", "original", "modern"]


def model_of(**changes: Any) -> EncoderDecoder:
    config = config_of("debug", kind="encoder_decoder", emb_dim=C, n_heads=H, n_layers=LAYERS, vocab_size=V, **changes)
    model = build_model(config)
    assert isinstance(model, EncoderDecoder)
    fill(model)
    return model.eval()


def ids(rows: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))


def logits_of(model: EncoderDecoder, source: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
    return model.out_head(model.decode(target, [model.encode(source, lengths)]))


def pytorchs(model: EncoderDecoder, activation: Any) -> nn.Transformer:
    """nn.Transformer with the weights of `model`."""
    settings = {
        "dropout": 0.0,
        "activation": activation,
        "norm_first": model.config.norm_position == "pre",
        "batch_first": True,
    }
    final = [nn.LayerNorm(C) if settings["norm_first"] else None for _ in range(2)]
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(C, H, 4 * C, **settings), LAYERS, final[0], enable_nested_tensor=False
    )
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(C, H, 4 * C, **settings), LAYERS, final[1])
    theirs = nn.Transformer(C, H, custom_encoder=encoder, custom_decoder=decoder, **settings)
    weights: dict[str, Tensor] = {}
    names = {"contract": "linear2", "expand": "linear1", "scale": "weight", "shift": "bias", "final_norm": "decoder.norm"}
    names |= {"feed_forward.": "", "encoder_norm": "encoder.norm"}
    for stack in ("encoder", "decoder"):
        names |= {f"{stack}.{n}": f"{stack}.layers.{n}" for n in range(LAYERS)}
    names |= {".cross_attention": ".multihead_attn", ".attention": ".self_attn", "W_qkv.": "in_proj_"}
    ours = dict(model.named_parameters())
    for name, weight in ours.items():
        if name.startswith(("tok_emb", "out_head")) or ".W_kv." in name:
            continue
        if ".W_query." in name:
            weight = torch.cat([weight, ours[name.replace("W_query", "W_kv")]])
            name = name.replace("W_query.", "in_proj_")
        for word, other in names.items():
            name = name.replace(word, other)
        weights[name] = weight.detach()
    theirs.load_state_dict(weights)  # complains about a name that is missing or spare
    return theirs


@pytest.mark.parametrize("impl", ["naive", "fused"])
@pytest.mark.parametrize(("norm_position", "feed_forward"), [("post", "relu"), ("post", "gelu"), ("pre", "gelu")])
def test_it_is_pytorchs_transformer_in_outputs_and_gradients(norm_position: str, feed_forward: str, impl: str) -> None:
    options = ORIGINAL | {"norm_position": norm_position, "feed_forward": feed_forward}
    model = model_of(attention_impl=impl, layer_impl=impl, **options)
    theirs = pytorchs(model, relu if feed_forward == "relu" else gelu)
    source, lengths, target = ids(3, 7), torch.tensor([7, 2, 5]), ids(3, 5, seed=2)
    ours = model.decode(target, [model.encode(source, lengths)])
    waves = torch.tensor(
        [[[torch.sin, torch.cos][i % 2](torch.tensor(t / 10_000 ** (i // 2 * 2 / C))) for i in range(C)] for t in range(7)]
    )

    def embed(ids: Tensor) -> Tensor:
        return model.tok_emb.weight.detach()[ids] * C**0.5 + waves[: ids.shape[1]]

    padding = torch.arange(7) >= lengths[:, None]
    others = theirs(
        embed(source),
        embed(target),
        tgt_mask=nn.Transformer.generate_square_subsequent_mask(5),
        src_key_padding_mask=padding,
        memory_key_padding_mask=padding,
        tgt_is_causal=True,
    )
    torch.testing.assert_close(ours, others, rtol=1e-4, atol=1e-5)
    for output in (ours, others):
        output[..., 0].sum().backward()
    for stack, their_stack in ((model.encoder, theirs.encoder), (model.decoder, theirs.decoder)):
        gradient = stack[0].get_parameter("attention.W_qkv.weight").grad
        their_gradient = their_stack.layers[0].self_attn.in_proj_weight.grad
        assert gradient is not None
        torch.testing.assert_close(gradient, their_gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
def test_fused_equals_naive(options: dict[str, Any]) -> None:
    source, lengths, target = ids(3, 9), torch.tensor([9, 1, 4]), ids(3, 6, seed=2)
    naive, fused = (
        logits_of(model_of(attention_impl=impl, layer_impl=impl, **options), source, lengths, target)
        for impl in ("naive", "fused")
    )
    torch.testing.assert_close(naive, fused, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
def test_padding_changes_nothing(options: dict[str, Any]) -> None:
    model = model_of(**options)
    source, lengths, target = ids(3, 9), torch.tensor([9, 1, 4]), ids(3, 6, seed=2)
    together = logits_of(model, source, lengths, target)
    for row, length in enumerate(lengths.tolist()):
        alone = logits_of(model, source[row : row + 1, :length], lengths[row : row + 1], target[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)
    padded = torch.where(torch.arange(9) < lengths[:, None], source, 0)
    assert torch.equal(logits_of(model, padded, lengths, target), together)


@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
def test_a_target_sees_all_of_its_source_and_nothing_of_its_own_future(options: dict[str, Any]) -> None:
    model = model_of(**options)
    source, lengths, target = ids(1, 8), torch.tensor([8]), ids(1, 6, seed=2)
    before = logits_of(model, source, lengths, target)
    for s in (0, 7):  # the last token of the source reaches the first of the target
        changed = source.clone()
        changed[0, s] = (changed[0, s] + 1) % V
        assert not torch.isclose(logits_of(model, changed, lengths, target)[0, 0], before[0, 0]).all()
    for t in (1, 5):
        changed = target.clone()
        changed[0, t] = (changed[0, t] + 1) % V
        after = logits_of(model, source, lengths, changed)
        assert torch.equal(after[:, :t], before[:, :t])
        assert not torch.equal(after[:, t], before[:, t])


@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
def test_the_engine_writes_what_the_plain_loop_does_with_a_cache_and_without(options: dict[str, Any]) -> None:
    model = model_of(**options)
    config = resolve_config(load_params(PROJECT / "params.yaml"), "debug", ["generate.temperature=1"]).generate
    config = replace(config, max_new_tokens=9, top_k=None)
    sources = [row[:length] for row, length in zip(ids(4, 9).tolist(), (9, 1, 4, 4), strict=True)]
    naive = [list(generate_naive(model, [0], config, CPU, source=source)) for source in sources]
    for cached in (True, False):
        sequences = [TokenSequence([0], config, source=source) for source in sources]
        for _ in generate_tokens(InferenceModel(model), sequences, CPU, batch_size=3, cached=cached):
            pass
        assert [sequence.tokens for sequence in sequences] == naive
    assert len({tuple(tokens) for tokens in naive}) > 1  # what is written depends on the source


def test_many_translations_at_once_are_those_of_the_engine() -> None:
    model = model_of(**ORIGINAL)
    config = resolve_config(load_params(PROJECT / "params.yaml"), "debug", ["generate.temperature=0"]).generate
    source, lengths = ids(6, 9, seed=5), torch.tensor([9, 1, 4, 7, 2, 3])
    first = int(logits_of(model, source, lengths, torch.zeros(6, 1, dtype=torch.long))[0, 0].argmax())  # one of them is empty
    for end in (first, 0):
        sequences = [
            TokenSequence([end], replace(config, max_new_tokens=8), ends=[end], source=row[:length])
            for row, length in zip(source.tolist(), lengths.tolist(), strict=True)
        ]
        for _ in generate_tokens(model, sequences, CPU):
            pass
        assert translations(model.train(), source, lengths, end, 8) == [sequence.tokens for sequence in sequences]
        assert model.training
        model.eval()


def test_the_source_is_read_once_for_all_tokens() -> None:
    model = model_of()
    calls: list[int] = []
    model.encoder[0].register_forward_hook(lambda *_: calls.append(1))
    config = resolve_config(load_params(PROJECT / "params.yaml"), "debug").generate
    for _ in generate_tokens(model, [TokenSequence([0], replace(config, max_new_tokens=7), source=[1, 2, 3])], CPU):
        pass
    assert len(calls) == 1


def test_maps_are_the_weights_by_which_the_source_is_mixed() -> None:
    model = model_of(**ORIGINAL)
    maps = cross_attention_maps(model, [1, 2, 3], [0, 4, 5, 6])
    assert [tuple(weights.shape) for weights in maps] == [(H, 4, 3)] * LAYERS
    for weights in maps:
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(H, 4))
    block: Any = model.decoder[0]
    outputs: list[Tensor] = []
    block.cross_attention.out_proj.register_forward_pre_hook(lambda _, inputs: outputs.append(inputs[0]))
    encoded = model.encode(torch.tensor([[1, 2, 3]]), torch.tensor([3]))
    model.decode(torch.tensor([[0, 4, 5, 6]]), [encoded])
    v = SourceKV(*encoded[0]).v[0]  # (H, S, D)
    torch.testing.assert_close((maps[0] @ v).transpose(0, 1).flatten(1), outputs[0][0], rtol=1e-4, atol=1e-5)


def test_it_has_the_parameters_of_its_parts() -> None:
    model = model_of(**ORIGINAL, tie_weights=True)
    attention, feed_forward, norm = 4 * (C**2 + C), 8 * C**2 + 5 * C, 2 * C
    encoder, decoder = attention + feed_forward + 2 * norm, 2 * attention + feed_forward + 3 * norm
    assert sum(weight.numel() for weight in model.parameters()) == V * C + LAYERS * (encoder + decoder)


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(MakegptError, match="give it a text of at least one token"):
        model_of().cache(5)
    with pytest.raises(MakegptError, match="33 tokens are more than the model's context of 32"):
        model_of().encode(ids(1, 33), torch.tensor([33]))
    with pytest.raises(MakegptError, match=f"the id {V} is not in the model's vocabulary"):
        model_of().encode(torch.tensor([[1, V]]), torch.tensor([2]))
    with pytest.raises(UsageError, match=r"model\.window=4 is not supported by model.kind=encoder_decoder"):
        model_of(window=4)
