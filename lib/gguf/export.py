"""A run to a folder with a GGUF file for llama.cpp and the programs built on it, and a certificate."""

from pathlib import Path
from typing import Any

import torch

from lib.artifact.folders import check_replaceable, replacing_folder
from lib.artifact.io import write_json, write_text
from lib.artifact.manifest import Input, Manifest, describe_files, identity_of, new_manifest, relative_place, write_manifest
from lib.gguf.certificate import certify
from lib.gguf.config import architecture_of, config_values
from lib.gguf.convert import GGUF_FILE
from lib.gguf.ollama import MODELFILE, modelfile
from lib.gguf.tokenizer import tokenizer_values
from lib.gguf.weights import parameter_shapes, to_tensors
from lib.gguf.writer import write_gguf
from lib.huggingface.parity import PARITY_FILE
from lib.model.registry import count_parameters
from lib.run.folder import (
    CHAT_TEMPLATE,
    chat_template_source,
    finished_manifest,
    load_run,
    read_chat_template,
    read_model_config,
)


def export_gguf(folder: Path, target: Path, *, quantize: str, started: str) -> Manifest:
    """Write the model of the run in `folder` as a GGUF file into the folder `target`, with a certificate.

    `quantize`: its type, one of `lib.gguf.writer.FILE_TYPES`. Raises UsageError if llama.cpp has no architecture for the model,
    MakegptError if the file computes other logits there.
    """
    source = finished_manifest(folder)
    architecture = architecture_of(read_model_config(folder), str(folder))
    check_replaceable(target, "export")
    trained = load_run(folder, torch.device("cpu"))
    config = trained.config
    ff_dim = parameter_shapes(config)["blocks.0.feed_forward.expand.weight"][0]
    values = {"general.architecture": architecture.name, "general.name": "makegpt"}
    values |= config_values(config, architecture, ff_dim) | tokenizer_values(trained.tokenizer)
    if (template := chat_template_source(folder, source)) is not None:
        values[CHAT_TEMPLATE] = template
    chat = read_chat_template(folder)
    commands = modelfile(GGUF_FILE, config.context_length, chat, other_template=template is not None)
    with replacing_folder(target, "export") as temporary:
        tensors = to_tensors(dict(trained.model.named_parameters()), config, architecture)
        types = write_gguf(temporary / GGUF_FILE, values, tensors, quantize)
        write_text(temporary / MODELFILE, commands)
        certificate: dict[str, Any] = certify(trained.model, trained.tokenizer, temporary / GGUF_FILE, quantize)
        write_json(temporary / PARITY_FILE, certificate | {"model_sha256": trained.sha256})
        manifest = new_manifest(
            "export",
            "export-weights",
            parameters={"to": "gguf", "quantize": quantize},
            inputs={relative_place(folder, target): Input(identity=identity_of(source))},
            outputs=describe_files(temporary, sorted(path.name for path in temporary.iterdir())),
            metadata={"parameters": count_parameters(trained.model), "architecture": architecture.name, "types": types},
            started=started,
        )
        write_manifest(temporary, manifest)
    return manifest
