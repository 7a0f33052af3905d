"""A GGUF file to a run folder: its model, its tokenizer and its weights."""

from dataclasses import asdict
from pathlib import Path

from lib.artifact.manifest import Manifest
from lib.errors import MakegptError
from lib.gguf.config import read_config
from lib.gguf.reader import open_gguf
from lib.gguf.tokenizer import read_tokenizer
from lib.gguf.weights import read_tensors
from lib.run.folder import CHAT_TEMPLATE
from lib.run.imported import check_importable, write_imported_run

GGUF_FILE = "model.gguf"
_SUFFIX = ".gguf"


def find_gguf(source: Path) -> Path | None:
    """The GGUF file that `source` is, or that the folder `source` holds as an export does; None if it is something else."""
    if source.suffix == _SUFFIX:
        return source
    return source / GGUF_FILE if (source / GGUF_FILE).is_file() else None


def import_gguf(source: Path, target: Path, *, started: str) -> Manifest:
    """Write the run folder `target` with the model in the GGUF file `source`; return its manifest.

    Quantized weights become float32. Raises MakegptError if the file is damaged or the model not supported; UsageError if
    `target` holds something else.
    """
    check_importable(target)
    if not source.is_file():
        raise MakegptError(f"{source} does not exist; it must be a {_SUFFIX} file")
    with open_gguf(source) as file:
        config = read_config(file)
        tokenizer = read_tokenizer(file)
        if tokenizer.vocab_size != config.vocab_size:
            raise MakegptError(
                f"{source}: the tokenizer has {tokenizer.vocab_size} tokens, the embeddings have {config.vocab_size} rows"
            )
        tensors = read_tensors(file, config)
        kinds = sorted({info.type_name for info in file.tensors.values()})
        metadata = {"types": kinds, "name": str(file.values.get("general.name", source.stem))}
        template = file.values.get(CHAT_TEMPLATE)
    return write_imported_run(
        target,
        config,
        tokenizer,
        tensors,
        checkpoint={"model": asdict(config), "tokenizer": tokenizer.identity()},
        inputs=[source],
        metadata=metadata,
        started=started,
        chat_template=template if isinstance(template, str) else None,
    )
