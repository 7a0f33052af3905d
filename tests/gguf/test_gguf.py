"""GGUF files to runs: against a float64 reference, transformers' Llama, and files that lie."""

import re
import struct
from pathlib import Path
from typing import Any, Callable

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type

from lib.errors import MakegptError
from lib.gguf.convert import import_gguf
from lib.gguf.llama import split_halves
from lib.gguf.reader import TENSOR_TYPES, open_gguf
from lib.run.folder import load_run
from lib.tokenizer.gpt2 import BYTE_OF
from tests.conftest import Here

CPU = torch.device("cpu")
L, C, H, G, D, F, T = 2, 64, 4, 2, 32, 96, 40
TOKENS = ["<|end|>", "<|im|>", *BYTE_OF, "he", "ll", "hell", "Ġhe"]
MERGES = ["h e", "l l", "he ll", "Ġ he"]
V = len(TOKENS)
SHAPES = {
    "token_embd.weight": (V, C),
    "output_norm.weight": (C,),
    **{
        f"blk.{n}.{name}.weight": shape
        for n in range(L)
        for name, shape in {
            "attn_norm": (C,),
            "attn_q": (H * D, C),
            "attn_k": (G * D, C),
            "attn_v": (G * D, C),
            "attn_output": (C, H * D),
            "ffn_norm": (C,),
            "ffn_gate": (F, C),
            "ffn_up": (F, C),
            "ffn_down": (C, F),
        }.items()
    },
}
KEYS = {
    "block_count": L,
    "context_length": T,
    "embedding_length": C,
    "feed_forward_length": F,
    "attention.head_count": H,
    "attention.head_count_kv": G,
    "attention.key_length": D,
    "attention.value_length": D,
    "rope.dimension_count": D,
}


def random_tensors() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(1)
    return {name: (draw.normal(0, 0.1, shape) + (len(shape) == 1)).astype(np.float32) for name, shape in SHAPES.items()}


def write(
    path: Path,
    tensors: dict[str, np.ndarray],
    kind: Type = Type.F32,
    *,
    arch: str = "llama",
    keys: dict[str, int] | None = None,
    tokens: list[str] | None = None,
    merges: list[str] | None = None,
    pre: str = "smollm",
    text: dict[str, str] | None = None,
) -> Path:
    """A GGUF file of the `tensors`, matrices of type `kind`."""
    writer = gguf.GGUFWriter(path, arch)
    for key, value in (KEYS | (keys or {})).items():
        writer.add_uint32(f"{arch}.{key}", value)
    writer.add_float32(f"{arch}.attention.layer_norm_rms_epsilon", 1e-3)
    writer.add_float32(f"{arch}.rope.freq_base", 5000.0)
    for key, line in (text or {}).items():
        writer.add_string(key, line)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens or TOKENS)
    writer.add_token_types([3, 3, *[1] * (len(tokens or TOKENS) - 2)])
    writer.add_token_merges(merges or MERGES)
    writer.add_eos_token_id(0)
    for name, tensor in tensors.items():
        of = kind if tensor.ndim == 2 else Type.F32
        data = tensor if of == Type.F32 else gguf.quantize(tensor, of)
        writer.add_tensor(name, data, raw_dtype=None if of == Type.F32 else of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def reference_logits(path: Path, ids: list[int]) -> np.ndarray:
    """The logits of each position in float64, read with the package gguf; llama's pairs (2i, 2i + 1) rotated as they are."""
    file = gguf.GGUFReader(path)
    key = {name.removeprefix("llama."): field.contents() for name, field in file.fields.items() if name.startswith("llama.")}
    stored = {tensor.name: tensor for tensor in file.tensors}

    def weight(name: str) -> np.ndarray:
        return np.asarray(gguf.dequantize(stored[name].data, stored[name].tensor_type), np.float64)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + key["attention.layer_norm_rms_epsilon"]) * weight(name)

    heads, groups = key["attention.head_count"], key["attention.head_count_kv"]
    size = key["rope.dimension_count"]
    angles = np.arange(len(ids))[:, None] * key["rope.freq_base"] ** (-np.arange(0, size, 2) / size)

    def rotate(x: np.ndarray) -> np.ndarray:
        even, odd = x[..., 0::2], x[..., 1::2]
        turned = even * np.cos(angles) - odd * np.sin(angles), odd * np.cos(angles) + even * np.sin(angles)
        return np.stack(turned, -1).reshape(x.shape)

    def split(x: np.ndarray, count: int) -> np.ndarray:
        return x.reshape(len(ids), count, size).swapaxes(0, 1).repeat(heads // count, axis=0)  # (H, T, D)

    x = weight("token_embd.weight")[ids]
    for n in range(key["block_count"]):
        y = norm(x, f"blk.{n}.attn_norm.weight")
        q, k, v = (y @ weight(f"blk.{n}.attn_{part}.weight").T for part in "qkv")
        q, k, v = rotate(split(q, heads)), rotate(split(k, groups)), split(v, groups)
        scores = q @ k.swapaxes(1, 2) / np.sqrt(size)
        scores[:, np.triu(np.ones((len(ids), len(ids)), bool), 1)] = -np.inf
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        y = (scores / scores.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(len(ids), -1)
        x = x + y @ weight(f"blk.{n}.attn_output.weight").T
        y = norm(x, f"blk.{n}.ffn_norm.weight")
        gate = y @ weight(f"blk.{n}.ffn_gate.weight").T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ weight(f"blk.{n}.ffn_up.weight").T)) @ weight(f"blk.{n}.ffn_down.weight").T
    return norm(x, "output_norm.weight") @ weight("output.weight" if "output.weight" in stored else "token_embd.weight").T


