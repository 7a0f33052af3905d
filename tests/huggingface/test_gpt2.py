"""Import and export of GPT-2: transformers' models give the same logits here, and ours the same in transformers."""

import json
import shutil
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lib.artifact.io import sha256_of, write_json
from lib.artifact.manifest import describe_files, new_manifest, write_manifest
from lib.artifact.tensors import load_tensors, read_tensor_metadata, save_tensors
from lib.config.model import ModelConfig
from lib.config.params import config_names, load_params, resolve_config
from lib.errors import MakegptError, UsageError
from lib.huggingface import gpt2
from lib.huggingface.convert import export_weights, import_weights
from lib.huggingface.gpt2 import RELEASED_SIZES
from lib.huggingface.layout import Layout, write_weights
from lib.huggingface.parity import PARITY_FILE, greedy_tokens, logit_agreement
from lib.huggingface.reference import exported_logits
from lib.huggingface.tokenizer import from_hf_tokenizer, to_hf_tokenizer
from lib.model.registry import build_model
from lib.run.folder import CONFIG_FILE, MODEL_FILE, TrainedModel, load_run
from lib.run.weights import fill_weights
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.bpe import BPETokenizer
from lib.tokenizer.byte_alphabet import BYTE_OF
from lib.tokenizer.bytes_ import BytesTokenizer
from lib.tokenizer.char import CharTokenizer
from lib.tokenizer.gpt2 import GPT2Tokenizer
from lib.tokenizer.word import WordTokenizer
from tests.conftest import FEW, PROJECT, Here
from tests.model.test_formulas import config_of

CPU = torch.device("cpu")
T = 72
ODD = "\ufeffa\r\nb\rc\u2028d\u0085e\x00\x1c  \t\n\n é😀 'll don't hello the \u3000 e\u0301 \U0010ffff  end  "

#: Small versions of the released sizes, with as many heads and a twelfth of the blocks: blocks, width, heads.
SIZES = {"small": (1, 24, 12), "medium": (2, 32, 16), "large": (3, 40, 20), "xl": (4, 50, 25)}

MERGES = [("h", "e"), ("l", "l"), ("he", "ll"), ("Ġ", "t"), ("Ġt", "he")]
VOCAB = {token: id for id, token in enumerate([*BYTE_OF, *(a + b for a, b in MERGES), "<|endoftext|>"])}
V = len(VOCAB)


@pytest.fixture(scope="module")
def theirs(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Any, Path]]:
    """theirs("small", n_positions=8): transformers' GPT-2 with random weights, and its folder."""

    def save(size: str = "small", **changes: Any) -> tuple[Any, Path]:
        layers, width, heads = SIZES[size]
        shape = {"vocab_size": V, "n_positions": T, "n_embd": width, "n_layer": layers, "n_head": heads}
        ends = {"bos_token_id": V - 1, "eos_token_id": V - 1}
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**(shape | ends | changes))).eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in model.parameters():
                weight.normal_(0, 0.3, generator=generator)  # far from the initial weights, also biases and norms
        folder = tmp_path_factory.mktemp("theirs")
        model.save_pretrained(folder)
        transformers.GPT2Tokenizer(vocab=VOCAB, merges=MERGES).save_pretrained(folder)
        return model, folder

    return save


def imported(source: Path, target: Path) -> TrainedModel:
    import_weights(source, target, started="now")
    return load_run(target, CPU)


def ids_of(count: int, length: int = T) -> torch.Tensor:
    return torch.randint(0, count, (2, length), generator=torch.Generator().manual_seed(3))


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Rewrite the folder's tensors."""
    tensors = change({name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()})
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")


def change_config(folder: Path, **changes: Any) -> None:
    """Rewrite the folder's config.json."""
    saved = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(saved | changes))


@pytest.fixture
def folder(theirs: Callable[..., tuple[Any, Path]], tmp_path: Path) -> Path:
    """A copy of a small model of transformers, to be changed."""
    return Path(shutil.copytree(theirs()[1], tmp_path / "theirs"))


