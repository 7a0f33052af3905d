"""Whether the training in a run folder can be resumed, is finished, or starts over, and why."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lib.artifact.manifest import Input, Manifest, relative_place, verify_files
from lib.config.schema import IGNORED_FOR_IDENTITY
from lib.errors import MakegptError, UsageError
from lib.run.folder import MODEL_FILE
from lib.run.state import SavedState
from lib.train.run_folder import RunFolder


@dataclass(frozen=True)
class ResumeState:
    """What a run folder holds when a training begins: nothing, a training to continue, or a finished one."""

    notices: list[str] = field(default_factory=list)
    is_finished: bool = False
    manifest: Manifest | None = None
    state: SavedState | None = None


def inspect_run_folder(
    run: RunFolder,
    parameters: dict[str, Any],
    metadata: dict[str, Any],
    texts: list[str],
    inputs: list[tuple[Path, str]],
    max_steps: int,
    resume: bool,
) -> ResumeState:
    """What can be resumed. Its manifest names the inputs where they are now; that of a finished run is rewritten.

    `texts`: the SHA-256 of the dataset's documents; `inputs`: folders and their identities. UsageError if the folder holds a
    training on another text, which would be lost.
    """
    manifest = run.manifest() if resume else None
    if manifest is None:
        return ResumeState()
    if mismatch := config_mismatch(manifest, parameters, metadata):
        if _is_of_another_text(run, manifest, metadata, texts):
            raise UsageError(
                f"{run.path} holds a {'finished ' if run.is_finished() else ''}training on another text; "
                "use another -o, or replace it with --resume never"
            )
        return ResumeState([f"parameters of {run.path} changed ({mismatch}); starting over"])
    manifest, moved = _with_inputs_where_they_are(run.path, manifest, inputs)
    if run.is_finished() and _is_as_published(run.path, manifest):
        if moved:
            run.record(manifest)
        result = f"recorded that its inputs are now at {', '.join(map(str, moved))}" if moved else "nothing to do"
        return ResumeState([f"{run.path} is finished already with these parameters; {result}"], is_finished=True)
    state = run.load_state()
    notices = [f"resuming after step {state.step} of {max_steps}"] if state else []
    return ResumeState(notices, manifest=manifest, state=state)


def config_mismatch(manifest: Manifest, parameters: dict[str, Any], metadata: dict[str, Any]) -> str | None:
    """The first parameter or input in which a run's manifest differs from what is asked for now; None if none does."""
    for section, values in parameters.items():
        before = manifest.parameters.get(section, {})
        for key, value in values.items():
            if before.get(key) != value and f"{section}.{key}" not in IGNORED_FOR_IDENTITY:
                return f"{section}.{key} was {before.get(key)}, now {value}"
    for key, difference in _INPUT_DIFFERENCES.items():
        if manifest.metadata.get(key) != metadata.get(key):
            return difference
    return None


_INPUT_DIFFERENCES = {
    "dataset": "another dataset",
    "tokenizer": "another tokenizer",
    "init_from": "other initial weights",
}


def manifest_inputs(folder: Path, inputs: list[tuple[Path, str]]) -> dict[str, Input]:
    """The inputs of a run in `folder` as its manifest names them; the first is the dataset."""
    return {relative_place(path, folder): Input(identity=identity) for path, identity in inputs}


def _is_of_another_text(run: RunFolder, manifest: Manifest, metadata: dict[str, Any], texts: list[str]) -> bool:
    """Whether a training that is there was on other documents than `texts`, and has something to lose."""
    before = manifest.metadata.get("texts")
    other = before != texts if before else manifest.metadata.get("dataset") != metadata["dataset"]
    return other and (run.is_finished() or run.has_checkpoint())


def _is_as_published(folder: Path, manifest: Manifest) -> bool:
    """Whether the finished weights in `folder` are those that its manifest lists; False if another file is there.

    Raises MakegptError if one of the run's other files is damaged.
    """
    listed = manifest.outputs
    verify_files(folder, {name: file for name, file in listed.items() if name != MODEL_FILE})
    try:
        verify_files(folder, {MODEL_FILE: listed[MODEL_FILE]})
    except (KeyError, MakegptError):
        return False
    return True


def _with_inputs_where_they_are(
    folder: Path, manifest: Manifest, inputs: list[tuple[Path, str]]
) -> tuple[Manifest, list[Path]]:
    """The manifest with the `inputs` at their present places, and those that were elsewhere."""
    named = manifest_inputs(folder, inputs)
    if manifest.inputs.keys() == named.keys() or list(manifest.inputs.values()) != list(named.values()):
        return manifest, []
    moved = [path for (path, _), place in zip(inputs, named, strict=True) if place not in manifest.inputs]
    return replace(manifest, inputs=named), moved
