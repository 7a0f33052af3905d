"""GPT-2 from elsewhere and to elsewhere: what others wrote is read as they mean it, and what we write they read so too."""

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
from lib.config.params import config_names, load_params, resolve_config
from lib.config.schema import ModelConfig
from lib.errors import MakegptError, UsageError
from lib.huggingface import gpt2
from lib.huggingface.convert import export_weights, import_weights
from lib.huggingface.gpt2 import RELEASED_SIZES, write_weights
from lib.huggingface.parity import PARITY_FILE, exported_logits, greedy_tokens, logit_agreement
from lib.huggingface.tokenizer import from_hf_tokenizer, to_hf_tokenizer
from lib.model.registry import build_model
from lib.run.folder import CONFIG_FILE, MODEL_FILE, TrainedModel, load_run
from lib.run.weights import fill_weights
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.bytes_ import BytesTokenizer
from lib.tokenizer.char import CharTokenizer
from lib.tokenizer.gpt2 import BYTE_OF, GPT2Tokenizer
from lib.tokenizer.word import WordTokenizer
from tests.conftest import FEW, PROJECT, Here
from tests.model.test_formulas import config_of

CPU = torch.device("cpu")
T = 72
ODD = "\ufeffa\r\nb\rc\u2028d\u0085e\x00\x1c  \t\n\n é😀 'll don't hello the \u3000 e\u0301 \U0010ffff  end  "

#: The released sizes, as many heads and one block in twelve: blocks, width, heads.
SIZES = {"small": (1, 24, 12), "medium": (2, 32, 16), "large": (3, 40, 20), "xl": (4, 50, 25)}

JOINS = [("h", "e"), ("l", "l"), ("he", "ll"), ("Ġ", "t"), ("Ġt", "he")]
VOCAB = {token: id for id, token in enumerate([*BYTE_OF, *(a + b for a, b in JOINS), "<|endoftext|>"])}
V = len(VOCAB)


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers", reason="transformers is not installed: make setup EXTRAS=dev,parity")


@pytest.fixture(scope="module")
def theirs(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Any, Path]]:
    """theirs("small", n_positions=8): a GPT-2 as transformers has it, on random weights, and the folder it is saved in."""

    def make(size: str = "small", **changes: Any) -> tuple[Any, Path]:
        layers, width, heads = SIZES[size]
        shape = {"vocab_size": V, "n_positions": T, "n_embd": width, "n_layer": layers, "n_head": heads}
        ends = {"bos_token_id": V - 1, "eos_token_id": V - 1}
        made = transformers.GPT2LMHeadModel(transformers.GPT2Config(**(shape | ends | changes))).eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in made.parameters():
                weight.normal_(0, 0.3, generator=generator)  # far from its start, biases and norms too
        folder = tmp_path_factory.mktemp("theirs")
        made.save_pretrained(folder)
        transformers.GPT2Tokenizer(vocab=VOCAB, merges=JOINS).save_pretrained(folder)
        return made, folder

    return make


def imported(source: Path, target: Path) -> TrainedModel:
    import_weights(source, target, started="now")
    return load_run(target, CPU)


def ids_of(count: int, length: int = T) -> torch.Tensor:
    return torch.randint(0, count, (2, length), generator=torch.Generator().manual_seed(3))


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Rewrite the folder's tensors."""
    tensors = change({name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()})
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")


def reconfigured(folder: Path, **changes: Any) -> None:
    """Rewrite the folder's config.json."""
    saved = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(saved | changes))


@pytest.fixture
def folder(theirs: Callable[..., tuple[Any, Path]], tmp_path: Path) -> Path:
    """A copy of a small model of theirs to change."""
    return Path(shutil.copytree(theirs()[1], tmp_path / "theirs"))


