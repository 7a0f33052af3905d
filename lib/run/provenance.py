"""Where a figure comes from: the runs behind it."""

from pathlib import Path
from typing import Any, Iterable, Mapping

from lib.artifact.manifest import describe_files
from lib.config.schema import Config, config_tree
from lib.run.folder import (
    EVALUATION_FILE,
    finished_manifest,
)
from lib.run.sessions import all_versions


def figure_provenance(
    kind: str, folders: Iterable[Path], config: Config, *, configs: Mapping[str, Config] | None = None
) -> dict[str, Any]:
    """What a figure shows, for its metadata: only what it was made from, so the same input gives the same bytes.

    Of each run its name, the dataset it was trained on, the commit of the code that trained it (not of the code that
    draws), the hashes of its files; without runs, and next to them, the parameters.
    """
    named = configs or {}
    runs = [run_provenance(folder) for folder in folders if str(folder) not in named]
    trees = {name: config_tree(named_config) for name, named_config in named.items()} or (
        {} if runs else {"": config_tree(config)}
    )
    prompt = {"prompt": config.plot.prompt} if kind == "attention" else {}
    return {"kind": kind, "runs": runs, "parameters": trees} | prompt


def run_provenance(folder: Path) -> dict[str, Any]:
    """A finished run, for the metadata of what is made from it: its name, dataset, commit, files and metadata."""
    manifest = finished_manifest(folder)
    versions = all_versions(manifest)
    evaluated = [EVALUATION_FILE] if (folder / EVALUATION_FILE).is_file() else []
    return {
        "run": folder.resolve().name,
        "dataset": {Path(path).name: entry.identity for path, entry in manifest.inputs.items()},
        "commit": versions.get("commit"),
        "dirty": versions.get("dirty"),
        "files": {name: file.sha256 for name, file in (manifest.outputs | describe_files(folder, evaluated)).items()},
        "metadata": manifest.metadata,
    }