# Import.


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tied", [True, False])
def test_an_imported_model_gives_the_same_logits_and_greedy_tokens(
    theirs: Callable[..., tuple[Any, Path]], tmp_path: Path, size: str, tied: bool
) -> None:
    their_model, source = theirs(size, tie_word_embeddings=tied)
    ours = imported(source, tmp_path / "run")
    ids = ids_of(V)
    with torch.no_grad():
        torch.testing.assert_close(ours.model(ids), their_model(ids).logits, rtol=1e-4, atol=1e-4)
    assert ours.config.tie_weights is tied
    assert ours.tokenizer.encode("hello the") == [258, 78, 260]
    tokens = greedy_tokens(ours.model, [1, 2, 3], 64)
    text_ids = [1, 2, 3, *tokens]
    with torch.no_grad():
        logits = their_model(torch.tensor([text_ids[:-1]])).logits[0, 2:]
    for scores, token in zip(logits, tokens, strict=True):
        assert scores.max() - scores[token] < 1e-4, "they may differ only if two logits are nearly equal"


def test_a_width_and_an_epsilon_of_its_own_are_read(theirs: Callable[..., tuple[Any, Path]], tmp_path: Path) -> None:
    their_model, source = theirs(n_inner=40, layer_norm_epsilon=1e-2)
    ours = imported(source, tmp_path / "run")
    ids = ids_of(V)
    with torch.no_grad():
        torch.testing.assert_close(ours.model(ids), their_model(ids).logits, rtol=1e-4, atol=1e-4)
    assert (ours.config.ff_dim, ours.config.norm_eps) == (40, 1e-2)


def without_prefix(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}


