"""Matrices in blocks of 32 numbers of 8 and 4 bits: what GGUF's package writes is kept, products are those of PyTorch."""

import ctypes
import itertools
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lib.generate import kernel
from lib.generate.blocks import BLOCK, BlockMatrix, quantize_4bit, quantize_8bit, quantize_symmetric
from lib.generate.kernel import load_kernel
from lib.generate.linear import QuantizedEmbedding, QuantizedLinear
from lib.generate.quantize import WEIGHT_FORMATS, InferenceModel
from lib.gguf.reader import GGUFFile, open_gguf
from lib.model.gpt import GPT
from lib.model.layers import Linear
from tests.generate.test_engine import BYTES, GREEDY, assert_same_tokens, config_of, continue_prompts, random_model

SHAPES = [(7, 32), (131, 70), (64, 576), (5000, 40)]  # full blocks and not, one row of lanes and many, more than one part


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gguf_bytes(type: str, blocks: Tensor) -> np.ndarray:
    """(n, 32) as a GGUF file has them: scale, minimum, and integers, the first 16 in the lower bits."""
    if type == "Q8_0":
        integers, scale = quantize_8bit(blocks)
        return np.concatenate([as_bytes(scale), integers.to(torch.int8).numpy().view(np.uint8)], axis=1)
    if type == "Q4_0":
        integers, scale = quantize_symmetric(blocks)
        numbers = as_bytes(scale)
    else:
        integers, scale, minimum = quantize_4bit(blocks)
        numbers = np.concatenate([as_bytes(scale), as_bytes(minimum)], axis=1)
    codes = integers.numpy().astype(np.uint8)
    return np.concatenate([numbers, codes[:, :16] | codes[:, 16:] << 4], axis=1)


def as_bytes(numbers: Tensor) -> np.ndarray:
    return numbers.half().numpy()[:, None].view(np.uint8)


@pytest.mark.parametrize("scale", [1e-3, 0.04, 30.0])
@pytest.mark.parametrize("type", ["Q8_0", "Q4_1", "Q4_0"])
def test_numbers_that_gguf_quantized_give_the_same_blocks_again(type: str, scale: float) -> None:
    quants = pytest.importorskip("gguf.quants")
    kind = quants.GGMLQuantizationType[type]
    numbers = (scale * draw(4000, BLOCK)).numpy()
    numbers[7] = 0.25  # a block of one number
    raw = quants.quantize(numbers, kind)
    back = torch.from_numpy(quants.dequantize(raw, kind))
    assert np.array_equal(gguf_bytes(type, back), raw)


def test_smollm2_loses_nothing(fetched: Callable[[str], Path]) -> None:
    path = fetched("smollm2") / "smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    with open_gguf(path) as file:
        for name in ("blk.0.attn_q.weight", "blk.13.ffn_down.weight", "blk.29.ffn_gate.weight"):
            assert_same_blocks(file, name)
        head = torch.from_numpy(file.read("token_embd.weight")[:5000])
        assert torch.equal(BlockMatrix(head, 8).dequantize(), head)


def assert_same_blocks(file: GGUFFile, name: str) -> None:
    info = file.tensors[name]
    raw = np.fromfile(file.path, np.uint8, info.size, offset=info.offset).reshape(-1, 20)
    blocks = torch.from_numpy(file.read(name)).reshape(-1, BLOCK)
    assert np.array_equal(gguf_bytes("Q4_1", blocks), raw)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lanes", [1, 8, 16])
def test_a_matrix_differs_by_half_a_scale_at_most(bits: int, shape: tuple[int, int], lanes: int) -> None:
    matrix = draw(*shape)
    matrix[4] = 0
    blocks = BlockMatrix(matrix, bits, lanes)
    dequantized = blocks.dequantize()
    assert dequantized.shape == matrix.shape
    assert not dequantized[4].any()
    scale = float(blocks.scale.max())
    assert scale / 4 < (dequantized - matrix).abs().max() <= 0.51 * scale + 2e-3  # the float16 of a minimum
    ids = torch.tensor([[0, 4], [6, 3]])
    assert torch.equal(blocks.rows(ids), dequantized[ids])


def test_a_matrix_without_minima_needs_none() -> None:
    integers, scale = quantize_symmetric(draw(20, 3, BLOCK))
    matrix = ((integers - 8) * scale[..., None]).flatten(1)
    blocks = BlockMatrix(matrix, 4)
    assert blocks.minimum is None
    assert torch.equal(blocks.dequantize(), matrix)
    matrix[13, 5] += 0.01  # one block that is not so
    assert BlockMatrix(matrix, 4).minimum is not None