# In.


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_of_theirs_gives_the_same_logits_and_greedy_tokens_here(
    theirs: Callable[..., tuple[Any, Path]], tmp_path: Path, size: str, tied: bool
) -> None:
    their, source = theirs(size, tie_word_embeddings=tied)
    ours = imported(source, tmp_path / "run")
    ids = ids_of(V)
    with torch.no_grad():
        torch.testing.assert_close(ours.model(ids), their(ids).logits, rtol=1e-4, atol=1e-4)
    assert ours.config.tie_weights is tied
    assert ours.tokenizer.encode("hello the") == [258, 78, 260]
    tokens = greedy_tokens(ours.model, [1, 2, 3], 64)
    read = [1, 2, 3, *tokens]
    with torch.no_grad():
        logits = their(torch.tensor([read[:-1]])).logits[0, 2:]
    for scores, token in zip(logits, tokens, strict=True):
        assert scores.max() - scores[token] < 1e-4, "a tie at most parts them"


def without_prefix(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}


def with_masks(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    mask = torch.tril(torch.ones(1, 1, T, T))
    return tensors | {"transformer.h.0.attn.bias": mask, "transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}


def with_its_head(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return tensors | {"lm_head.weight": tensors["transformer.wte.weight"].clone()}


@pytest.mark.parametrize("change", [without_prefix, with_masks, with_its_head])
def test_other_ways_to_write_it_down_give_the_same_bytes(folder: Path, tmp_path: Path, change: Callable[..., Any]) -> None:
    imported(folder, tmp_path / "plain")
    changed(folder, change)
    imported(folder, tmp_path / "run")
    assert (tmp_path / "run" / MODEL_FILE).read_bytes() == (tmp_path / "plain" / MODEL_FILE).read_bytes()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_become_float32(folder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    before = load_file(folder / "model.safetensors")["transformer.wte.weight"]
    changed(folder, lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()})
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


def test_the_older_files_of_a_tokenizer_and_joins_written_as_text_are_read_too(folder: Path, tmp_path: Path) -> None:
    saved = json.loads((folder / "tokenizer.json").read_text())
    saved["model"]["merges"] = [" ".join(join) for join in JOINS]
    as_text = from_hf_tokenizer(saved)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(VOCAB))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, JOINS)]) + "\n")
    made = imported(folder, tmp_path / "run").tokenizer
    assert made.identity() == as_text.identity()
    assert made.encode("hello the") == [258, 78, 260]