def with_masks(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    mask = torch.tril(torch.ones(1, 1, T, T))
    return tensors | {"transformer.h.0.attn.bias": mask, "transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}


def with_its_head(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return tensors | {"lm_head.weight": tensors["transformer.wte.weight"].clone()}


@pytest.mark.parametrize("change", [without_prefix, with_masks, with_its_head])
def test_other_variants_of_the_layout_give_the_same_bytes(folder: Path, tmp_path: Path, change: Callable[..., Any]) -> None:
    imported(folder, tmp_path / "plain")
    change_tensors(folder, change)
    imported(folder, tmp_path / "run")
    assert (tmp_path / "run" / MODEL_FILE).read_bytes() == (tmp_path / "plain" / MODEL_FILE).read_bytes()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_become_float32(folder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    before = load_file(folder / "model.safetensors")["transformer.wte.weight"]
    change_tensors(folder, lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()})
    imported(folder, tmp_path / "run")
    tensors = load_tensors(tmp_path / "run" / MODEL_FILE)[0]
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert torch.equal(tensors["tok_emb.weight"], before.to(dtype).float())


def test_weights_in_several_files_are_one_model(folder: Path, tmp_path: Path) -> None:
    imported(folder, tmp_path / "whole")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = {name: f"model-0000{1 + n % 2}-of-00002.safetensors" for n, name in enumerate(tensors)}
    for file in set(names.values()):
        save_file({name: tensor for name, tensor in tensors.items() if names[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    imported(folder, tmp_path / "run")
    assert (tmp_path / "run" / MODEL_FILE).read_bytes() == (tmp_path / "whole" / MODEL_FILE).read_bytes()


def test_older_tokenizer_files_and_merges_as_text_are_read_too(folder: Path, tmp_path: Path) -> None:
    saved = json.loads((folder / "tokenizer.json").read_text())
    saved["model"]["merges"] = [" ".join(merge) for merge in MERGES]
    as_text = from_hf_tokenizer(saved)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(VOCAB))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, MERGES)]) + "\n")
    tokenizer = imported(folder, tmp_path / "run").tokenizer
    assert tokenizer.identity() == as_text.identity()
    assert tokenizer.encode("hello the") == [258, 78, 260]


@pytest.mark.parametrize("size", SIZES)
def test_a_single_file_is_recognized_by_its_shapes(
    size: str,
    theirs: Callable[..., tuple[Any, Path]],
    tmp_path: Path,
    fetched: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetched("gpt2")
    monkeypatch.setattr(gpt2, "RELEASED_SIZES", {f"gpt2_{name}": shape for name, shape in SIZES.items()})
    monkeypatch.setattr(gpt2, "_RELEASED_CONTEXT", 16)
    their_model, source = theirs(size, vocab_size=50257, n_positions=16)
    ours = imported(source / "model.safetensors", tmp_path / "run")
    assert (ours.config.n_layers, ours.config.emb_dim, ours.config.n_heads) == SIZES[size]
    assert ours.tokenizer.encode("Hello, I am") == [15496, 11, 314, 716]
    ids = ids_of(50257, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours.model(ids), their_model(ids).logits, rtol=1e-4, atol=1e-4)


def test_the_released_sizes_are_those_of_the_configs() -> None:
    tree = load_params(PROJECT / "params.yaml")
    for name, shape in RELEASED_SIZES.items():
        config = resolve_config(tree, name).model
        assert (config.n_layers, config.emb_dim, config.n_heads) == shape
        assert config.context_length == gpt2._RELEASED_CONTEXT
        assert (config.tie_weights, config.qkv_bias) == (True, True)
    assert set(RELEASED_SIZES) == {name for name in config_names(tree) if name.startswith("gpt2_")}


def test_an_imported_run_works_in_every_command(folder: Path, tmp_path: Path, here: Here) -> None:
    target = tmp_path / "run"
    assert f"{V} tokens" in here("import-weights", folder, "-o", target).err
    inspected = json.loads(here("inspect", target, "--verify", "--json").out)
    origin = next(source for source in inspected["from"] if source["path"].endswith(".safetensors"))
    assert origin["sha256"] == sha256_of(folder / "model.safetensors")
    (tmp_path / "play.txt").write_text(ODD.replace("\x00", "") * 20)
    here("tokenize", tmp_path / "play.txt", "-o", tmp_path / "tokens", "--tokenizer", target)
    here("build-dataset", tmp_path / "tokens", "-o", tmp_path / "dataset", "--context-length", 16)
    assert "name one: `evaluate" in here("evaluate", target, code=1).err
    here("evaluate", target, tmp_path / "dataset", "-o", target / "evaluation.json", *FEW)
    assert "run" in here("compare", target).out
    assert "has no losses to show" in here("plot", "loss", target, "-o", tmp_path / "a.png", code=1).err
    words = ["--config", "debug", "--set", "model.context_length=16"]
    assert "holds imported weights" in here("train", tmp_path / "dataset", "-o", target, *words, code=2).err
    before = (target / MODEL_FILE).read_bytes()
    import_weights(folder, target, started="later")
    assert (target / MODEL_FILE).read_bytes() == before


# What is refused.


@pytest.mark.parametrize("name", ["run", "dataset"])
def test_an_import_does_not_overwrite_other_artifacts(copied: Path, folder: Path, name: str) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in copied.rglob("*"))
    with pytest.raises(UsageError, match="choose another"):
        import_weights(folder, copied / name, started="now")
    assert sorted((path, path.stat().st_mtime_ns) for path in copied.rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation_function": "relu"}, r"activation_function=relu .*must be gelu_new or gelu_pytorch_tanh"),
        ({"layer_norm_epsilon": -1}, "norm_eps=-1 must be greater than 0"),
        ({"n_inner": 100}, r"h.0.mlp.c_fc.weight has the shape \(24, 96\), not \(24, 100\)"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
        ({"scale_attn_weights": False}, "scale_attn_weights=False"),
        ({"add_cross_attention": True}, "add_cross_attention=True"),
        ({"model_type": "mamba"}, "model_type=mamba"),
        ({"n_head": 7}, "emb_dim=24 must be divisible by model.n_heads=7"),
        ({"n_embd": None}, "lacks n_embd"),
        ({"n_layer": "two"}, "n_layers=two must be an integer"),
        ({"vocab_size": 300}, rf"wte.weight has the shape \({V}, 24\), not \(300, 24\)"),
        ({"n_layer": 2}, "missing: h.1.ln_1.weight, .*, and 4 more"),
        ({"n_positions": 9}, rf"wpe.weight has the shape \({T}, 24\), not \(9, 24\)"),
        ({"tie_word_embeddings": False}, "missing: lm_head.weight"),
    ],
)
def test_an_unsupported_value_of_config_json_is_named(
    folder: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    change_config(folder, **change)
    with pytest.raises(MakegptError, match=message):
        import_weights(folder, tmp_path / "run", started="now")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", ["gelu_pytorch_tanh", "gelu_new"])
def test_an_equivalent_value_of_config_json_is_accepted(folder: Path, tmp_path: Path, value: str) -> None:
    change_config(folder, activation_function=value, n_inner=96)
    assert imported(folder, tmp_path / "run").config.emb_dim == 24


def test_every_wrong_tensor_is_named_in_one_error(folder: Path, tmp_path: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        del tensors["transformer.ln_f.bias"], tensors["transformer.wpe.weight"]
        tensors |= {"score.weight": torch.ones(2), "transformer.h.7.ln_1.bias": torch.ones(24)}
        tensors["transformer.h.0.attn.c_proj.bias"] = torch.ones(5)
        return tensors | {"transformer.h.0.mlp.c_fc.weight": tensors["transformer.h.0.mlp.c_fc.weight"].T}

    change_tensors(folder, change)
    with pytest.raises(MakegptError) as caught:
        import_weights(folder, tmp_path / "run", started="now")
    assert str(caught.value).partition(": ")[2] == (
        "missing: wpe.weight, ln_f.bias; not part of it: h.7.ln_1.bias, score.weight; "
        "h.0.attn.c_proj.bias has the shape (5,), not (24,), h.0.mlp.c_fc.weight has the shape (96, 24), not (24, 96)"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t | {"lm_head.weight": t["transformer.wte.weight"] + 1}, "tie_word_embeddings=true; set it to false"),
        (lambda t: t | {"wte.weight": t["transformer.wte.weight"] + 1}, "duplicate tensor wte.weight"),
        (
            lambda t: t | {"transformer.ln_f.bias": torch.ones(24, dtype=torch.int32)},
            r"ln_f.bias \(I32\) has an unsupported type",
        ),
    ],
)
def test_contradictory_tensors_are_refused(folder: Path, tmp_path: Path, change: Any, message: str) -> None:
    change_tensors(folder, change)
    with pytest.raises(MakegptError, match=message):
        import_weights(folder, tmp_path / "run", started="now")


def test_an_unusable_file_is_refused_with_the_reason(folder: Path, tmp_path: Path) -> None:
    def assert_refused(words: str, source: Path = folder) -> None:
        with pytest.raises(MakegptError, match=words):
            import_weights(source, tmp_path / "run", started="now")

    weights = folder / "model.safetensors"
    assert_refused(
        "has the shapes of no released size .*gpt2_small 12 × 768.*give a folder with the file and its config.json", weights
    )
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-7])
    assert_refused("model.safetensors is damaged")
    weights.write_bytes(b"no tensors")
    assert_refused("model.safetensors is damaged")
    weights.rename(folder / "pytorch_model.bin")
    assert_refused("pytorch_model.bin is a pickle, .*save_pretrained")
    assert_refused("is a pickle", folder / "pytorch_model.bin")
    (folder / "pytorch_model.bin").unlink()
    assert_refused("has no model.safetensors")
    assert_refused("does not exist", tmp_path / "nothing")
    write_run(tmp_path / "ours", BytesTokenizer())
    for ours in (tmp_path / "ours", tmp_path / "ours" / "model.safetensors"):
        assert_refused(f"{tmp_path / 'ours'} is a makegpt run folder already", ours)
    weights.write_bytes(whole)
    (folder / "tokenizer.json").unlink()
    assert_refused(f"has no tokenizer, and its model has {V} tokens, not the 50257")
    (folder / "config.json").unlink()
    assert_refused("config.json is missing")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("pre_tokenizer", "add_prefix_space"), True, "its pre_tokenizer is"),
        (("pre_tokenizer", "type"), "Whitespace", "its pre_tokenizer is"),
        (("normalizer",), {"type": "Lowercase"}, "its normalizer"),
        (("model", "type"), "WordPiece", "its model is WordPiece"),
        (("model", "vocab"), {"a": 0}, "its ids are not bytes, merges"),
        (("model", "merges"), [], "it has 4 added tokens that are not special.*, and the token .* is not made by a merge"),
        (("model",), None, "NoneType"),
    ],
)
def test_an_unsupported_tokenizer_is_refused(
    folder: Path, tmp_path: Path, path: tuple[str, ...], value: Any, message: str
) -> None:
    saved = json.loads((folder / "tokenizer.json").read_text())
    inner = saved
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (folder / "tokenizer.json").write_text(json.dumps(saved))
    with pytest.raises(MakegptError, match=f"is not supported .*{message}"):
        import_weights(folder, tmp_path / "run", started="now")


