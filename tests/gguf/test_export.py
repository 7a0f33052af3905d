"""Runs to GGUF files: read back, and loaded by the real llama.cpp, if it is installed."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import jinja2
import pytest
import torch

from lib.chat.messages import Message
from lib.chat.template import TEMPLATES, ChatML, ChatTemplate
from lib.config.model import GPT_2, ModelConfig
from lib.config.params import config_names, load_params, resolve_config
from lib.config.schema import build_section
from lib.errors import MakegptError, UsageError
from lib.gguf import weights
from lib.gguf.certificate import certificate_summary
from lib.gguf.convert import GGUF_FILE, import_gguf
from lib.gguf.export import export_gguf
from lib.gguf.llama_cpp import HOW_TO_INSTALL, llama_cpp_folder
from lib.gguf.ollama import modelfile
from lib.gguf.writer import FILE_TYPES
from lib.huggingface.parity import PARITY_FILE
from lib.model.registry import build_model
from lib.run.folder import MODEL_FILE, load_run, read_chat_template
from lib.run.imported import write_imported_run
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.bpe import BPETokenizer
from lib.tokenizer.bytes_ import BytesTokenizer
from lib.tokenizer.char import CharTokenizer
from lib.tokenizer.gpt2 import GPT2Tokenizer
from stages.export_weights import _QUANTIZE
from tests.conftest import PROJECT, Here

CPU = torch.device("cpu")
needs_llama_cpp = pytest.mark.skipif(llama_cpp_folder() is None, reason=f"llama.cpp is not installed: {HOW_TO_INSTALL}")

BPE = BPETokenizer.train([["the whale, the whale! to be, or not to be: the end in 1851"]], vocab_size=270)
CHAR = CharTokenizer("".join(sorted(set("To be, or not to be: KING!\n\\é€"))))
TOKENIZERS: dict[str, Tokenizer] = {"bpe": BPE, "bytes": BytesTokenizer(), "char": CHAR}

SMALL: dict[str, Any] = {
    "kind": "gpt", "context_length": 32, "emb_dim": 64, "n_heads": 4, "n_layers": 2, "drop_rate": 0.0, "qkv_bias": False,
    "attention_impl": "fused", "layer_impl": "fused",
}  # fmt: skip
LLAMA = {"positions": "rotary", "norm": "rms", "feed_forward": "swiglu"}
SCALED = {"rope_factor": 8.0, "rope_original_context": 32, "rope_base": 5000.0}
DESIGNS: dict[str, dict[str, Any]] = {
    "gpt2": {"qkv_bias": True, "tie_weights": True},
    "gpt2 with fewer biases": {"out_bias": False},
    "gpt2 with grouped queries": {"n_kv_heads": 2, "ff_dim": 96, "norm_eps": 1e-3},
    "llama": LLAMA | {"out_bias": False},
    "llama with biases": LLAMA | {"qkv_bias": True, "n_kv_heads": 2, "head_dim": 32, "ff_dim": 96, "norm_eps": 1e-3},
    "llama with scaled angles": LLAMA | SCALED,
    "qwen3": LLAMA | {"out_bias": False, "qk_norm": True, "n_kv_heads": 1, "head_dim": 24, "tie_weights": True},
}


def model_config(tokenizer: Tokenizer, **options: Any) -> ModelConfig:
    config: ModelConfig = build_section("model", GPT_2 | SMALL | {"vocab_size": tokenizer.vocab_size} | options, "test")
    return config


def write_run(folder: Path, tokenizer: Tokenizer, config: ModelConfig, chat: ChatTemplate | None = None) -> None:
    """A run with random weights."""
    model = build_model(config, "cpu")
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if name.endswith("scale") else 0.0, 0.15, generator=generator)
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
    template = chat and chat.jinja()
    write_imported_run(
        folder, config, tokenizer, tensors, checkpoint={}, inputs=[], metadata={}, started="now", chat_template=template
    )


def export(folder: Path, quantize: str = "f32") -> dict[str, Any]:
    """Export folder/run to folder/out; the certificate."""
    export_gguf(folder / "run", folder / "out", quantize=quantize, started="now")
    certificate: dict[str, Any] = json.loads((folder / "out" / PARITY_FILE).read_text())
    return certificate


def check_in_llama_cpp(certificate: dict[str, Any], texts: int) -> None:
    """What the certificate of an f32 file must say. A greedy token may differ where two logits nearly tie."""
    theirs = certificate["llama_cpp"]
    assert theirs["texts_with_other_ids"] == []
    assert theirs["texts"] >= texts
    assert theirs["largest_difference"] < 2e-3 * certificate["largest_logit"]
    parted = theirs["gap_where_they_part"]
    assert theirs["greedy_tokens_that_agree"] == certificate["greedy_tokens"] or parted < 2 * theirs["largest_difference"]


@pytest.mark.parametrize("options", DESIGNS.values(), ids=DESIGNS)
def test_every_design_is_read_back_as_it_was_and_computes_the_same_in_llama_cpp(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    write_run(tmp_path / "run", BPE, model_config(BPE, **options))
    certificate = export(tmp_path)
    assert certificate["read_back"]["largest_difference"] < 1e-6
    import_gguf(tmp_path / "out" / GGUF_FILE, tmp_path / "again", started="now")
    before, after = (dict(load_run(tmp_path / name, CPU).model.named_parameters()) for name in ("run", "again"))
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert not any(weight.any() for name, weight in after.items() if name not in before)  # biases that gpt2 files always have
    if llama_cpp_folder():
        check_in_llama_cpp(certificate, texts=60)


@pytest.mark.parametrize(("kind", "texts"), [("bytes", 60), ("char", 1)])
def test_bytes_and_characters_are_read_back_and_give_the_same_ids_in_llama_cpp(tmp_path: Path, kind: str, texts: int) -> None:
    tokenizer = TOKENIZERS[kind]
    write_run(tmp_path / "run", tokenizer, model_config(tokenizer))
    certificate = export(tmp_path)
    import_gguf(tmp_path / "out" / GGUF_FILE, tmp_path / "again", started="now")
    assert load_run(tmp_path / "again", CPU).tokenizer.identity() == tokenizer.identity()
    if llama_cpp_folder():
        check_in_llama_cpp(certificate, texts)


@needs_llama_cpp
def test_the_vocabulary_of_gpt2_gives_the_same_ids_in_llama_cpp(tmp_path: Path, fetched: Callable[[str], Path]) -> None:
    tokenizer = GPT2Tokenizer.train([], fetched("gpt2"))
    write_run(tmp_path / "run", tokenizer, model_config(tokenizer, tie_weights=True, emb_dim=32, n_layers=1))
    check_in_llama_cpp(export(tmp_path), texts=60)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 8}, "model.window=8"),
        ({"window": 8, "attention_pattern": "strided"}, "model.attention_pattern=strided"),
        ({"positions": "sinusoidal"}, "model.positions=sinusoidal"),
        ({"ngram_order": 3, "ngram_rows": 50}, "model.ngram_order=3"),
        (LLAMA | {"window": 8}, "model.window=8"),
        (LLAMA | {"qk_norm": True}, "model.out_bias=True"),
        (LLAMA | {"qk_norm": True, "out_bias": False} | SCALED, "model.rope_factor=8.0"),
        ({"head_dim": 32}, "model.head_dim=32"),
        ({"kind": "bigram", "n_layers": 1, "n_heads": 1}, "model.kind=bigram"),
    ],
)
def test_an_option_that_llama_cpp_does_not_have_is_refused_by_name(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    write_run(tmp_path / "run", BPE, model_config(BPE, **options))
    with pytest.raises(UsageError, match=message):
        export(tmp_path)
    assert not (tmp_path / "out").exists()


#: The shipped configs that have no architecture in llama.cpp, and why.
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
    "decoder_best": "model.out_bias=True",
}
PARAMS = load_params(PROJECT / "params.yaml")


@needs_llama_cpp
@pytest.mark.parametrize("name", config_names(PARAMS))
def test_every_shipped_config_is_loaded_by_llama_cpp_or_refused_by_name(tmp_path: Path, name: str) -> None:
    shipped = resolve_config(PARAMS, name)
    tokenizer = TOKENIZERS.get(shipped.tokenize.tokenizer, BPE)  # 270 tokens for GPT-2's 50,257
    model = shipped.model
    small = {"emb_dim": 8 * model.n_heads, "n_layers": min(model.n_layers, 2), "context_length": min(model.context_length, 32)}
    if model.ngram_rows:
        small["ngram_rows"] = 50
    write_run(tmp_path / "run", tokenizer, replace(model, vocab_size=tokenizer.vocab_size, **small))
    if name in REFUSED:
        with pytest.raises(UsageError, match=REFUSED[name]):
            export(tmp_path)
    else:
        check_in_llama_cpp(export(tmp_path), texts=1)


@pytest.mark.parametrize("quantize", [kind for kind in FILE_TYPES if kind != "f32"])
def test_fewer_bits_are_smaller_and_cost_little(tmp_path: Path, quantize: str) -> None:
    write_run(tmp_path / "run", BPE, model_config(BPE, **DESIGNS["llama"]))
    certificate = export(tmp_path, quantize)
    assert (tmp_path / "out" / GGUF_FILE).stat().st_size < 0.6 * (tmp_path / "run" / MODEL_FILE).stat().st_size
    assert 0 <= certificate["read_back"]["more_bits_per_byte"] < 0.1 * certificate["read_back"]["bits_per_byte"]
    if llama_cpp_folder():
        assert certificate["llama_cpp"]["largest_difference"] < 0.5 * certificate["largest_logit"]


def test_rows_that_are_no_whole_number_of_blocks_stay_f16(tmp_path: Path) -> None:
    write_run(tmp_path / "run", BPE, model_config(BPE, **LLAMA, emb_dim=48, ff_dim=96, out_bias=False))
    manifest = export_gguf(tmp_path / "run", tmp_path / "out", quantize="q4_0", started="now")
    assert manifest.metadata["types"] == {"f16": 14, "f32": 5, "q4_0": 2}


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    write_run(tmp_path / "run", BPE, model_config(BPE))
    for name in ("one", "two"):
        export_gguf(tmp_path / "run", tmp_path / name, quantize="q8_0", started="now")
    assert (tmp_path / "one" / GGUF_FILE).read_bytes() == (tmp_path / "two" / GGUF_FILE).read_bytes()


def test_without_llama_cpp_the_certificate_says_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setattr("lib.gguf.llama_cpp.FOLDER", tmp_path / "missing")
    write_run(tmp_path / "run", BPE, model_config(BPE))
    certificate = export(tmp_path)
    assert certificate["llama_cpp"] is None
    assert certificate_summary(certificate).endswith("not checked: llama.cpp is not installed; `make llama-cpp` installs it")


@needs_llama_cpp
def test_a_file_that_computes_something_else_in_llama_cpp_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "interleave_halves", lambda rows, heads: rows)
    monkeypatch.setattr(weights, "split_halves", lambda rows, heads: rows)
    write_run(tmp_path / "run", BPE, model_config(BPE, **LLAMA))
    with pytest.raises(MakegptError, match=r"do not compute what the model does: in llama\.cpp"):
        export(tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_chat_template_is_exported_and_read_back(tmp_path: Path, template: type[ChatTemplate]) -> None:
    chat = template("Be brief.")
    write_run(tmp_path / "run", BPE, model_config(BPE, **LLAMA), chat=chat)
    export(tmp_path)
    import_gguf(tmp_path / "out" / GGUF_FILE, tmp_path / "again", started="now")
    assert read_chat_template(tmp_path / "again") == chat


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_the_modelfile_of_a_chat_template_writes_conversations_as_it_does(template: type[ChatTemplate]) -> None:
    commands = modelfile(GGUF_FILE, 32, template("Be brief."))
    assert f'PARAMETER stop "{template.end}"\n' in commands
    assert commands.endswith('SYSTEM """Be brief."""\n')
    go = commands.split('"""')[1]
    messages = [Message("system", "Be brief."), Message("user", "Who?"), Message("assistant", "I."), Message("user", "Why?")]
    assert go_text(go, messages) == template().text(messages, answer=True)