@pytest.mark.parametrize("size", SIZES)
def test_a_bare_file_is_known_by_its_shapes(
    size: str,
    theirs: Callable[..., tuple[Any, Path]],
    tmp_path: Path,
    fetched: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetched("gpt2")
    monkeypatch.setattr(gpt2, "RELEASED_SIZES", {f"gpt2_{name}": shape for name, shape in SIZES.items()})
    monkeypatch.setattr(gpt2, "_RELEASED_CONTEXT", 16)
    their, source = theirs(size, vocab_size=50257, n_positions=16)
    ours = imported(source / "model.safetensors", tmp_path / "run")
    assert (ours.config.n_layers, ours.config.emb_dim, ours.config.n_heads) == SIZES[size]
    assert ours.tokenizer.encode("Hello, I am") == [15496, 11, 314, 716]
    ids = ids_of(50257, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours.model(ids), their(ids).logits, rtol=1e-4, atol=1e-4)


def test_the_released_sizes_are_those_of_the_configs() -> None:
    tree = load_params(PROJECT / "params.yaml")
    for name, shape in RELEASED_SIZES.items():
        config = resolve_config(tree, name).model
        assert (config.n_layers, config.emb_dim, config.n_heads) == shape
        assert config.context_length == gpt2._RELEASED_CONTEXT
        assert (config.tie_weights, config.qkv_bias) == (True, True)
    assert set(RELEASED_SIZES) == {name for name in config_names(tree) if name.startswith("gpt2_")}


def test_the_run_is_one_like_others(folder: Path, tmp_path: Path, here: Here) -> None:
    target = tmp_path / "run"
    assert f"{V} tokens" in here("import-weights", folder, "-o", target).err
    told = json.loads(here("inspect", target, "--verify", "--json").out)
    origin = next(each for each in told["from"] if each["path"].endswith(".safetensors"))
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
def test_what_is_something_else_is_not_overwritten(copied: Path, folder: Path, name: str) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in copied.rglob("*"))
    with pytest.raises(UsageError, match="choose another"):
        import_weights(folder, copied / name, started="now")
    assert sorted((path, path.stat().st_mtime_ns) for path in copied.rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"activation_function": "relu"}, r"activation_function=relu .*gelu_new or gelu_pytorch_tanh would be"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon=1e-06 .*1e-05 would be"),
        ({"n_inner": 100}, "n_inner=100 .*96 would be"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
        ({"scale_attn_weights": False}, "scale_attn_weights=False"),
        ({"add_cross_attention": True}, "add_cross_attention=True"),
        ({"model_type": "llama"}, "model_type=llama"),
        ({"n_head": 7}, "emb_dim=24 must be divisible by model.n_heads=7"),
        ({"n_embd": None}, "does not say n_embd"),
        ({"n_layer": "two"}, "n_layers=two must be an integer"),
        ({"vocab_size": 300}, rf"wte.weight has the shape \({V}, 24\), not \(300, 24\)"),
        ({"n_layer": 2}, "missing: h.1.ln_1.weight, .*, and 4 more"),
        ({"n_positions": 9}, rf"wpe.weight has the shape \({T}, 24\), not \(9, 24\)"),
        ({"tie_word_embeddings": False}, "missing: lm_head.weight"),
    ],
)
def test_what_config_says_and_we_cannot_follow_is_refused_by_name(
    folder: Path, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    reconfigured(folder, **change)
    with pytest.raises(MakegptError, match=says):
        import_weights(folder, tmp_path / "run", started="now")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", ["gelu_pytorch_tanh", "gelu_new"])
def test_what_means_the_same_is_taken(folder: Path, tmp_path: Path, value: str) -> None:
    reconfigured(folder, activation_function=value, n_inner=96)
    assert imported(folder, tmp_path / "run").config.emb_dim == 24


def test_every_wrong_tensor_is_named_in_one_error(folder: Path, tmp_path: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        del tensors["transformer.ln_f.bias"], tensors["transformer.wpe.weight"]
        tensors |= {"score.weight": torch.ones(2), "transformer.h.7.ln_1.bias": torch.ones(24)}
        tensors["transformer.h.0.attn.c_proj.bias"] = torch.ones(5)
        return tensors | {"transformer.h.0.mlp.c_fc.weight": tensors["transformer.h.0.mlp.c_fc.weight"].T}

    changed(folder, change)
    with pytest.raises(MakegptError) as caught:
        import_weights(folder, tmp_path / "run", started="now")
    assert str(caught.value).partition(": ")[2] == (
        "missing: wpe.weight, ln_f.bias; not part of it: h.7.ln_1.bias, score.weight; "
        "h.0.attn.c_proj.bias has the shape (5,), not (24,), h.0.mlp.c_fc.weight has the shape (96, 24), not (24, 96)"
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t | {"lm_head.weight": t["transformer.wte.weight"] + 1}, "tie_word_embeddings=true; false would be right"),
        (lambda t: t | {"wte.weight": t["transformer.wte.weight"] + 1}, "wte.weight is there twice"),
        (lambda t: t | {"transformer.ln_f.bias": torch.ones(24, dtype=torch.int32)}, r"ln_f.bias \(I32\) is not of a type"),
    ],
)
def test_tensors_that_contradict_are_refused(folder: Path, tmp_path: Path, change: Any, says: str) -> None:
    changed(folder, change)
    with pytest.raises(MakegptError, match=says):
        import_weights(folder, tmp_path / "run", started="now")