def test_older_files_with_ids_in_another_order_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "vocab.json").write_text(json.dumps({token: (id + 1) % V for token, id in VOCAB.items()}))
    (folder / "merges.txt").write_text("\n".join(map(" ".join, MERGES)))
    with pytest.raises(MakegptError, match=r"vocab.json is not supported \(its ids are not bytes, merges"):
        import_weights(folder, tmp_path / "run", started="now")


# Export.


def write_run(folder: Path, tokenizer: Tokenizer, **changes: Any) -> ModelConfig:
    """A run folder with random weights of config debug, as a training would leave it."""
    folder.mkdir(parents=True)
    config = config_of("debug", **({"vocab_size": tokenizer.vocab_size, "context_length": T} | changes))
    model = build_model(config)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.3, generator=generator)
    metadata = {"model": config.__dict__, "tokenizer": tokenizer.identity(), "dataset": "d" * 64, "step": 7}
    write_json(folder / CONFIG_FILE, {"model": config.__dict__})
    tokenizer.save(folder / "tokenizer.json")
    save_tensors(folder / MODEL_FILE, dict(model.named_parameters()), metadata)
    names = [CONFIG_FILE, "tokenizer.json", MODEL_FILE]
    results = {"parameters": 1, "published_step": 7, "published_val_loss": 1.0}
    manifest = new_manifest(
        "run", "trained", parameters={}, inputs={}, outputs=describe_files(folder, names), metadata=results, started="now"
    )
    write_manifest(folder, manifest)
    return config


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "gpt2": lambda: GPT2Tokenizer([bytes(BYTE_OF[character] for character in token) for token in list(VOCAB)[:-1]]),
    "bpe": lambda: BPETokenizer.train([["hello the other hello", ODD]], vocab_size=270),
    "bpe-digits": lambda: BPETokenizer.train([["hello 12 12", ODD]], vocab_size=265, pattern="digits", ties="hf"),
    "bytes": BytesTokenizer,
    "char": lambda: CharTokenizer("".join(sorted(set(ODD)))),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize(
    "options",
    [
        {"tie_weights": True, "qkv_bias": True},
        {"tie_weights": False, "qkv_bias": False},
        {"tie_weights": False, "qkv_bias": False, "ff_dim": 40, "norm_eps": 1e-2, "out_bias": False},
    ],
)
def test_transformers_reads_an_export_and_importing_it_gives_the_same_bytes(
    kind: str, options: dict[str, Any], transformers: Any, tmp_path: Path
) -> None:
    tokenizer = TOKENIZERS[kind]()
    write_run(tmp_path / "run", tokenizer, **options)
    export_weights(tmp_path / "run", tmp_path / "out", started="now")

    their_model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    ours = load_run(tmp_path / "run", CPU)
    ids = ids_of(tokenizer.vocab_size)
    with torch.no_grad():
        torch.testing.assert_close(ours.model(ids), their_model(ids).logits, rtol=1e-4, atol=1e-4)
    assert their_model.config.tie_word_embeddings is options["tie_weights"]
    assert their_model.config.n_ctx == T
    assert (their_model.config.bos_token_id, their_model.config.eos_token_id) == (tokenizer.endoftext, tokenizer.endoftext)

    their_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in (ODD, ODD[::-1], "hello the hell", " the", ""):
        text = "".join(character for character in text if kind != "char" or character in ODD)
        encoded = their_tokenizer(text)["input_ids"]
        assert encoded == tokenizer.encode(text)
        assert their_tokenizer.decode(encoded) == tokenizer.decode(encoded) == text
    assert len(their_tokenizer) == tokenizer.vocab_size
    assert their_tokenizer.eos_token_id == tokenizer.endoftext

    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    import_weights(tmp_path / "out", tmp_path / "again", started="later")
    assert (tmp_path / "again" / MODEL_FILE).read_bytes() == (tmp_path / "run" / MODEL_FILE).read_bytes()
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (tmp_path / "run" / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("tied", [True, False])
def test_exporting_an_imported_model_gives_the_same_bytes(
    theirs: Callable[..., tuple[Any, Path]], tmp_path: Path, tied: bool
) -> None:
    _, source = theirs("medium", tie_word_embeddings=tied)
    imported(source, tmp_path / "run")
    export_weights(tmp_path / "run", tmp_path / "out", started="now")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    imported(tmp_path / "out", tmp_path / "again")
    assert (tmp_path / "again" / MODEL_FILE).read_bytes() == (tmp_path / "run" / MODEL_FILE).read_bytes()


def test_a_changed_export_is_imported_as_any_other_model(tmp_path: Path) -> None:
    write_run(tmp_path / "run", BytesTokenizer())
    export_weights(tmp_path / "run", tmp_path / "out", started="now")
    change_tensors(tmp_path / "out", lambda tensors: tensors | {"transformer.ln_f.bias": torch.ones(32)})
    again = imported(tmp_path / "out", tmp_path / "again")
    assert again.config.qkv_bias is True
    assert set(read_tensor_metadata(tmp_path / "again" / MODEL_FILE)) == {"model", "tokenizer"}


def test_the_released_merges_are_recovered_from_the_byte_sequences(fetched: Callable[[str], Path], transformers: Any) -> None:
    tokenizer = GPT2Tokenizer.train([], fetched("gpt2"))
    saved = to_hf_tokenizer(tokenizer)
    assert saved is not None
    lines = (fetched("gpt2") / "gpt2" / "vocab.bpe").read_text(encoding="utf-8").splitlines()[1:]
    assert [" ".join(merge) for merge in saved["tokenizer.json"]["model"]["merges"]] == [line for line in lines if line]
    assert from_hf_tokenizer(saved["tokenizer.json"]).identity() == tokenizer.identity()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": "rotary"}, "model.positions=rotary"),
        ({"norm": "rms"}, "model.norm=rms"),
        ({"feed_forward": "swiglu"}, "model.feed_forward=swiglu"),
        ({"n_kv_heads": 1}, "model.n_kv_heads=1"),
        ({"qk_norm": True}, "model.qk_norm=True"),
        ({"window": 4}, "model.window=4"),
        ({"window": 4, "attention_pattern": "strided"}, "model.attention_pattern=strided"),
        ({"head_dim": 4}, "model.head_dim=4"),
        ({"ngram_order": 2, "ngram_rows": 9}, "model.ngram_order=2"),
        ({"kind": "single_block", "n_layers": 1}, "model.kind=single_block"),
    ],
)
def test_options_beyond_gpt_2_are_not_exported_and_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_run(tmp_path / "run", BytesTokenizer(), **change)
    with pytest.raises(UsageError, match=message):
        export_weights(tmp_path / "run", tmp_path / "out", started="now")
    assert not (tmp_path / "out").exists()