def go_text(go: str, messages: list[Message]) -> str:
    """What a template of Go's language writes, of the few words that ours use: range, if, else, end, and fields."""
    jinja = go.replace("{{ range .Messages }}", "{% for m in messages %}").replace("{{ else }}", "{% else %}")
    jinja = re.sub(
        r'\{\{ (else )?if eq .Role ("\w+") \}\}', lambda m: f"{{% {'elif' if m[1] else 'if'} m.role == {m[2]} %}}", jinja
    )
    ends = iter(["endif", "endfor"] if "{% if" in jinja else ["endfor"])
    jinja = re.sub(r"\{\{ end \}\}", lambda _: f"{{% {next(ends)} %}}", jinja)
    jinja = jinja.replace(".Role", "m.role").replace(".Content", "m.content")
    return jinja2.Template(jinja, keep_trailing_newline=True).render(messages=messages)


def test_the_modelfile_of_a_model_without_a_chat_template_takes_any_text() -> None:
    assert modelfile(GGUF_FILE, 32, None) == 'FROM ./model.gguf\nPARAMETER num_ctx 32\nTEMPLATE """{{ .Prompt }}"""\n'


def test_a_chat_template_that_is_none_of_ours_is_left_to_ollama() -> None:
    assert modelfile(GGUF_FILE, 32, None, other_template=True) == "FROM ./model.gguf\nPARAMETER num_ctx 32\n"


