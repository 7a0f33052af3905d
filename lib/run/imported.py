"""A run folder whose weights come from elsewhere."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Mapping, Sequence

import torch

from lib.artifact.folders import check_replaceable, replacing_folder
from lib.artifact.io import sha256_of, write_json
from lib.artifact.manifest import MANIFEST, Input, Manifest, describe_files, new_manifest, read_manifest, write_manifest
from lib.artifact.tensors import save_tensors
from lib.chat.jinja import recognize
from lib.config.model import ModelConfig
from lib.errors import UsageError
from lib.run.folder import CHAT_TEMPLATE, CONFIG_FILE, IMPORT_STAGE, MODEL_FILE, is_imported
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.registry import TOKENIZER_FILE


def check_importable(target: Path) -> None:
    """UsageError unless the folder `target` is new, or holds a run that was imported: a trained one is not replaced."""
    check_replaceable(target, "run")
    if (target / MANIFEST).exists() and not is_imported(read_manifest(target, "run")):
        raise UsageError(f"{target} holds a run that was trained here; choose another -o")


def write_imported_run(
    target: Path,
    config: ModelConfig,
    tokenizer: Tokenizer,
    tensors: dict[str, torch.Tensor],
    *,
    checkpoint: Mapping[str, Any],
    inputs: Sequence[Path],
    metadata: Mapping[str, Any],
    started: str,
    chat_template: str | None = None,
) -> Manifest:
    """Write the run folder `target`, whole or not at all; return its manifest.

    `checkpoint`: the metadata of the tensors' file; `inputs`: the files that all this comes from; `metadata`: more of it.
    `chat_template`: how the model expects conversations, in Jinja's language; the manifest keeps it for an export.
    """
    chat = recognize(chat_template) if chat_template else None
    metadata = dict(metadata) | ({CHAT_TEMPLATE: chat_template} if chat_template else {})
    with replacing_folder(target, "run") as folder:
        write_json(folder / CONFIG_FILE, {"model": asdict(config)} | ({"chat": chat.to_saved()} if chat else {}))
        tokenizer.save(folder / TOKENIZER_FILE)
        save_tensors(folder / MODEL_FILE, tensors, dict(checkpoint))
        manifest = new_manifest(
            "run",
            IMPORT_STAGE,
            parameters={"model": asdict(config)},
            inputs={str(path): Input(kind="file", bytes=path.stat().st_size, sha256=sha256_of(path)) for path in inputs},
            outputs=describe_files(folder, [CONFIG_FILE, TOKENIZER_FILE, MODEL_FILE]),
            metadata={"tokenizer": tokenizer.identity(), "parameters": sum(tensor.numel() for tensor in tensors.values())}
            | metadata,
            started=started,
        )
        write_manifest(folder, manifest)
    return manifest
