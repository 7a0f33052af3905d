"""Models, evaluation and generation on a CUDA device: the same numbers as on the CPU, and no hidden waiting.

`make test-gpu` runs them; without a CUDA device they are skipped. tests/gpu/test_cuda_training.py is about training.
"""

import itertools
import json
import math
from pathlib import Path
from typing import Any, Iterator

import pytest
import torch

from lib import Model
from lib.config.schema import GenerateConfig
from lib.device.hardware import choose_device, matmul_rate, pass_rate, peak_memory
from lib.device.precision import choose_precision
from lib.generate.batch import TokenSequence
from lib.generate.engine import generate_naive, generate_tokens
from lib.generate.quantize import WEIGHT_FORMATS, InferenceModel
from lib.model import dropout, loss
from lib.model.language_model import LanguageModel
from lib.model.loss import SoftTargets
from tests.conftest import TEXT, Here
from tests.gpu.material import (
    CONTEXT,
    CPU,
    CUDA,
    DESIGNS,
    VOCABULARY,
    flat,
    loss_and_gradient,
    model_config,
    needs_cuda,
    random_ids,
    random_model,
    relative_error,
)

pytestmark = needs_cuda

GREEDY = GenerateConfig(
    prompt=None, max_new_tokens=20, temperature=0.0, top_k=None, top_p=None, min_p=None, repetition_penalty=1.0, seed=1
)


@pytest.mark.parametrize("implementation", ["fused", "naive"])
@pytest.mark.parametrize("design", DESIGNS)
def test_logits_loss_and_gradients_in_float32_are_those_of_the_cpu(design: str, implementation: str) -> None:
    config, ids = model_config(design, implementation), random_ids(4, CONTEXT + 1)
    on_cpu, on_cuda = random_model(config, CPU), random_model(config, CUDA)
    with torch.inference_mode():
        torch.testing.assert_close(on_cuda(ids[:, :-1].to(CUDA)).cpu(), on_cpu(ids[:, :-1]), atol=2e-5, rtol=1e-4)
    (expected_loss, expected), (actual_loss, actual) = (loss_and_gradient(model, ids) for model in (on_cpu, on_cuda))
    assert actual_loss == pytest.approx(expected_loss, rel=1e-5)
    assert actual.keys() == expected.keys() == dict(on_cpu.named_parameters()).keys()
    for name, gradient in expected.items():
        assert relative_error(actual[name], gradient) < 1e-4, name


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.bfloat16, 3e-2), (torch.float16, 5e-3)])
@pytest.mark.parametrize("implementation", ["fused", "naive"])
@pytest.mark.parametrize("design", [name for name in DESIGNS if name != "bigram"])
def test_loss_and_gradients_in_16_bits_are_near_those_in_float32(
    design: str, implementation: str, precision: torch.dtype, tolerance: float
) -> None:
    config, ids = model_config(design, implementation), random_ids(4, CONTEXT + 1)
    expected_loss, expected = loss_and_gradient(random_model(config, CPU), ids)
    actual_loss, actual = loss_and_gradient(random_model(config, CUDA), ids, precision, scale=1024.0)
    assert actual_loss == pytest.approx(expected_loss, rel=tolerance)
    assert all(gradient.dtype == torch.float32 for gradient in actual.values())
    error = relative_error(flat(actual), flat(expected))
    assert 1e-5 < error < tolerance, "products must be rounded to 16 bits, but no more than that"


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_counts", [False, True])
@pytest.mark.parametrize("at_once", [VOCABULARY * 32, 1 << 26])
def test_the_fused_head_and_loss_have_the_values_of_the_naive_ones_in_any_chunks(
    monkeypatch: pytest.MonkeyPatch, precision: torch.dtype, with_counts: bool, at_once: int
) -> None:
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(3)
    x, weight = torch.randn(200, 48, generator=generator), torch.randn(VOCABULARY, 48, generator=generator)
    targets = torch.randint(VOCABULARY, (200,), generator=generator)
    rows = torch.rand(200, VOCABULARY, generator=generator).softmax(dim=-1)
    a, w = x.requires_grad_(), weight.requires_grad_()
    expected = loss.naive_cross_entropy(a @ w.T, targets, SoftTargets(rows, 0.9) if with_counts else None)
    expected_gradients = torch.autograd.grad(expected, (a, w))
    a, w = (tensor.detach().to(CUDA).requires_grad_() for tensor in (x, weight))
    soft = SoftTargets(rows.to(CUDA), 0.9) if with_counts else None
    with torch.autocast("cuda", precision, enabled=precision != torch.float32):
        actual = loss.linear_cross_entropy(a, w, targets.to(CUDA), soft)
    tolerance = 1e-4 if precision == torch.float32 else 2e-2
    assert actual.item() == pytest.approx(expected.item(), rel=tolerance)
    for gradient, reference in zip(torch.autograd.grad(actual, (a, w)), expected_gradients, strict=True):
        assert gradient.dtype == torch.float32
        assert relative_error(gradient.cpu(), reference) < tolerance


