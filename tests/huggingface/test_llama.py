"""Llama and Qwen3 in and out: transformers' models give the same logits here, and ours the same in transformers."""

import json
import shutil
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lib.artifact.tensors import load_tensors
from lib.chat.messages import Message
from lib.chat.template import ChatML
from lib.config.params import config_names, load_params, resolve_config
from lib.errors import MakegptError, UsageError
from lib.huggingface.convert import export_weights, import_weights
from lib.huggingface.parity import PARITY_FILE, transformers_logits
from lib.huggingface.reference import exported_logits
from lib.run.folder import MODEL_FILE, load_run, read_chat_template
from lib.tokenizer.bytes_ import BytesTokenizer
from tests.conftest import PROJECT, Here
from tests.huggingface.test_gpt2 import MERGES, VOCAB, change_config, ids_of, imported, write_run

CPU = torch.device("cpu")
T, V = 72, len(VOCAB)
SHAPE = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": T,
    "bos_token_id": V - 1,
    "eos_token_id": V - 1,
}
LLAMA_3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 3.0,
    "original_max_position_embeddings": 48,
}

#: Names of designs -> transformers' class of the config, and what differs from `SHAPE`.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "llama-biases": ("Llama", {"attention_bias": True, "num_key_value_heads": 4, "rms_norm_eps": 1e-2}),
    "llama-3": ("Llama", {"rope_parameters": LLAMA_3 | {"rope_theta": 5000.0}, "head_dim": 20}),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 16}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 20, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen3-biases": ("Qwen3", {"head_dim": 8, "attention_bias": True, "tie_word_embeddings": True}),
}

Theirs = Callable[[str], tuple[Any, Path]]