def test_a_message_of_the_system_cannot_add_commands_to_a_modelfile() -> None:
    with pytest.raises(MakegptError, match="cannot hold"):
        modelfile(GGUF_FILE, 32, ChatML('"""\nADAPTER ./other'))


def test_export_weights_offers_every_type_that_is_written() -> None:
    assert tuple(FILE_TYPES) == _QUANTIZE


def test_export_weights_writes_a_gguf_file_and_says_what_the_certificate_says(tmp_path: Path, here: Here) -> None:
    write_run(tmp_path / "run", BPE, model_config(BPE))
    said = here("export-weights", tmp_path / "run", "-o", tmp_path / "out", "--to", "gguf", "--quantize", "q8_0").err
    assert "bits/byte more than float32's" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        GGUF_FILE, "Modelfile", PARITY_FILE, "manifest.json",
    }  # fmt: skip
    assert "parameters, 270 tokens" in here("import-weights", tmp_path / "out", "-o", tmp_path / "again").err
    assert "needs --to gguf" in here("export-weights", tmp_path / "run", "-o", tmp_path / "o", "--quantize", "q8_0", code=2).err


@needs_llama_cpp
def test_smollm2_continues_in_llama_cpp_as_here(
    tmp_path: Path, fetched: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib.gguf.certificate.GREEDY_TOKENS", 20)
    import_gguf(fetched("smollm2") / "smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf", tmp_path / "run", started="now")
    check_in_llama_cpp(export(tmp_path), texts=60)
    assert "<|im_start|>assistant" in (tmp_path / "out" / "Modelfile").read_text()