def test_a_word_model_is_exported_with_its_words_and_imported_again(tmp_path: Path, here: Here) -> None:
    write_run(tmp_path / "run", WordTokenizer.train([["to be, or not to be"]], tmp_path))
    err = here("export-weights", tmp_path / "run", "-o", tmp_path / "out").err
    assert "without a tokenizer" not in err
    assert "greedy tokens that agree: 64 of 64" in err
    assert str(tmp_path / "run") in here("inspect", tmp_path / "out", "--verify").err
    here("import-weights", tmp_path / "out", "-o", tmp_path / "again")
    for name in (MODEL_FILE, "tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    (tmp_path / "out" / "tokenizer.json").unlink()
    assert "has no tokenizer" in here("import-weights", tmp_path / "out", "-o", tmp_path / "third", code=1).err
    shutil.copy(tmp_path / "run" / "tokenizer.json", tmp_path / "out")
    here("import-weights", tmp_path / "out", "-o", tmp_path / "third")
    assert (tmp_path / "third" / "tokenizer.json").read_bytes() == (tmp_path / "run" / "tokenizer.json").read_bytes()


def test_an_export_does_not_overwrite_other_artifacts(copied: Path) -> None:
    for name in ("dataset", "run"):
        with pytest.raises(UsageError, match="choose another folder for an export"):
            export_weights(copied / "run", copied / name, started="now")


def test_an_export_given_as_a_run_is_refused_with_the_command_that_imports_it(tmp_path: Path) -> None:
    write_run(tmp_path / "run", BytesTokenizer())
    export_weights(tmp_path / "run", tmp_path / "out", started="now")
    with pytest.raises(MakegptError, match=r"holds an export, not a run: make one of it with `import-weights .*/out -o RUN`"):
        load_run(tmp_path / "out", CPU)


# The parity certificate.


def test_the_formulas_in_float64_are_the_gpt_2_of_transformers(theirs: Callable[..., tuple[Any, Path]]) -> None:
    their_model, source = theirs("large")
    ids = ids_of(V)[0].tolist()
    with torch.no_grad():
        expected = their_model.double()(torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(exported_logits(source, ids), expected, rtol=1e-9, atol=1e-9)


def test_a_certificate_reports_how_well_the_files_agree(tmp_path: Path) -> None:
    write_run(tmp_path / "run", BytesTokenizer())
    export_weights(tmp_path / "run", tmp_path / "out", started="now")
    certificate = json.loads((tmp_path / "out" / PARITY_FILE).read_text())
    assert bytes(certificate["prompt_tokens"]) == b"To be, or not to be"
    assert (certificate["greedy_tokens"], certificate["greedy_tokens_that_agree"], certificate["gap_where_they_part"]) == (
        54,
        54,
        None,
    )
    assert 0 < certificate["largest_difference"] < 1e-5 * certificate["largest_logit"]
    ours = load_run(tmp_path / "run", CPU)
    assert certificate["tokens"] == greedy_tokens(ours.model, certificate["prompt_tokens"], 54)
    assert certificate["model_sha256"] == sha256_of(tmp_path / "run" / MODEL_FILE)


def test_a_certificate_counts_up_to_the_first_different_token_and_reports_the_gap(tmp_path: Path) -> None:
    write_run(tmp_path / "run", BytesTokenizer())
    export_weights(tmp_path / "run", tmp_path / "out", started="now")
    ours = load_run(tmp_path / "run", CPU)
    prompt = list(b"To be")
    tokens = greedy_tokens(ours.model, prompt, 10)
    logits = exported_logits(tmp_path / "out", [*prompt, *tokens][:-1])[len(prompt) - 1 :]
    agreement = logit_agreement([*tokens[:4], (tokens[4] + 1) % 256, *tokens[5:]], logits)
    best = sorted(logits[4])[-2:]
    assert agreement == (4, pytest.approx(best[1] - best[0]))
    assert logit_agreement(tokens, logits) == (10, None)


@pytest.mark.parametrize("amount", [0.1, float("nan")])
def test_an_export_with_other_logits_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amount: float) -> None:
    write_run(tmp_path / "run", BytesTokenizer())
    write = write_weights

    def write_wrong(layout: Layout, path: Path, weights: dict[str, torch.Tensor], config: ModelConfig) -> None:
        write(layout, path, weights | {"final_norm.shift": weights["final_norm.shift"] + amount}, config)

    monkeypatch.setattr("lib.huggingface.convert.write_weights", write_wrong)
    with pytest.raises(MakegptError, match="the exported files do not compute what the model does"):
        export_weights(tmp_path / "run", tmp_path / "out", started="now")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("context", [1, 2, 9])
def test_a_certificate_stays_within_a_short_context(tmp_path: Path, context: int) -> None:
    write_run(tmp_path / "run", BytesTokenizer(), context_length=context)
    export_weights(tmp_path / "run", tmp_path / "out", started="now")
    certificate = json.loads((tmp_path / "out" / PARITY_FILE).read_text())
    assert certificate["greedy_tokens"] == certificate["greedy_tokens_that_agree"] == context + 1 - (context + 1) // 2


# Our own checkpoint.


def test_every_tensor_that_does_not_fit_is_named(tmp_path: Path) -> None:
    model = build_model(config_of("debug"))
    tensors = dict(model.named_parameters())
    tensors["blocks.0.norm1.scale"] = torch.nn.Parameter(torch.ones(3))
    tensors["new"] = tensors.pop("final_norm.shift")
    with pytest.raises(MakegptError) as caught:
        fill_weights(model, tensors, tmp_path / "model.safetensors")  # type: ignore[arg-type]
    assert str(caught.value).endswith(
        "missing: final_norm.shift; not part of it: new; blocks.0.norm1.scale has the shape (3,), not (32,)"
    )
    with pytest.raises(MakegptError, match=r"missing: (\S+, ){8}and \d+ more$"):
        fill_weights(model, {}, tmp_path / "model.safetensors")


# Embeddings with padding rows.


def padded_by_rows(transformers: Any, their_model: Any, folder: Path) -> None:
    their_model.resize_token_embeddings(V + 43)


def with_a_padding_token(transformers: Any, their_model: Any, folder: Path) -> None:
    tokenizer = transformers.GPT2Tokenizer(vocab=VOCAB, merges=MERGES)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    their_model.resize_token_embeddings(len(tokenizer))


def with_a_padding_token_in_the_older_files(transformers: Any, their_model: Any, folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(VOCAB))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(merge) for merge in MERGES))
    (folder / "added_tokens.json").write_text(json.dumps({"[PAD]": V}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "[PAD]"}))
    their_model.resize_token_embeddings(V + 7)