@pytest.fixture(scope="module")
def theirs(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Theirs:
    """theirs("llama"): transformers' model of that name with random weights, and its folder."""
    models: dict[str, tuple[Any, Path]] = {}

    def save(name: str) -> tuple[Any, Path]:
        if name not in models:
            kind, changes = MODELS[name]
            config = getattr(transformers, f"{kind}Config")(**(SHAPE | changes))
            model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
            generator = torch.Generator().manual_seed(1)
            with torch.no_grad():
                for weight in model.parameters():
                    weight.normal_(0, 0.3, generator=generator)  # far from the initial weights, also biases and norms
            folder = tmp_path_factory.mktemp(name)
            model.save_pretrained(folder)
            transformers.GPT2Tokenizer(vocab=VOCAB, merges=MERGES).save_pretrained(folder)
            models[name] = model, folder
        return models[name]

    return save


@pytest.fixture
def folder(theirs: Theirs, tmp_path: Path) -> Path:
    """A copy of a small Llama of transformers, to be changed."""
    return Path(shutil.copytree(theirs("llama")[1], tmp_path / "theirs"))


def assert_same_logits(ours: Any, their_model: Any, length: int = T) -> None:
    ids = ids_of(V, length)
    with torch.no_grad():
        torch.testing.assert_close(ours.model(ids), their_model(ids).logits, rtol=1e-4, atol=1e-4)


# Import.


@pytest.mark.parametrize("name", MODELS)
def test_an_imported_model_gives_the_logits_of_transformers(theirs: Theirs, tmp_path: Path, name: str) -> None:
    their_model, source = theirs(name)
    ours = imported(source, tmp_path / "run")
    assert_same_logits(ours, their_model)
    assert ours.tokenizer.encode("hello the") == [258, 78, 260]


def test_the_names_of_older_versions_are_read_too(theirs: Theirs, tmp_path: Path) -> None:
    their_model, source = theirs("llama-3")
    folder = Path(shutil.copytree(source, tmp_path / "theirs"))
    saved = json.loads((folder / "config.json").read_text())
    del saved["rope_parameters"]
    scaling = {("type" if key == "rope_type" else key): value for key, value in LLAMA_3.items()}
    (folder / "config.json").write_text(json.dumps(saved | {"rope_theta": 5000.0, "rope_scaling": scaling}))
    assert_same_logits(imported(folder, tmp_path / "run"), their_model)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_a_key_that_is_missing_means_what_it_means_to_transformers(
    transformers: Any, tmp_path: Path, theirs: Theirs, name: str
) -> None:
    folder = Path(shutil.copytree(theirs(name)[1], tmp_path / "theirs"))
    saved = json.loads((folder / "config.json").read_text())
    optional = ["rms_norm_eps", "rope_parameters", "attention_bias", "tie_word_embeddings", "hidden_act", "head_dim"]
    (folder / "config.json").write_text(json.dumps({key: value for key, value in saved.items() if key not in optional}))
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(folder)).eval()
    model.save_pretrained(folder, is_main_process=False)  # the weights alone
    model.save_pretrained(tmp_path / "whole")
    shutil.copy(tmp_path / "whole" / "model.safetensors", folder)
    assert_same_logits(imported(folder, tmp_path / "run"), model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_in_several_files_are_one_model_of_float32(folder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    names = {name: f"model-0000{1 + n % 2}-of-00002.safetensors" for n, name in enumerate(tensors)}
    for file in set(names.values()):
        save_file({name: tensor for name, tensor in tensors.items() if names[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    imported(folder, tmp_path / "run")
    ours = load_tensors(tmp_path / "run" / MODEL_FILE)[0]
    rows = [tensors[f"model.layers.1.self_attn.{part}_proj.weight"].float() for part in "qkv"]
    assert torch.equal(ours["blocks.1.attention.W_qkv.weight"], torch.cat(rows))


def test_padding_rows_of_a_llama_are_dropped_with_a_notice(theirs: Theirs, tmp_path: Path, here: Here) -> None:
    their_model, source = theirs("qwen3")
    folder = Path(shutil.copytree(source, tmp_path / "theirs"))
    padding = torch.ones(7, SHAPE["hidden_size"])
    tensors = load_file(folder / "model.safetensors")
    tables = {name: torch.cat([tensors[name], padding]) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    save_file(tensors | tables, folder / "model.safetensors")
    change_config(folder, vocab_size=V + 7)
    assert "7 padding rows" in here("import-weights", folder, "-o", tmp_path / "run").err
    assert_same_logits(load_run(tmp_path / "run", CPU), their_model)


def test_buffers_and_a_missing_prefix_are_accepted_in_llamas_files(folder: Path, theirs: Theirs, tmp_path: Path) -> None:
    tensors = {name.removeprefix("model."): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors | {"layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}, folder / "model.safetensors")
    assert_same_logits(imported(folder, tmp_path / "run"), theirs("llama")[0])


def test_a_context_longer_than_the_longest_is_cut(folder: Path, theirs: Theirs, tmp_path: Path) -> None:
    change_config(folder, max_position_embeddings=131072)
    ours = imported(folder, tmp_path / "run")
    assert ours.config.context_length == 8192
    assert_same_logits(ours, theirs("llama")[0])


@pytest.mark.parametrize("older", [True, False])
def test_a_chat_template_is_imported_recognized_and_exported(
    folder: Path, transformers: Any, tmp_path: Path, older: bool
) -> None:
    template = ChatML().jinja() + "\n{# as it came #}"
    if older:
        change = {"chat_template": template}
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | change))
    else:
        (folder / "chat_template.jinja").write_text(template)
    imported(folder, tmp_path / "run")
    assert read_chat_template(tmp_path / "run") == ChatML()
    export_weights(tmp_path / "run", tmp_path / "out", started="now")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == template
    messages = [{"role": "user", "content": "hello"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == ChatML().text([Message("user", "hello")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gemma"}, "model_type=gemma is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act=gelu is not supported; it must be silu"),
        ({"mlp_bias": True}, "mlp_bias=True is not supported"),
        ({"quantization_config": {"bits": 4}}, "quantization_config=.*is not supported"),
        ({"use_sliding_window": True}, "use_sliding_window=True"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types=.*all must be full_attention"),
        ({"model_type": "mistral", "sliding_window": 8}, "sliding_window=8 is not supported; it must be null"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_type=yarn is not supported; it must be default or llama3"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type=dynamic is not supported"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "lacks low_freq_factor, high_freq_factor, original"),
        ({"rope_scaling": LLAMA_3 | {"low_freq_factor": 5.0}}, "rope_low_freq_factor=5 must be below"),
        ({"rope_scaling": LLAMA_3 | {"factor": "big"}}, "rope_factor=big must be a number"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
        ({"rope_parameters": {"rope_theta": 1e4, "mrope_section": [1, 2]}}, "mrope_section=.* is not supported"),
        ({"rope_parameters": [1]}, "must be a mapping"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"num_attention_heads": 6, "head_dim": None}, "emb_dim=32 must be divisible by model.n_heads=6"),
        ({"num_hidden_layers": 3}, "is not the expected Llama: missing: layers.2.input_layernorm.weight"),
        ({"num_key_value_heads": 4}, r"k_proj.weight has the shape \(16, 32\), not \(32, 32\)"),
        ({"attention_bias": True}, "missing: layers.0.self_attn.q_proj.bias"),
        ({"model_type": "qwen3"}, "is not the expected Qwen3: missing: layers.0.self_attn.q_norm.weight"),
        ({"tie_word_embeddings": True}, "lm_head.weight differs from embed_tokens.weight"),
        ({"num_hidden_layers": 4000}, "tensors are too few for 4000 blocks"),
    ],
)
def test_an_unsupported_value_of_config_json_is_named(
    folder: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    change_config(folder, **change)
    with pytest.raises(MakegptError, match=message) as caught:
        import_weights(folder, tmp_path / "run", started="now")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


# Export.

MODERN = {"positions": "rotary", "norm": "rms", "feed_forward": "swiglu", "n_kv_heads": 1, "out_bias": False}
DESIGNS: dict[str, dict[str, Any]] = {
    "llama": MODERN,
    "llama-wide": MODERN | {"head_dim": 24, "ff_dim": 40, "norm_eps": 1e-6, "tie_weights": True},
    "llama-3": MODERN | {"rope_factor": 4.0, "rope_original_context": 32, "rope_base": 500.0},
    "llama-output-bias": MODERN | {"out_bias": True},
    "llama-input-bias": MODERN | {"qkv_bias": True, "n_kv_heads": None},
    "qwen3": MODERN | {"qk_norm": True},
    "qwen3-biases": MODERN | {"qk_norm": True, "out_bias": True, "qkv_bias": True, "head_dim": 12},
}


@pytest.mark.parametrize("name", DESIGNS)
def test_transformers_reads_an_export_and_importing_it_gives_the_same_bytes(
    name: str, transformers: Any, tmp_path: Path
) -> None:
    write_run(tmp_path / "run", BytesTokenizer(), **DESIGNS[name])
    export_weights(tmp_path / "run", tmp_path / "out", started="now")
    their_model, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(their_model).__name__ == f"{name.split('-')[0].capitalize()}ForCausalLM"
    ids = ids_of(256)
    with torch.no_grad():
        logits = load_run(tmp_path / "run", CPU).model(ids)
        torch.testing.assert_close(logits, their_model.eval()(ids).logits, rtol=1e-4, atol=1e-4)
    assert their_model.config.max_position_embeddings == T
    imported(tmp_path / "out", tmp_path / "again")
    for file in (MODEL_FILE, "tokenizer.json"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "run" / file).read_bytes()


@pytest.mark.parametrize("name", ["llama-3", "qwen3", "llama-biases"])
def test_exporting_an_imported_model_gives_the_same_bytes(theirs: Theirs, tmp_path: Path, name: str) -> None:
    _, source = theirs(name)
    imported(source, tmp_path / "run")
    export_weights(tmp_path / "run", tmp_path / "out", started="now")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["llama-3", "llama-biases", "qwen3"])
def test_the_formulas_in_float64_are_those_of_transformers(
    transformers: Any, theirs: Theirs, tmp_path: Path, name: str
) -> None:
    imported(theirs(name)[1], tmp_path / "run")
    export_weights(tmp_path / "run", tmp_path / "out", started="now")
    their_model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float64).eval()
    ids = ids_of(V)[0].tolist()
    with torch.no_grad():
        expected = their_model(torch.tensor([ids])).logits[0].numpy()
    # transformers computes norms and angles in float32
    np.testing.assert_allclose(exported_logits(tmp_path / "out", ids), expected, rtol=1e-4, atol=1e-4)


def test_the_certificate_has_the_agreement_with_transformers(transformers: Any, tmp_path: Path, here: Here) -> None:
    write_run(tmp_path / "run", BytesTokenizer(), **DESIGNS["qwen3"])
    err = here("export-weights", tmp_path / "run", "-o", tmp_path / "out").err
    certificate = json.loads((tmp_path / "out" / PARITY_FILE).read_text())
    agreement = certificate["transformers"]
    assert agreement["version"] == transformers.__version__
    assert agreement["greedy_tokens_that_agree"] == certificate["greedy_tokens_that_agree"] == certificate["greedy_tokens"]
    assert 0 < agreement["largest_difference"] < 1e-4 * certificate["largest_logit"]
    assert f"in transformers {transformers.__version__}: largest difference of logits" in err
    assert "Loading" not in err
    assert transformers.logging.get_verbosity() == transformers.logging.WARNING


def test_files_that_transformers_cannot_load_are_an_error(transformers: Any, tmp_path: Path) -> None:
    write_run(tmp_path / "run", BytesTokenizer(), **DESIGNS["llama"])
    export_weights(tmp_path / "run", tmp_path / "out", started="now")
    change_config(tmp_path / "out", num_attention_heads=3)
    with pytest.raises(MakegptError, match=r"transformers cannot load the exported files: .*3"):
        transformers_logits(tmp_path / "out", [1, 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"window": 4, "attention_pattern": "fixed"},
            "model.attention_pattern=fixed, which the layout of Llama does not have; only sliding",
        ),
        ({"window": 4}, "model.window=4, which the layout of Llama does not have; only null can be exported"),
        ({"window": 4, "qk_norm": True}, "model.window=4, which the layout of Qwen3"),
        ({"positions": "sinusoidal"}, "model.positions=sinusoidal, which the layout of Llama does not have; only rotary"),
        ({"positions": "learned"}, "model.positions=learned, which the layout of Llama"),
        ({"norm": "layer"}, "model.norm=layer, which the layout of Llama"),
        ({"feed_forward": "gelu"}, "model.feed_forward=gelu, which the layout of Llama"),
        ({"ngram_order": 2, "ngram_rows": 9}, "model.ngram_order=2, which the layout of Llama"),
        ({"head_dim": 8, "emb_dim": 33}, "model.emb_dim=33 is no multiple of model.n_heads=2, as Llama's layout requires"),
    ],
)
def test_what_no_layout_has_is_refused_by_name(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_run(tmp_path / "run", BytesTokenizer(), **(MODERN | change))
    with pytest.raises(UsageError, match=message):
        export_weights(tmp_path / "run", tmp_path / "out", started="now")
    assert not (tmp_path / "out").exists()


#: The configs that have no layout, and why.
REFUSED = {
    "bigram": "model.kind=bigram",
    "gpt_pointer": "model.kind=pointer",
    "gpt_novel": "model.kind=pointer",
    "lstm": "model.kind=lstm",
    "reverse_text": "model.kind=encoder_decoder",
    "g2p": "model.kind=encoder_decoder",
    "exercises": "model.feed_forward=gelu",
    "reward": "model.feed_forward=gelu",
    "single_head": "model.kind=single_head",
    "multi_head": "model.kind=multi_head",
    "single_block": "model.kind=single_block",
    "decoder_fast": "model.ngram_order=5",
}
TREE = load_params(PROJECT / "params.yaml")


@pytest.mark.parametrize("name", config_names(TREE))
def test_the_export_of_every_config_is_loaded_by_transformers_or_refused_by_name(
    name: str, transformers: Any, tmp_path: Path
) -> None:
    config = resolve_config(TREE, name).model
    small = {"context_length": 16, "emb_dim": 8 * config.n_heads, "n_layers": min(config.n_layers, 2)}
    design = config.__dict__ | small | {"vocab_size": 256, "ngram_rows": config.ngram_rows and 50}
    write_run(tmp_path / "run", BytesTokenizer(), **design)
    if name in REFUSED:
        with pytest.raises(UsageError, match=REFUSED[name]):
            export_weights(tmp_path / "run", tmp_path / "out", started="now")
        return
    export_weights(tmp_path / "run", tmp_path / "out", started="now")
    certificate = json.loads((tmp_path / "out" / PARITY_FILE).read_text())
    assert certificate["transformers"]["largest_difference"] < 1e-4 * certificate["largest_logit"]