def test_a_file_that_is_none_is_refused_by_what_it_is(folder: Path, tmp_path: Path) -> None:
    def says(words: str, source: Path = folder) -> None:
        with pytest.raises(MakegptError, match=words):
            import_weights(source, tmp_path / "run", started="now")

    weights = folder / "model.safetensors"
    says("has the shapes of no released size .*gpt2_small 12 × 768.*name a folder that holds it and its config.json", weights)
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-7])
    says("model.safetensors is damaged")
    weights.write_bytes(b"no tensors")
    says("model.safetensors is damaged")
    weights.rename(folder / "pytorch_model.bin")
    says("pytorch_model.bin is a pickle, .*save_pretrained")
    says("is a pickle", folder / "pytorch_model.bin")
    (folder / "pytorch_model.bin").unlink()
    says("holds no model.safetensors")
    says("does not exist", tmp_path / "nothing")
    a_run(tmp_path / "ours", BytesTokenizer())
    for ours in (tmp_path / "ours", tmp_path / "ours" / "model.safetensors"):
        says(f"{tmp_path / 'ours'} is a run folder of this program already", ours)
    weights.write_bytes(whole)
    (folder / "tokenizer.json").unlink()
    says(f"holds no tokenizer, and its model has {V} tokens, not the 50257")
    (folder / "config.json").unlink()
    says("config.json is missing")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("pre_tokenizer", "add_prefix_space"), True, "its pre_tokenizer is"),
        (("pre_tokenizer", "type"), "Whitespace", "its pre_tokenizer is"),
        (("normalizer",), {"type": "NFC"}, "its normalizer"),
        (("model", "type"), "WordPiece", "its model is WordPiece"),
        (("model", "vocab"), {"a": 0}, "its ids are not bytes, joins"),
        (("model", "merges"), [], "4 tokens were added to it that a text can hold"),
        (("model",), None, "NoneType"),
    ],
)
def test_a_tokenizer_that_would_give_other_ids_is_refused(
    folder: Path, tmp_path: Path, path: tuple[str, ...], value: Any, says: str
) -> None:
    saved = json.loads((folder / "tokenizer.json").read_text())
    inner = saved
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (folder / "tokenizer.json").write_text(json.dumps(saved))
    with pytest.raises(MakegptError, match=f"none that this program can follow .*{says}"):
        import_weights(folder, tmp_path / "run", started="now")


def test_older_files_with_ids_in_another_order_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "vocab.json").write_text(json.dumps({token: (id + 1) % V for token, id in VOCAB.items()}))
    (folder / "merges.txt").write_text("\n".join(map(" ".join, JOINS)))
    with pytest.raises(MakegptError, match=r"vocab.json is none that this program can follow \(its ids are not bytes, joins"):
        import_weights(folder, tmp_path / "run", started="now")


# Out.


def a_run(folder: Path, made: Tokenizer, **changes: Any) -> ModelConfig:
    """A run folder with random weights of config debug, as a training would leave it."""
    folder.mkdir(parents=True)
    config = config_of("debug", **({"vocab_size": made.vocab_size, "context_length": T} | changes))
    built = build_model(config)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in built.parameters():
            weight.normal_(0, 0.3, generator=generator)
    metadata = {"model": config.__dict__, "tokenizer": made.identity(), "dataset": "d" * 64, "step": 7}
    write_json(folder / CONFIG_FILE, {"model": config.__dict__})
    made.save(folder / "tokenizer.json")
    save_tensors(folder / MODEL_FILE, dict(built.named_parameters()), metadata)
    names = [CONFIG_FILE, "tokenizer.json", MODEL_FILE]
    found = {"parameters": 1, "best_step": 7, "best_val_loss": 1.0}
    manifest = new_manifest(
        "run", "trained", parameters={}, inputs={}, outputs=describe_files(folder, names), metadata=found, started="now"
    )
    write_manifest(folder, manifest)
    return config


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "gpt2": lambda: GPT2Tokenizer([bytes(BYTE_OF[each] for each in token) for token in list(VOCAB)[:-1]]),
    "bytes": BytesTokenizer,
    "char": lambda: CharTokenizer("".join(sorted(set(ODD)))),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("form", [{"tie_weights": True, "qkv_bias": True}, {"tie_weights": False, "qkv_bias": False}])
