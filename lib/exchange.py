"""Whole models from elsewhere and to elsewhere: a GPT-2 in Hugging Face's layout to a run folder, and back.

What was exported here and not changed since goes back to the very bytes it came from: the facts of its checkpoint lie
in its manifest. Any other model begins a run of its own.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from lib import artifact, certificate, checkpoint, fields, folders, inputs, model, pretrained, provenance, run, tokenizer
from lib import config as schema
from lib.artifact import Manifest
from lib.config import ModelConfig
from lib.errors import MakegptError, UsageError
from lib.tokenizer import Tokenizer, UnknownText, hugging_face

#: What the certificate begins with where the tokenizer knows its characters, else what any text begins with.
_PROMPT = "To be, or not to be"


def import_weights(source: Path, target: Path, *, started: str) -> Manifest:
    """Write the run folder `target` with the GPT-2 of `source`, a folder or a safetensors file; return its manifest.

    Raises MakegptError where it is none that can be followed; UsageError where `target` holds something else.
    """
    folders.check_replaceable(target, "run")
    if (target / artifact.MANIFEST).exists() and not run.imported(artifact.read_manifest(target, "run")):
        raise UsageError(f"{target} holds a run that was trained here; choose another -o")
    files = pretrained.weight_files(source)
    described = source / pretrained.CONFIG
    with pretrained.opened(files) as held:
        config = pretrained.from_theirs(described) if source.is_dir() else pretrained.released(held, source)
        made = _tokenizer(source, config)
        tensors = pretrained.read(held, config, source)
    spare = (config.vocab_size or 0) - made.vocab_size
    if spare:
        tensors, config = pretrained.without_spare_rows(tensors, made.vocab_size), replace(config, vocab_size=made.vocab_size)
    facts: dict[str, Any] = {"model": asdict(config), "tokenizer": made.identity()}
    if before := _exported_facts(source, made):
        facts, config = before, schema.build_section("model", schema.MEANT["model"] | before["model"], str(source))
        tensors = {name: tensor for name, tensor in tensors.items() if config.qkv_bias or not name.endswith("W_qkv.bias")}
    used = [*files, *([described, *map(source.joinpath, hugging_face.files(source))] if source.is_dir() else [])]
    with folders.replacing_folder(target, "run") as folder:
        artifact.write_json(folder / run.CONFIG, {"model": asdict(config)})
        made.save(folder / tokenizer.FILE)
        checkpoint.save(folder / run.MODEL, tensors, facts)
        manifest = provenance.manifest(
            "run",
            run.IMPORT,
            parameters={"model": asdict(config)},
            inputs={str(path): {"is": "file", "bytes": path.stat().st_size, "sha256": artifact.sha256(path)} for path in used},
            outputs=artifact.files_of(folder, [run.CONFIG, tokenizer.FILE, run.MODEL]),
            facts={"tokenizer": made.identity(), "parameters": sum(tensor.numel() for tensor in tensors.values())}
            | ({"dropped_rows": spare} if spare else {}),
            started=started,
        )
        artifact.write_json(folder / artifact.MANIFEST, manifest)
    return manifest


def _tokenizer(source: Path, config: ModelConfig) -> Tokenizer:
    """The tokenizer beside the weights, or where there is none GPT-2's own. The table may have rows behind its last token."""
    made = hugging_face.load(source) if source.is_dir() else None
    rows = config.vocab_size or 0
    if made is None and pretrained.only_padded(rows):
        made = tokenizer.make("gpt2", [], inputs.data_folder(inputs.VOCABULARY))
    if made is None:
        raise MakegptError(
            f"{source} holds no tokenizer, and its model has {rows} tokens, not the {pretrained.RELEASED_TOKENS} "
            "of GPT-2's own; put its tokenizer.json there, or its vocab.json and merges.txt"
        )
    if rows < made.vocab_size:
        raise MakegptError(
            f"{source}: the tokenizer has {made.vocab_size} tokens, the model's table has rows for {rows} alone; "
            "one of them is of another model"
        )
    if rows >= 2 * made.vocab_size:
        raise MakegptError(
            f"{source}: the tokenizer has {made.vocab_size} tokens, the model's table {rows} rows, more than padding explains; "
            "one of them is of another model"
        )
    return made


def _exported_facts(source: Path, made: Tokenizer) -> dict[str, Any] | None:
    """The facts of the checkpoint that was exported to `source`; None where none was, or where the files are others now."""
    try:
        manifest = artifact.read_manifest(source, "export")
        artifact.verify(source, manifest["outputs"])
    except MakegptError:
        return None
    facts = manifest["facts"].get("checkpoint")
    wanted = {"tokenizer": str, "model": dict}
    return facts if fields.damaged(facts, wanted) is None and facts["tokenizer"] == made.identity() else None


def export_weights(folder: Path, target: Path, *, started: str) -> Manifest:
    """Write the model of the run in `folder` as Hugging Face's GPT-2 into the folder `target`, with a certificate.

    Raises UsageError where it is no GPT-2, MakegptError where what was written would not compute the same.
    """
    source = run.finished_manifest(folder)
    pretrained.check_expressible(run.read_config(folder), folder)
    folders.check_replaceable(target, "export")
    trained = run.load(folder, torch.device("cpu"))
    made = trained.tokenizer
    with folders.replacing_folder(target, "export") as beside:
        artifact.write_json(beside / pretrained.CONFIG, pretrained.as_theirs(trained.config, made.endoftext))
        pretrained.write(beside / pretrained.WEIGHTS, dict(trained.model.named_parameters()), trained.config)
        for name, content in (hugging_face.as_theirs(made) or {}).items():
            artifact.write_text(beside / name, artifact.canonical(content) + "\n")
        certified = certificate.compare(trained.model, beside, _prompt(made)) | {"model_sha256": trained.sha256}
        artifact.write_json(beside / certificate.FILE, certified)
        manifest = provenance.manifest(
            "export",
            "export-weights",
            parameters={},
            inputs={artifact.place(folder, target): {"identity": artifact.identity(source)}},
            outputs=artifact.files_of(beside, sorted(path.name for path in beside.iterdir())),
            facts={"parameters": model.count(trained.model), "checkpoint": checkpoint.read_facts(folder / run.MODEL)},
            started=started,
        )
        artifact.write_json(beside / artifact.MANIFEST, manifest)
    return manifest


def _prompt(made: Tokenizer) -> list[int]:
    try:
        return made.encode(_PROMPT)
    except UnknownText:
        return made.opening()
