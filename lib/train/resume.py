"""What a run folder holds when a training begins: nothing, a training to go on with, or a finished one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.artifact.manifest import Manifest, relative_place
from lib.errors import UsageError
from lib.run.state import SavedState
from lib.train.initial_weights import as_published, config_mismatch, replaces_another_text
from lib.train.run_folder import RunFolder


@dataclass
class ResumeState:
    """What a run folder holds when a training begins: nothing, a training to go on with, or a finished one."""

    notices: list[str]
    finished: bool = False
    manifest: Manifest | None = None
    state: SavedState | None = None


def inspect_run_folder(
    run: RunFolder,
    parameters: dict[str, Any],
    metadata: dict[str, Any],
    texts: list[str],
    used: list[tuple[Path, str]],
    max_steps: int,
    resume: bool,
) -> ResumeState:
    """What is there to go on with. Its manifest names the inputs where they are now; that of a finished run is rewritten.

    UsageError where it is a training on another text than `texts`, which would be lost.
    """
    manifest = run.begun() if resume else None
    if manifest and (difference := config_mismatch(manifest, parameters, metadata)):
        if replaces_another_text(run, manifest, metadata, texts):
            raise UsageError(
                f"{run.folder} holds a {'finished ' if run.finished() else ''}training on another text; "
                "choose another -o, or replace it with --resume never"
            )
        return ResumeState([f"{run.folder} was made with other parameters ({difference}); beginning anew"])
    moved: list[Path] = []
    if manifest:
        manifest, moved = _where_now(run.folder, manifest, used)
    if manifest and run.finished() and as_published(run.folder, manifest):
        if moved:
            run.record(manifest)
        result = f"what it was made from is now recorded at {', '.join(map(str, moved))}" if moved else "nothing to do"
        return ResumeState([f"{run.folder} is finished already with these parameters; {result}"], finished=True)
    state = run.load_state() if manifest else None
    notices = [f"going on after step {state.step} of {max_steps}"] if state else []
    return ResumeState(notices, manifest=manifest, state=state)


def manifest_inputs(folder: Path, used: list[tuple[Path, str]]) -> dict[str, Any]:
    """The inputs of a run in `folder` as its manifest names them; the first is the dataset."""
    return {relative_place(each, folder): {"identity": identity} for each, identity in used}


def _where_now(folder: Path, manifest: Manifest, used: list[tuple[Path, str]]) -> tuple[Manifest, list[Path]]:
    """The run's manifest with the artifacts `used` where they are now, and those that were elsewhere."""
    inputs = manifest_inputs(folder, used)
    if manifest["inputs"].keys() == inputs.keys() or list(manifest["inputs"].values()) != list(inputs.values()):
        return manifest, []
    moved = [each for each, place in zip((each for each, _ in used), inputs, strict=True) if place not in manifest["inputs"]]
    return manifest | {"inputs": inputs}, moved