def test_what_was_exported_is_read_by_transformers_and_comes_back_to_the_byte(
    kind: str, form: dict[str, bool], transformers: Any, tmp_path: Path
) -> None:
    made = TOKENIZERS[kind]()
    a_run(tmp_path / "run", made, **form)
    export_weights(tmp_path / "run", tmp_path / "out", started="now")

    their = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    ours = load_run(tmp_path / "run", CPU)
    ids = ids_of(made.vocab_size)
    with torch.no_grad():
        torch.testing.assert_close(ours.model(ids), their(ids).logits, rtol=1e-4, atol=1e-4)
    assert their.config.tie_word_embeddings is form["tie_weights"]
    assert (their.config.bos_token_id, their.config.eos_token_id) == (made.endoftext, made.endoftext)

    their_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in (ODD, ODD[::-1], "hello the hell", " the", ""):
        text = "".join(each for each in text if kind != "char" or each in ODD)
        encoded = their_tokenizer(text)["input_ids"]
        assert encoded == made.encode(text)
        assert their_tokenizer.decode(encoded) == made.decode(encoded) == text
    assert len(their_tokenizer) == made.vocab_size
    assert their_tokenizer.eos_token_id == made.endoftext

    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    import_weights(tmp_path / "out", tmp_path / "again", started="later")
    assert (tmp_path / "again" / MODEL_FILE).read_bytes() == (tmp_path / "run" / MODEL_FILE).read_bytes()
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (tmp_path / "run" / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("tied", [True, False])
def test_what_was_imported_goes_back_to_their_very_bytes(
    theirs: Callable[..., tuple[Any, Path]], tmp_path: Path, tied: bool
) -> None:
    _, source = theirs("medium", tie_word_embeddings=tied)
    imported(source, tmp_path / "run")
    export_weights(tmp_path / "run", tmp_path / "out", started="now")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    imported(tmp_path / "out", tmp_path / "again")
    assert (tmp_path / "again" / MODEL_FILE).read_bytes() == (tmp_path / "run" / MODEL_FILE).read_bytes()


def test_an_export_that_was_changed_since_is_a_model_like_any_other(tmp_path: Path) -> None:
    a_run(tmp_path / "run", BytesTokenizer())
    export_weights(tmp_path / "run", tmp_path / "out", started="now")
    changed(tmp_path / "out", lambda tensors: tensors | {"transformer.ln_f.bias": torch.ones(32)})
    again = imported(tmp_path / "out", tmp_path / "again")
    assert again.config.qkv_bias is True
    assert set(read_tensor_metadata(tmp_path / "again" / MODEL_FILE)) == {"model", "tokenizer"}


def test_released_joins_are_found_again_in_the_byte_sequences(fetched: Callable[[str], Path], transformers: Any) -> None:
    made = GPT2Tokenizer.train([], fetched("gpt2"))
    saved = to_hf_tokenizer(made)
    assert saved is not None
    lines = (fetched("gpt2") / "gpt2" / "vocab.bpe").read_text(encoding="utf-8").splitlines()[1:]
    assert [" ".join(join) for join in saved["tokenizer.json"]["model"]["merges"]] == [line for line in lines if line]
    assert from_hf_tokenizer(saved["tokenizer.json"]).identity() == made.identity()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"positions": "rotary"}, "model.positions=rotary"),
        ({"norm": "rms"}, "model.norm=rms"),
        ({"feed_forward": "swiglu"}, "model.feed_forward=swiglu"),
        ({"n_kv_heads": 1}, "model.n_kv_heads=1"),
        ({"qk_norm": True}, "model.qk_norm=True"),
        ({"window": 4}, "model.window=4"),
        ({"kind": "single_block", "n_layers": 1}, "model.kind=single_block"),
    ],
)
def test_later_designs_are_not_exported_and_the_option_is_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    a_run(tmp_path / "run", BytesTokenizer(), **change)
    with pytest.raises(UsageError, match=says):
        export_weights(tmp_path / "run", tmp_path / "out", started="now")
    assert not (tmp_path / "out").exists()


def test_words_are_exported_without_their_tokenizer_and_it_is_said(tmp_path: Path, here: Here) -> None:
    a_run(tmp_path / "run", WordTokenizer.train([["to be, or not to be"]], tmp_path))
    said = here("export-weights", tmp_path / "run", "-o", tmp_path / "out").err
    assert f"{tmp_path / 'out'}: without a tokenizer" in said
    assert "greedy tokens that agree: 64 of 64" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.json", "model.safetensors", "certificate.json", "manifest.json",
    }  # fmt: skip
    assert str(tmp_path / "run") in here("inspect", tmp_path / "out", "--verify").err
    assert "holds no tokenizer" in here("import-weights", tmp_path / "out", "-o", tmp_path / "again", code=1).err
    shutil.copy(tmp_path / "run" / "tokenizer.json", tmp_path / "out")
    here("import-weights", tmp_path / "out", "-o", tmp_path / "again")
    assert (tmp_path / "again" / MODEL_FILE).read_bytes() == (tmp_path / "run" / MODEL_FILE).read_bytes()


