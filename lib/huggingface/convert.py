"""Import and export of whole models: a folder in Hugging Face's layout to a run folder, and back.

An unchanged export is imported to the same bytes that it was exported from: its manifest holds the metadata of the
checkpoint. Any other model becomes a new run.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lib.artifact.folders import check_replaceable, replacing_folder
from lib.artifact.io import canonical_json, read_json, write_json, write_text
from lib.artifact.manifest import (
    Input,
    Manifest,
    describe_files,
    identity_of,
    new_manifest,
    read_manifest,
    relative_place,
    verify_files,
    write_manifest,
)
from lib.artifact.record import RecordError, from_json
from lib.artifact.tensors import read_tensor_metadata
from lib.config.designs import find_design
from lib.config.model import GPT_2, ModelConfig
from lib.config.schema import build_section
from lib.data.downloads import VOCABULARY, data_folder
from lib.errors import MakegptError, nearest
from lib.huggingface.files import HF_CHAT_FILE, HF_CONFIG_FILE, HF_WEIGHTS_FILE, open_tensors, read_hf_config, weight_files
from lib.huggingface.gpt2 import GPT2, is_padded_gpt2, released_config
from lib.huggingface.layout import Layout, drop_padding_rows, read_weights, write_weights
from lib.huggingface.llama import LLAMA, QWEN3
from lib.huggingface.parity import PARITY_FILE, compare_logits
from lib.huggingface.tokenizer import SETTINGS, hf_tokenizer_files, load_hf_tokenizer, to_hf_tokenizer
from lib.model.registry import build_model, count_parameters
from lib.run.folder import MODEL_FILE, chat_template_source, finished_manifest, load_run, read_model_config
from lib.run.imported import check_importable, write_imported_run
from lib.tokenizer.base import Tokenizer, UnknownText
from lib.tokenizer.gpt2 import GPT2_VOCAB_SIZE
from lib.tokenizer.registry import make_tokenizer

#: The layouts by `model_type` of config.json. A design of ours is exported in that of its name.
LAYOUTS = {"gpt2": GPT2, "llama": LLAMA, "mistral": LLAMA, "qwen2": LLAMA, "qwen3": QWEN3}

#: The prompt of the certificate, if the tokenizer can encode it; else the tokenizer's default prompt.
_PROMPT = "To be, or not to be"


def import_weights(source: Path, target: Path, *, started: str) -> Manifest:
    """Write the run folder `target` with the model of `source`, a folder or a safetensors file; return its manifest.

    Raises MakegptError if the model is not supported; UsageError if `target` holds something else.
    """
    check_importable(target)
    files = weight_files(source)
    config_file = source / HF_CONFIG_FILE
    with open_tensors(files) as lazy_tensors:
        layout, config = from_hf_config(config_file) if source.is_dir() else (GPT2, released_config(lazy_tensors, source))
        tokenizer = _tokenizer(source, config)
        tensors = read_weights(layout, lazy_tensors, config, source)
    padding_rows = (config.vocab_size or 0) - tokenizer.vocab_size
    if padding_rows:
        tensors, config = drop_padding_rows(tensors, tokenizer.vocab_size), replace(config, vocab_size=tokenizer.vocab_size)
    metadata: dict[str, Any] = {"model": asdict(config), "tokenizer": tokenizer.identity()}
    if exported := _exported_metadata(source, tokenizer):
        metadata, config = exported, build_section("model", GPT_2 | exported["model"], str(source))
        tensors = {name: tensors[name] for name, _ in build_model(config, "meta").named_parameters()}  # no biases of zeros
    inputs = [*files, *([config_file, *map(source.joinpath, hf_tokenizer_files(source))] if source.is_dir() else [])]
    chat_file = source / HF_CHAT_FILE
    inputs += [chat_file] if chat_file.is_file() else []
    return write_imported_run(
        target,
        config,
        tokenizer,
        tensors,
        checkpoint=metadata,
        inputs=inputs,
        metadata={"dropped_rows": padding_rows} if padding_rows else {},
        started=started,
        chat_template=_chat_template(source),
    )


def from_hf_config(path: Path) -> tuple[Layout, ModelConfig]:
    """The layout and the model that their config.json at `path` describes; MakegptError names an unsupported value."""
    saved = read_hf_config(path)
    kind = saved.get("model_type", "gpt2")
    if not isinstance(kind, str) or kind not in LAYOUTS:
        raise MakegptError(f"{path}: model_type={str(kind)[:40]} is not supported; {nearest(str(kind)[:40], LAYOUTS)}")
    return LAYOUTS[kind], LAYOUTS[kind].read_config(saved, str(path))


def _tokenizer(source: Path, config: ModelConfig) -> Tokenizer:
    """The tokenizer next to the weights, or GPT-2's own if there is none. The embeddings may have rows after its last token."""
    tokenizer = load_hf_tokenizer(source) if source.is_dir() else None
    rows = config.vocab_size or 0
    if tokenizer is None and is_padded_gpt2(rows):
        tokenizer = make_tokenizer("gpt2", [], data_folder(VOCABULARY))
    if tokenizer is None:
        raise MakegptError(
            f"{source} has no tokenizer, and its model has {rows} tokens, not the {GPT2_VOCAB_SIZE} "
            "of GPT-2's own; put its tokenizer.json there, or its vocab.json and merges.txt"
        )
    if rows < tokenizer.vocab_size:
        raise MakegptError(
            f"{source}: the tokenizer has {tokenizer.vocab_size} tokens, the model's embeddings have only {rows} rows; "
            "one of them belongs to another model"
        )
    if rows >= 2 * tokenizer.vocab_size:
        raise MakegptError(
            f"{source}: the tokenizer has {tokenizer.vocab_size} tokens, the model's embeddings have {rows} rows, "
            "more than padding explains; one of them belongs to another model"
        )
    return tokenizer