@pytest.mark.parametrize("fused", [False, True])
def test_dropout_zeroes_its_rate_and_keeps_the_mean(fused: bool) -> None:
    layer = dropout.Dropout(0.3, fused=fused).train()
    torch.manual_seed(1)
    x = layer(torch.ones(1 << 20, device=CUDA))
    torch.manual_seed(1)
    assert torch.equal(x, layer(torch.ones(1 << 20, device=CUDA)))
    assert (x == 0).float().mean().item() == pytest.approx(0.3, abs=0.005)
    torch.testing.assert_close(x[x != 0], torch.full_like(x[x != 0], 1 / 0.7))
    assert torch.equal(layer.eval()(x), x)


@pytest.fixture
def sync_errors() -> Iterator[None]:
    """Any operation that waits for the device raises an error."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("implementation", ["fused", "naive"])
@pytest.mark.parametrize("design", DESIGNS)
def test_a_forward_pass_does_not_wait_for_the_device(design: str, implementation: str, sync_errors: None) -> None:
    torch.cuda.set_sync_debug_mode("default")
    model, ids = random_model(model_config(design, implementation), CUDA), random_ids(64, CONTEXT).to(CUDA)
    model(ids)  # what is set up at first use may wait
    torch.cuda.set_sync_debug_mode("error")
    model(ids)
    model.loss(ids, ids).backward()
    with torch.inference_mode():
        model.loss(ids, ids)


def texts(model: LanguageModel, device: torch.device, **settings: Any) -> list[list[int]]:
    """The new tokens after three prompts of different lengths, one of which grows beyond the context."""
    prompts = [random_ids(1, length)[0].tolist() for length in (3, 17, CONTEXT - 5)]
    sequences = [TokenSequence(prompt, GREEDY) for prompt in prompts]
    for _ in generate_tokens(model, sequences, device, **settings):
        pass
    return [sequence.tokens for sequence in sequences]


@pytest.mark.parametrize("design", DESIGNS)
def test_greedy_tokens_are_those_of_the_cpu_with_and_without_a_cache_or_a_batch(design: str) -> None:
    config = model_config(design)
    expected = texts(random_model(config, CPU), CPU)
    model = random_model(config, CUDA)
    for cached, batch_size in itertools.product((True, False), (1, 2, 8)):
        assert texts(model, CUDA, cached=cached, batch_size=batch_size) == expected, (cached, batch_size)
    prompt = random_ids(1, 17)[0].tolist()
    assert list(generate_naive(model, prompt, GREEDY, CUDA)) == expected[1]


@pytest.mark.parametrize("weights", WEIGHT_FORMATS)
@pytest.mark.parametrize("design", ["gpt_balanced", "gpt_modern"])
def test_every_weight_format_generates_without_the_kernel_as_pytorch_does_on_the_cpu(design: str, weights: str) -> None:
    fused, naive = model_config(design), model_config(design, "naive")
    model = InferenceModel(random_model(fused, CUDA), weights)
    assert model.no_kernel is not None
    assert "cuda" in model.no_kernel
    reference = InferenceModel(random_model(naive, CPU), weights)  # a naive model has no kernel either
    ids = random_ids(2, CONTEXT)
    with torch.inference_mode():
        torch.testing.assert_close(model(ids.to(CUDA)).cpu(), reference(ids), atol=1e-4, rtol=1e-3)
    assert texts(model, CUDA) == texts(reference, CPU)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained on CUDA through the front door; its dataset is next to it."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "play.txt").write_text(TEXT, encoding="utf-8")
    changes = ["train.max_steps=60", "train.compile=off", "build-dataset.val_fraction=0.2"]
    Model.train(folder / "play.txt", folder / "run", config="debug", changes=changes, device="cuda")
    return folder / "run"


def test_the_front_door_generates_streams_and_scores_on_cuda_as_on_the_cpu(run: Path) -> None:
    on_cuda, on_cpu = (Model.from_run(run, device=name) for name in ("cuda", "cpu"))
    prompts = ["12. The naïve", "To be", "costs 5 €"]
    expected = on_cpu.generate(prompts, max_new_tokens=60, temperature=0)
    assert on_cuda.generate(prompts, max_new_tokens=60, temperature=0) == expected
    assert len(set(expected)) == 3
    assert "".join(on_cuda.stream(prompts[0], max_new_tokens=60, temperature=0)) == expected[0]
    sampled = on_cuda.generate(prompts[0], max_new_tokens=60, temperature=0.8, seed=3)
    assert sampled == on_cuda.generate(prompts[0], max_new_tokens=60, temperature=0.8, seed=3)
    for score, reference in zip(on_cuda.logprobs(TEXT[:200]), on_cpu.logprobs(TEXT[:200]), strict=True):
        assert score.logprob == pytest.approx(reference.logprob, abs=1e-4)
        assert score.id == reference.id


def assert_near(actual: Any, expected: Any, place: str = "") -> None:
    """The same JSON, up to 1e-4 in a float; the seconds of a measurement may be any."""
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys(), place
        for key in expected:
            assert_near(actual[key], expected[key], f"{place}.{key}")
    elif isinstance(expected, list):
        assert len(actual) == len(expected), place
        for number, (left, right) in enumerate(zip(actual, expected, strict=True)):
            assert_near(left, right, f"{place}[{number}]")
    elif isinstance(expected, float):
        assert actual == pytest.approx(expected, rel=1e-4, abs=1e-4), place
    else:
        assert actual == expected, place


@pytest.mark.parametrize("options", [(), ("--dynamic",), ("--with-counts", "--weights", "bfloat16")])
def test_an_evaluation_on_cuda_is_that_of_the_cpu(run: Path, here: Here, tmp_path: Path, options: tuple[str, ...]) -> None:
    results = []
    for device in ("cpu", "cuda"):
        target = tmp_path / f"{device}.json"
        here("evaluate", run, "-o", target, "--device", device, "--passages", 1, *options)
        results.append(json.loads(target.read_text()))
    on_cpu, on_cuda = results
    if "--weights" not in options:  # whose products are summed in another order on each
        assert on_cuda["loss"] == pytest.approx(on_cpu["loss"], rel=1e-5)
        assert_near(on_cuda, on_cpu)
    assert on_cuda["loss"] == pytest.approx(on_cpu["loss"], rel=2e-3)


def test_the_stage_generates_the_same_text_on_both_devices(run: Path, here: Here) -> None:
    words = ["generate", run, "12. The", "--temperature", 0, "--max-new-tokens", 40, "--json"]
    on_cpu, on_cuda = (json.loads(here(*words, "--device", device).out) for device in ("cpu", "cuda"))
    assert on_cuda["text"] == on_cpu["text"]
    assert len(on_cuda["tokens"]) == 40


def test_auto_chooses_cuda_and_the_best_precision_of_the_card() -> None:
    assert choose_device("auto") == choose_device("cuda") == CUDA
    modern = torch.cuda.get_device_capability() >= (8, 0)
    assert choose_precision("auto", CUDA) == (torch.bfloat16 if modern else torch.float16)


def test_the_speed_of_products_and_passes_is_that_of_the_devices_own_clock() -> None:
    a = torch.randn(8192, 8192, device=CUDA, dtype=torch.float16)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    seconds = math.inf
    for _ in range(5):
        begin.record()
        torch.mm(a, a)
        end.record()
        torch.cuda.synchronize()
        seconds = min(seconds, begin.elapsed_time(end) / 1000)
    rate = matmul_rate(CUDA, dtype=torch.float16)
    assert 0.5 < rate / (2 * 8192**3 / seconds) < 1.2
    assert rate > matmul_rate(CUDA, dtype=torch.float32)
    assert 1e9 < pass_rate(CUDA) < 1e13


def test_the_peak_memory_is_what_was_allocated_at_once() -> None:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        numbers = torch.empty(1 << 24, device=CUDA)
        del numbers
    assert peak_memory(CUDA) - before == pytest.approx(4 << 24, rel=0.01)