def test_what_is_something_else_is_not_exported_over(copied: Path) -> None:
    for name in ("dataset", "run"):
        with pytest.raises(UsageError, match="choose another folder for an export"):
            export_weights(copied / "run", copied / name, started="now")


def test_an_export_in_the_place_of_a_run_is_told_how_to_become_one(tmp_path: Path) -> None:
    a_run(tmp_path / "run", BytesTokenizer())
    export_weights(tmp_path / "run", tmp_path / "out", started="now")
    with pytest.raises(MakegptError, match=r"holds an export, not a run: make one of it with `import-weights .*/out -o RUN`"):
        load_run(tmp_path / "out", CPU)


# The certificate.


def test_the_formulas_in_float64_are_gpt_2_as_transformers_has_it(theirs: Callable[..., tuple[Any, Path]]) -> None:
    their, source = theirs("large")
    ids = ids_of(V)[0].tolist()
    with torch.no_grad():
        expected = their.double()(torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(exported_logits(source, ids), expected, rtol=1e-9, atol=1e-9)


def test_a_certificate_tells_how_well_the_files_agree(tmp_path: Path) -> None:
    a_run(tmp_path / "run", BytesTokenizer())
    export_weights(tmp_path / "run", tmp_path / "out", started="now")
    found = json.loads((tmp_path / "out" / PARITY_FILE).read_text())
    assert bytes(found["prompt_tokens"]) == b"To be, or not to be"
    assert (found["greedy_tokens"], found["greedy_tokens_that_agree"], found["gap_where_they_part"]) == (54, 54, None)
    assert 0 < found["largest_difference"] < 1e-5 * found["largest_logit"]
    ours = load_run(tmp_path / "run", CPU)
    assert found["tokens"] == greedy_tokens(ours.model, found["prompt_tokens"], 54)
    assert found["model_sha256"] == sha256_of(tmp_path / "run" / MODEL_FILE)


def test_a_certificate_counts_to_the_first_token_that_differs_and_tells_the_gap(tmp_path: Path) -> None:
    a_run(tmp_path / "run", BytesTokenizer())
    export_weights(tmp_path / "run", tmp_path / "out", started="now")
    ours = load_run(tmp_path / "run", CPU)
    prompt = list(b"To be")
    tokens = greedy_tokens(ours.model, prompt, 10)
    logits = exported_logits(tmp_path / "out", [*prompt, *tokens][:-1])[len(prompt) - 1 :]
    found = logit_agreement([*tokens[:4], (tokens[4] + 1) % 256, *tokens[5:]], logits)
    best = sorted(logits[4])[-2:]
    assert found == (4, pytest.approx(best[1] - best[0]))
    assert logit_agreement(tokens, logits) == (10, None)


@pytest.mark.parametrize("amount", [0.1, float("nan")])
def test_files_that_do_not_compute_the_same_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amount: float
) -> None:
    a_run(tmp_path / "run", BytesTokenizer())
    write = write_weights

    def wrongly(path: Path, weights: dict[str, torch.Tensor], config: ModelConfig) -> None:
        write(path, weights | {"final_norm.shift": weights["final_norm.shift"] + amount}, config)

    monkeypatch.setattr("lib.huggingface.convert.write_weights", wrongly)
    with pytest.raises(MakegptError, match="the exported files do not compute what the model does"):
        export_weights(tmp_path / "run", tmp_path / "out", started="now")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("context", [1, 2, 9])
def test_a_short_context_is_not_left(tmp_path: Path, context: int) -> None:
    a_run(tmp_path / "run", BytesTokenizer(), context_length=context)
    export_weights(tmp_path / "run", tmp_path / "out", started="now")
    found = json.loads((tmp_path / "out" / PARITY_FILE).read_text())
    assert found["greedy_tokens"] == found["greedy_tokens_that_agree"] == context + 1 - (context + 1) // 2