@pytest.mark.parametrize("format", ["int8", "int4", "int4 without minima"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_product_of_the_kernel_is_that_of_pytorch_within_the_bound(shape: tuple[int, int], format: str) -> None:
    assert_within_bound(load_kernel(), shape, format)


def assert_within_bound(library: ctypes.CDLL | None, shape: tuple[int, int], format: str) -> None:
    """Inputs are rounded to 1/65,534 of the largest in their block of 32; all else differs by float32's rounding only."""
    assert library is not None
    linear = Linear(shape[1], shape[0])
    with torch.no_grad():
        linear.weight.copy_(draw(*shape))
        assert linear.bias is not None
        linear.bias.copy_(draw(shape[0], seed=2))
        if "without" in format:
            integers, scale = quantize_symmetric(draw(*shape[:1], -(-shape[1] // BLOCK), BLOCK))
            linear.weight.copy_(((integers - 8) * scale[..., None]).flatten(1)[:, : shape[1]])
    product = QuantizedLinear(linear, format.split()[0], library)
    by_torch = QuantizedLinear(linear, format.split()[0], None)
    assert product.blocks is not None
    assert by_torch.blocks is not None
    weight = by_torch.blocks.dequantize()
    assert torch.equal(product.blocks.dequantize(), weight)
    x = draw(11, shape[1], seed=3) * torch.logspace(-3, 3, 11)[:, None]
    x[2, 5] = 1e4  # one large number coarsens its block only
    largest = torch.nn.functional.pad(x, (0, -shape[1] % BLOCK)).abs().unflatten(1, (-1, BLOCK)).amax(dim=-1)
    sums = torch.nn.functional.pad(weight, (0, -shape[1] % BLOCK)).abs().unflatten(1, (-1, BLOCK)).sum(dim=-1)
    bound = largest @ sums.T / 65_534 + 1e-5 * (x.abs() @ weight.abs().T + 1)
    with torch.inference_mode():
        assert ((product(x) - by_torch(x)).abs() <= bound).all()


@pytest.mark.parametrize("format", ["int8", "int4"])
def test_a_row_of_a_long_prompt_has_the_product_that_it_has_alone(format: str) -> None:
    """To the last bit, although many rows are multiplied in other tiles, as many at a time as fit into a cache."""
    weights = Linear(576, 40)
    weights.load_state_dict({"weight": draw(40, 576), "bias": draw(40)})
    linear = QuantizedLinear(weights, format, load_kernel())
    x = draw(203, 576)
    with torch.inference_mode():
        assert torch.equal(linear(x), torch.stack([linear(row) for row in x]))


def test_the_kernel_is_right_on_any_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its branch without vector instructions of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    portable = [flag for flag in kernel._FLAGS if flag not in ("-march=native", "-O3")]
    monkeypatch.setattr(kernel, "_FLAGS", ("-O1", *portable))
    library = kernel._compile()
    for format in ("int8", "int4", "int4 without minima"):
        assert_within_bound(library, (131, 70), format)


@pytest.mark.parametrize("format", ["int8", "int4"])
def test_the_kernel_writes_the_text_that_pytorch_writes(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(config_of("model.tie_weights=true", "model.context_length=64"))
    prompts = ["to be, or not to be", "whether 'tis nobler"]
    texts = continue_prompts(InferenceModel(model, format), prompts, GREEDY)
    monkeypatch.setattr("lib.generate.quantize.why_no_kernel", lambda: "switched off by this test")
    by_torch = InferenceModel(model, format)
    for prompt, tokens, expected in zip(prompts, texts, continue_prompts(by_torch, prompts, GREEDY), strict=True):
        assert len(set(expected)) > 2, "a text that repeats a token tests little"
        assert_same_tokens(tokens, expected, by_torch, BYTES.encode(prompt))


def test_a_tied_embedding_reads_the_rows_of_the_head() -> None:
    for format, tied in itertools.product(("bfloat16", "int8", "int4"), (True, False)):
        network = InferenceModel(random_model(config_of(f"model.tie_weights={str(tied).lower()}")), format).network
        assert isinstance(network, GPT)
        assert isinstance(network.out_head, QuantizedLinear)
        assert isinstance(network.tok_emb, QuantizedEmbedding) == (tied and format != "bfloat16")
        if isinstance(network.tok_emb, QuantizedEmbedding):
            assert network.tok_emb.blocks is network.out_head.blocks
            assert network.out_head.format == "int8", "errors of a logit change the token at once"


def test_the_memory_of_each_format_is_as_documented() -> None:
    """Of the matrices of a tied model with its head: everything else is smaller than 2 %."""
    model = random_model(config_of("model.tie_weights=true", "model.emb_dim=256", "model.n_layers=4"))
    bits = {}
    for format in WEIGHT_FORMATS:
        network: Any = InferenceModel(model, format).network
        tensors = {tensor.data_ptr(): tensor for tensor in (*network.parameters(), *network.buffers())}
        numbers = sum(weight.numel() for weight in model.parameters())
        bits[format] = 8 * sum(tensor.nbytes for tensor in tensors.values()) / numbers
    assert bits["float32"] == pytest.approx(32, rel=0.02)
    assert bits["int8"] == pytest.approx(8.5, rel=0.1)
    assert bits["int4"] == pytest.approx(5, rel=0.1)