@pytest.mark.parametrize("pad", [padded_by_rows, with_a_padding_token, with_a_padding_token_in_the_older_files])
@pytest.mark.parametrize("tied", [True, False])
def test_padding_rows_are_removed_and_the_other_logits_stay(
    theirs: Callable[..., tuple[Any, Path]], transformers: Any, tmp_path: Path, here: Here, pad: Callable[..., None], tied: bool
) -> None:
    their_model, source = theirs(tie_word_embeddings=tied)
    folder = Path(shutil.copytree(source, tmp_path / "theirs"))
    pad(transformers, their_model, folder)
    their_model.save_pretrained(folder)
    rows = their_model.get_input_embeddings().weight.shape[0]
    err = here("import-weights", folder, "-o", tmp_path / "run").err
    assert f"{rows - V} padding rows of the embeddings were dropped" in err
    ours = load_run(tmp_path / "run", CPU)
    assert ours.config.vocab_size == ours.tokenizer.vocab_size == V
    ids = ids_of(V)
    with torch.no_grad():
        torch.testing.assert_close(ours.model(ids), their_model(ids).logits[..., :V], rtol=1e-4, atol=1e-4)
    here("export-weights", tmp_path / "run", "-o", tmp_path / "export")
    again = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "export")
    assert again.config.vocab_size == again.get_input_embeddings().weight.shape[0] == V
    assert "dropped" not in here("import-weights", tmp_path / "export", "-o", tmp_path / "back").err