WRITABLE = [Type.F32, Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0]


@pytest.mark.parametrize("kind", WRITABLE, ids=lambda kind: kind.name)
def test_logits_equal_a_float64_reference_read_from_the_same_file(tmp_path: Path, kind: Type) -> None:
    path = write(tmp_path / "a.gguf", random_tensors(), kind)
    import_gguf(path, tmp_path / "run", started="now")
    trained = load_run(tmp_path / "run", CPU)
    ids = trained.tokenizer.encode("hello hell, he 12")
    with torch.no_grad():
        logits = trained.model(torch.tensor([ids]))[0].numpy()
    np.testing.assert_allclose(logits, reference_logits(path, ids), atol=1e-4)
    assert trained.config.head_dim == D
    assert trained.config.norm_eps == 1e-3
    assert trained.config.rope_base == 5000
    assert not trained.config.out_bias


@pytest.mark.parametrize("kind", [Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K], ids=lambda kind: kind.name)
def test_k_quants_are_read_as_the_package_reads_them(tmp_path: Path, kind: Type) -> None:
    size = TENSOR_TYPES[kind][2]
    raw = np.random.default_rng(2).integers(0, 48, (3, size)).astype(np.uint8)  # as a float16, less than 1
    writer = gguf.GGUFWriter(tmp_path / "k.gguf", "llama")
    writer.add_tensor("w", raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with open_gguf(tmp_path / "k.gguf") as file:
        numbers = file.read("w")
    assert numbers.shape == (3, 256)
    assert numbers.any()
    assert np.array_equal(numbers, gguf.dequantize(raw, kind))


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """As llama.cpp's converter stores q and k: halves to interleaved pairs."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def test_the_permutation_of_q_and_k_is_undone() -> None:
    rows = np.arange(24).reshape(12, 2)
    assert np.array_equal(split_halves(permuted(rows, 3), 3), rows)
    assert permuted(rows, 3)[:4, 0].tolist() == [0, 4, 2, 6]


#: Llama 3's scaling for a context of 32 tokens, and what it divides the frequencies by, written out.
LLAMA_3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}


def llama_3_divisors() -> np.ndarray:
    wavelengths = 2 * np.pi * 5000.0 ** (np.arange(0, D, 2) / D)
    smooth = np.clip((32 / wavelengths - 1) / 3, 0, 1)
    return (1 / ((1 - smooth) / 8 + smooth)).astype(np.float32)


@pytest.mark.parametrize("arch", ["llama", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
def test_logits_equal_those_of_transformers(tmp_path: Path, arch: str, tied: bool, scaled: bool) -> None:
    transformers: Any = pytest.importorskip(
        "transformers", reason="transformers is not installed: make setup EXTRAS=dev,parity"
    )
    shape = {"vocab_size": V, "hidden_size": C, "intermediate_size": F, "num_hidden_layers": L, "num_attention_heads": H}
    more = {"num_key_value_heads": G, "head_dim": D, "rms_norm_eps": 1e-3, "max_position_embeddings": T}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": tied}
    scaling = {"rope_type": "llama3"} | LLAMA_3 if scaled else {"rope_type": "default"}
    rope = {"rope_parameters": scaling | {"rope_theta": 5000.0}}
    name = {"llama": "Llama", "qwen3": "Qwen3"}[arch]
    config = getattr(transformers, f"{name}Config")(**shape, **more, **ends, **rope)
    torch.manual_seed(3)
    theirs = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    renamed = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "model.layers": "blk",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    tensors = {"rope_freqs.weight": llama_3_divisors()} if scaled else {}
    for key, weight in theirs.named_parameters():
        with torch.no_grad():
            if weight.dim() == 1:
                weight.normal_(1.0, 0.2)
        for before, after in renamed.items():
            key = key.replace(before, after)
        array = weight.detach().numpy()
        if arch == "llama" and (".attn_q.w" in key or ".attn_k.w" in key):
            array = np.ascontiguousarray(permuted(array, H if ".attn_q.w" in key else G))
        tensors[key] = array
    path = write(tmp_path / "a.gguf", tensors, arch=arch, keys={"rope.scaling.original_context_length": 32})
    import_gguf(path, tmp_path / "run", started="now")
    trained = load_run(tmp_path / "run", CPU)
    ids = torch.randint(V, (2, T), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(trained.model(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)


def test_import_weights_makes_a_run_that_generates(tmp_path: Path, here: Here) -> None:
    write(tmp_path / "a.gguf", random_tensors(), Type.Q8_0)
    assert "parameters" in here("import-weights", tmp_path / "a.gguf", "-o", tmp_path / "run").err
    first = here("generate", tmp_path / "run", "hello", "--temperature", "0", "--max-new-tokens", "8").out
    assert first == here("generate", tmp_path / "run", "hello", "--temperature", "0", "--max-new-tokens", "8").out


# Files that lie.


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    return write(tmp_path / "good.gguf", random_tensors(), Type.Q4_1).read_bytes()


def refused(folder: Path, content: bytes) -> str:
    """The message for a file with that content; it is one line, and no run is left."""
    path = folder / "bad.gguf"
    path.write_bytes(content)
    before = sorted(folder.iterdir())
    with pytest.raises(MakegptError) as error:
        import_gguf(path, folder / "run", started="now")
    assert sorted(folder.iterdir()) == before
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_a_file_cut_anywhere_is_refused(tmp_path: Path, content: bytes) -> None:
    for size in [0, 1, 3, 4, 8, 20, 24, 30, *range(40, len(content) - 32, len(content) // 60), len(content) - 33]:
        refused(tmp_path, content[:size])


def patched(content: bytes, at: int, kind: str, value: int) -> bytes:
    return content[:at] + struct.pack("<" + kind, value) + content[at + struct.calcsize("<" + kind) :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: b"GGML" + content[4:], "not a GGUF file"),
        (lambda content: patched(content, 4, "I", 1), "version 1"),
        (lambda content: patched(content, 4, "I", 3 << 24), "little-endian"),
        (lambda content: patched(content, 8, "Q", 2**63), "claims 9223372036854775808 tensors"),
        (lambda content: patched(content, 16, "Q", 2**40), "claims 1099511627776 keys"),
        (lambda content: patched(content, 24, "Q", 2**62), "bytes of a key"),
        (lambda content: patched(content, content.index(b"tokenizer.ggml.tokens") + 29, "Q", 2**50), "elements of tokenizer"),
        (lambda content: patched(content, content.index(b"blk.0.attn_q.weight") + 19, "I", 9), "9 dimensions"),
        (lambda content: patched(content, content.index(b"blk.0.attn_q.weight") + 23, "Q", 2**60), "cut off|overlaps"),
        (lambda content: patched(content, content.index(b"blk.0.attn_q.weight") + 23, "Q", 0), "no whole number of blocks"),
        (lambda content: patched(content, content.index(b"blk.0.attn_q.weight") + 39, "I", 999), "type 999"),
        (lambda content: patched(content, content.index(b"blk.0.attn_q.weight") + 43, "Q", 2**60), "cut off"),
        (lambda content: patched(content, content.index(b"blk.0.attn_q.weight") + 43, "Q", 7), "no multiple of 32"),
        (lambda content: content.replace(b"blk.0.attn_k.weight", b"blk.0.attn_q.weight"), "there twice"),
        (lambda content: content.replace(b"blk.0.attn_k.weight", b"blk.9.attn_k.weight"), "missing: blk.0.attn_k.weight"),
        (lambda content: content.replace(b"llama.block_count", b"llama.clock_count"), "llama.clock_count=2 is not supported"),
    ],
)
def test_a_lie_in_a_file_is_named(tmp_path: Path, content: bytes, change: Callable[[bytes], bytes], message: str) -> None:
    changed = change(content)
    assert changed != content
    assert re.search(message, refused(tmp_path, changed))


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("kind", [Type.F32, Type.BF16], ids=lambda kind: kind.name)
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, kind: Type, number: float) -> None:
    tensors = random_tensors()
    tensors["blk.1.ffn_up.weight"][3, 5] = number
    path = write(tmp_path / "other.gguf", tensors, kind)
    assert "blk.1.ffn_up.weight has numbers that are not finite" in refused(tmp_path, path.read_bytes())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": "gemma"}, "architecture gemma"),
        ({"keys": {"block_count": 10**6}}, "are no 1000000 blocks"),
        ({"keys": {"embedding_length": 128}}, "has the shape"),
        ({"keys": {"attention.head_count": 0}}, "n_heads"),
        ({"keys": {"rope.dimension_count": 16}}, "rope.dimension_count=16"),
        ({"keys": {"vocab_size": 5}}, "vocab_size=5"),
        ({"keys": {"expert_count": 8}}, "expert_count=8"),
        ({"text": {"llama.rope.scaling.type": "yarn"}}, "rope.scaling.type=yarn"),
        ({"pre": "smolm"}, "smollm"),
        ({"merges": ["h e", "l l", "Ġ he", "he ll"]}, "not in the order"),
        ({"merges": ["h e", "l l", "he ll"]}, "is not made by a merge"),
        ({"merges": [*MERGES, "x y"]}, "does not make a token"),
        ({"tokens": TOKENS[:-1], "merges": MERGES[:-1]}, "embeddings have"),
        ({"tokens": [*TOKENS[:-1], "he"]}, "its tokenizer cannot be followed"),
        ({"tokens": [*TOKENS[:-1], "é é"]}, "alphabet"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "other.gguf", random_tensors(), **change)
    assert message in refused(tmp_path, path.read_bytes())


@pytest.mark.parametrize(
    "divisors", [llama_3_divisors()[:-1], llama_3_divisors() * 1.01, np.ones(D // 2, np.float32), -llama_3_divisors()]
)
def test_scaled_angles_that_are_not_those_of_llama_3_are_refused(tmp_path: Path, divisors: np.ndarray) -> None:
    tensors = random_tensors() | {"rope_freqs.weight": divisors}
    path = write(tmp_path / "other.gguf", tensors, keys={"rope.scaling.original_context_length": 32})
    assert "rope_" in refused(tmp_path, path.read_bytes())


# The released weights.


def test_smollm2_continues_with_paris_and_has_the_logits_of_the_reference(
    tmp_path: Path, fetched: Callable[[str], Path], here: Here
) -> None:
    path = fetched("smollm2") / "smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    here("import-weights", path, "-o", tmp_path / "run")
    assert (
        here("generate", tmp_path / "run", "The capital of France is", "--temperature", "0", "--max-new-tokens", "1").out
        == " Paris\n"
    )
    trained = load_run(tmp_path / "run", CPU)
    ids = trained.tokenizer.encode("The capital of France is")
    with torch.no_grad():
        logits = trained.model(torch.tensor([ids]))[0].numpy()
    np.testing.assert_allclose(logits, reference_logits(path, ids), atol=1e-3)