def _chat_template(source: Path) -> str | None:
    """The chat template of the folder `source`: a file, or in older folders a setting of the tokenizer."""
    if (source / HF_CHAT_FILE).is_file():
        return (source / HF_CHAT_FILE).read_text(encoding="utf-8", errors="replace")
    saved = read_json(source / SETTINGS) if (source / SETTINGS).is_file() else None
    template = saved.get("chat_template") if isinstance(saved, dict) else None
    return template if isinstance(template, str) else None


@dataclass(frozen=True)
class _ExportedMetadata:
    """What is needed of a checkpoint's metadata to import its export again."""

    tokenizer: str
    model: dict[str, Any]


def _exported_metadata(source: Path, tokenizer: Tokenizer) -> dict[str, Any] | None:
    """The metadata of the checkpoint that was exported to `source`; None if it is no export, or its files have changed."""
    try:
        manifest = read_manifest(source, "export")
        verify_files(source, manifest.outputs)
    except MakegptError:
        return None
    metadata: dict[str, Any] | None = manifest.metadata.get("checkpoint")
    try:
        exported = from_json(_ExportedMetadata, metadata)
    except RecordError:
        return None
    return metadata if exported.tokenizer == tokenizer.identity() else None


def export_weights(folder: Path, target: Path, *, started: str) -> Manifest:
    """Write the model of the run in `folder` in Hugging Face's layout into the folder `target`, with a certificate.

    Raises UsageError if no layout has its design, MakegptError if the exported files compute other logits.
    """
    source = finished_manifest(folder)
    layout = LAYOUTS[find_design(read_model_config(folder), str(folder))]
    check_replaceable(target, "export")
    trained = load_run(folder, torch.device("cpu"))
    tokenizer = trained.tokenizer
    with replacing_folder(target, "export") as temporary:
        write_json(temporary / HF_CONFIG_FILE, layout.write_config(trained.config, tokenizer.endoftext))
        write_weights(layout, temporary / HF_WEIGHTS_FILE, dict(trained.model.named_parameters()), trained.config)
        for name, content in (to_hf_tokenizer(tokenizer) or {}).items():
            write_text(temporary / name, canonical_json(content) + "\n")
        if chat_template := chat_template_source(folder, source):
            write_text(temporary / HF_CHAT_FILE, chat_template)
        parity = compare_logits(trained.model, temporary, _prompt(tokenizer)) | {"model_sha256": trained.sha256}
        write_json(temporary / PARITY_FILE, parity)
        manifest = new_manifest(
            "export",
            "export-weights",
            parameters={},
            inputs={relative_place(folder, target): Input(identity=identity_of(source))},
            outputs=describe_files(temporary, sorted(path.name for path in temporary.iterdir())),
            metadata={"parameters": count_parameters(trained.model), "checkpoint": read_tensor_metadata(folder / MODEL_FILE)},
            started=started,
        )
        write_manifest(temporary, manifest)
    return manifest


def _prompt(tokenizer: Tokenizer) -> list[int]:
    try:
        return tokenizer.encode(_PROMPT)
    except UnknownText:
        return tokenizer.default_prompt()