# A checkpoint of our own.


def test_every_tensor_that_does_not_fit_is_named(tmp_path: Path) -> None:
    built = build_model(config_of("debug"))
    tensors = dict(built.named_parameters())
    tensors["blocks.0.norm1.scale"] = torch.nn.Parameter(torch.ones(3))
    tensors["new"] = tensors.pop("final_norm.shift")
    with pytest.raises(MakegptError) as caught:
        fill_weights(built, tensors, tmp_path / "model.safetensors")  # type: ignore[arg-type]
    assert str(caught.value).endswith(
        "missing: final_norm.shift; not part of it: new; blocks.0.norm1.scale has the shape (3,), not (32,)"
    )
    with pytest.raises(MakegptError, match=r"missing: (\S+, ){8}and \d+ more$"):
        fill_weights(built, {}, tmp_path / "model.safetensors")


# Tables with rows that no text asks for.


def padded_by_rows(transformers: Any, their: Any, folder: Path) -> None:
    their.resize_token_embeddings(V + 43)


def with_a_padding_token(transformers: Any, their: Any, folder: Path) -> None:
    tokenizer = transformers.GPT2Tokenizer(vocab=VOCAB, merges=JOINS)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    their.resize_token_embeddings(len(tokenizer))


def with_a_padding_token_in_the_older_files(transformers: Any, their: Any, folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(VOCAB))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(join) for join in JOINS))
    (folder / "added_tokens.json").write_text(json.dumps({"[PAD]": V}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "[PAD]"}))
    their.resize_token_embeddings(V + 7)


@pytest.mark.parametrize("pad", [padded_by_rows, with_a_padding_token, with_a_padding_token_in_the_older_files])
@pytest.mark.parametrize("tied", [True, False])
def test_rows_behind_the_last_token_are_dropped_and_the_other_logits_stay(
    theirs: Callable[..., tuple[Any, Path]], transformers: Any, tmp_path: Path, here: Here, pad: Callable[..., None], tied: bool
) -> None:
    their, source = theirs(tie_word_embeddings=tied)
    folder = Path(shutil.copytree(source, tmp_path / "theirs"))
    pad(transformers, their, folder)
    their.save_pretrained(folder)
    rows = their.get_input_embeddings().weight.shape[0]
    told = here("import-weights", folder, "-o", tmp_path / "run").err
    assert f"{rows - V} rows of its tables belong to no token of a text and were dropped" in told
    ours = load_run(tmp_path / "run", CPU)
    assert ours.config.vocab_size == ours.tokenizer.vocab_size == V
    ids = ids_of(V)
    with torch.no_grad():
        torch.testing.assert_close(ours.model(ids), their(ids).logits[..., :V], rtol=1e-4, atol=1e-4)
    here("export-weights", tmp_path / "run", "-o", tmp_path / "export")
    again = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "export")
    assert again.config.vocab_size == again.get_input_embeddings().weight.shape[0] == V
    assert "dropped" not in here("import-weights", tmp_path / "export", "-o", tmp_path / "back").err


def test_an_added_token_that_a_text_can_hold_is_refused_by_name(folder: Path, transformers: Any, tmp_path: Path) -> None:
    tokenizer = transformers.GPT2Tokenizer(vocab=VOCAB, merges=JOINS)
    tokenizer.add_tokens(["hello"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(MakegptError, match="1 tokens were added to it that a text can hold, such as 'hello'"):
        import_weights(folder, tmp_path / "run", started="now")


@pytest.mark.parametrize(("rows", "says"), [(V - 1, f"rows for {V - 1} alone"), (2 * V, "more than padding explains")])
def test_a_table_of_another_tokenizer_is_refused_with_the_reason(
    theirs: Callable[..., tuple[Any, Path]], tmp_path: Path, rows: int, says: str
) -> None:
    with pytest.raises(MakegptError, match=says):
        import_weights(theirs(vocab_size=rows)[1], tmp_path / "run", started="now")
