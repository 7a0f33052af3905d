"""The recurrent model: its gates by hand, PyTorch's own as the standard, and what it remembers."""

import math
from dataclasses import replace

import pytest
import torch

from lib.config.params import load_params, resolve_config
from lib.generate.batch import TokenSequence
from lib.generate.engine import generate_tokens
from lib.generate.quantize import InferenceModel
from lib.model.lstm import LSTM, LSTMLayer, lstm_step
from lib.model.registry import build_model
from tests.conftest import PROJECT
from tests.model.test_formulas import config_of


def layer_of(size_in: int, size: int, *, fused: bool = False) -> LSTMLayer:
    layer = LSTMLayer(size_in, size, fused=fused)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.normal_(0, 0.5, generator=generator)
    return layer


def text(rows: int, length: int, size: int) -> torch.Tensor:
    return torch.randn(rows, length, size, generator=torch.Generator().manual_seed(2))


def test_a_step_is_its_four_gates() -> None:
    i, f, g, o = 1.0, -2.0, 0.5, 3.0
    h, c = lstm_step(torch.tensor([[i, f, g, o]]), torch.tensor([[0.25]]))

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    expected = sigmoid(f) * 0.25 + sigmoid(i) * math.tanh(g)
    assert c.item() == pytest.approx(expected)
    assert h.item() == pytest.approx(sigmoid(o) * math.tanh(expected))


def test_open_and_closed_gates_keep_a_memory_whatever_comes_in() -> None:
    c = torch.tensor([[0.7, -1.5]])
    keep = torch.tensor([-50.0, -50.0, 50.0, 50.0, 9.0, -9.0, 0.0, 0.0])[None]  # nothing is written, nothing forgotten
    for _ in range(100):
        _, c = lstm_step(keep, c)
    torch.testing.assert_close(c, torch.tensor([[0.7, -1.5]]))


@pytest.mark.parametrize("fused", [False, True])
def test_it_is_pytorchs_lstm_in_outputs_and_gradients(fused: bool) -> None:
    layer, theirs = layer_of(6, 10, fused=fused), torch.nn.LSTM(6, 10, batch_first=True)
    assert layer.W_input.bias is not None
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(layer.W_input.weight)
        theirs.weight_hh_l0.copy_(layer.W_hidden.weight)
        theirs.bias_ih_l0.copy_(layer.W_input.bias)
        theirs.bias_hh_l0.zero_()
    x, y = (text(3, 7, 6).requires_grad_() for _ in range(2))
    ours, other = layer(x), theirs(y)[0]
    torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-6)
    ours.square().sum().backward()
    other.square().sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.W_hidden.weight.grad, theirs.weight_hh_l0.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.W_input.weight.grad, theirs.weight_ih_l0.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.W_input.bias.grad, theirs.bias_ih_l0.grad, rtol=1e-5, atol=1e-5)


def test_a_model_written_out_has_the_logits_of_the_fused_one() -> None:
    models = [build_model(config_of("lstm", layer_impl=implementation)) for implementation in ("naive", "fused")]
    for model in models:
        model.initialize(torch.Generator().manual_seed(1))
    ids = torch.randint(65, (2, 64), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        naive, fused = (model.eval()(ids) for model in models)
    torch.testing.assert_close(naive, fused, rtol=1e-4, atol=1e-5)


def test_generation_reads_the_whole_text_for_each_token() -> None:
    model = build_model(config_of("lstm"))
    model.initialize(torch.Generator().manual_seed(1))
    model.eval()
    greedy = resolve_config(load_params(PROJECT / "params.yaml"), "lstm", ["generate.temperature=0"]).generate
    sequence = TokenSequence([3, 1, 4], replace(greedy, max_new_tokens=8))
    for number, (_, _, logits) in enumerate(generate_tokens(InferenceModel(model), [sequence], torch.device("cpu"))):
        text = torch.tensor([sequence.ids[: 3 + number]])
        with torch.no_grad():
            torch.testing.assert_close(logits, model(text)[0, -1], rtol=1e-5, atol=1e-5)
    assert len(sequence.tokens) == 8


def test_forget_gates_begin_open() -> None:
    model = build_model(config_of("lstm"))
    model.initialize(torch.Generator().manual_seed(1))
    assert isinstance(model, LSTM)
    for layer in model.layers:
        bias = layer.get_parameter("W_input.bias").view(4, 192)
        assert bias.sum(dim=1).tolist() == [0.0, 192.0, 0.0, 0.0]