def test_an_added_token_that_is_not_special_is_read(
    theirs: Callable[..., tuple[Any, Path]], transformers: Any, tmp_path: Path
) -> None:
    their_model, source = theirs()
    folder = Path(shutil.copytree(source, tmp_path / "theirs"))
    tokenizer = transformers.GPT2Tokenizer(vocab=VOCAB, merges=MERGES)
    tokenizer.add_tokens(["hello!"])
    tokenizer.save_pretrained(folder)
    their_model.resize_token_embeddings(V + 1)
    their_model.save_pretrained(folder)
    ours = imported(folder, tmp_path / "run").tokenizer
    assert ours.encode("hello hello!") == [258, 78, 220, V] == tokenizer("hello hello!")["input_ids"]
    assert (ours.kind, ours.endoftext) == ("pretrained", V - 1)


@pytest.mark.parametrize(("rows", "message"), [(V - 1, f"only {V - 1} rows"), (2 * V, "more than padding explains")])
def test_embeddings_of_another_tokenizer_are_refused_with_the_reason(
    theirs: Callable[..., tuple[Any, Path]], tmp_path: Path, rows: int, message: str
) -> None:
    with pytest.raises(MakegptError, match=message):
        import_weights(theirs(vocab_size=rows)[1], tmp_path / "run", started="now")
