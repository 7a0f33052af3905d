"""Which artifacts of a pipeline are not what is asked for now, and why: what make runs.

Contents decide, not times. Tokens, dataset, run and evaluation record what they were made from. A sample, a figure and a
report have a note in artifacts/stamps/ instead: the parameters, what was read, what was written.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from lib.artifact.io import canonical_json, read_json, write_text
from lib.artifact.manifest import MANIFEST, Manifest, OtherFormat, identity_of, read_manifest
from lib.artifact.provenance import software_versions
from lib.errors import MakegptError
from lib.pipeline.steps import Pipeline, Sha256, Step

STAMPS = Path("artifacts/stamps")

_MODEL = "model.safetensors"
_PUBLISHED = {"saved": "published", "format": "float32"}


class _Stale(Exception):
    """An artifact is not what is asked for: why."""


@dataclass(frozen=True)
class Freshness:
    """What must be made again in a pipeline; `sha256` gives the hash of a file."""

    pipeline: Pipeline
    sha256: Sha256

    def reasons(self) -> dict[str, str | None]:
        """For each stage, in words, why it runs; None if it need not."""
        reasons: dict[str, str | None] = {}
        for step in self.pipeline.steps:
            earlier = next((stage for stage in step.after if reasons[stage]), None)
            reasons[step.stage] = f"{earlier} runs before it" if earlier and step.target.is_file() else self._reason(step)
        return reasons

    def figure_reason(self) -> str | None:
        """Why the figure is copied again; None if it is the loss figure of the run already."""
        drawn, copy = self.pipeline.step("plot").target, self.pipeline.figure
        if copy.is_file() and drawn.is_file() and self.sha256(copy) == self.sha256(drawn):
            return None
        return f"{copy} is not {drawn}, which is copied there"

    def check_place(self) -> None:
        """MakegptError if the run folder holds a training on another text, which would be lost."""
        folder = self.pipeline.run
        if not ((folder / _MODEL).exists() or (folder / "checkpoint" / "state.json").exists()):
            return
        texts = self._texts_of_run()
        if texts is not None and texts != self.pipeline.hashes:
            raise MakegptError(
                f"{folder} holds a run of another text (SHA-256 {texts[0][:8]}…, now {self.pipeline.hashes[0][:8]}…); "
                f"move it away or remove it, or give the text another name"
            )

    def note(self, stage: str) -> Path:
        """Write down what the output of `stage`, made just now, was made from; return where."""
        step = self.pipeline.step(stage)
        note = {"parameters": step.parameters, "inputs": self._inputs(step), "output": self.sha256(step.target)}
        write_text(self._note(step), canonical_json(note) + "\n")
        return self._note(step)

    def other_code(self, step: Step) -> str | None:
        """The commit that made the artifact of `step`, in words, if it is not the present one."""
        try:
            then = _manifest(step.target.parent).versions if step.target.with_name(MANIFEST).is_file() else {}
        except _Stale:
            return None
        now = software_versions()
        if not then or now["commit"] is None or (then.get("commit"), then.get("dirty")) == (now["commit"], now["dirty"]):
            return None
        return f"{'changed code on ' if then.get('dirty') else ''}commit {str(then.get('commit'))[:10]}"

    def _reason(self, step: Step) -> str | None:
        if not step.target.is_file():
            return f"{step.target} is missing"
        checks: dict[str, Callable[[Step], None]] = {
            "tokenize": self._check_tokens,
            "build-dataset": self._check_dataset,
            "train": self._check_run,
            "base": self._check_evaluation,
            "evaluate": self._check_evaluation,
        }
        try:
            checks.get(step.stage, self._check_note)(step)
        except _Stale as stale:
            return str(stale)
        except OSError as error:
            return f"{error.filename or step.target} cannot be read: {error.strerror}"
        except (MakegptError, AttributeError, KeyError, IndexError, TypeError, ValueError):
            return f"the record of how {step.target} was made is damaged"
        return None

    def _check_tokens(self, step: Step) -> None:
        manifest = _manifest(step.target.parent)
        parameters = dict(manifest.parameters)
        if base := self.pipeline.base:
            if parameters["vocabulary"] != _manifest(base.run).metadata["tokenizer"]:
                raise _Stale(f"it was tokenized with another vocabulary than that of {base.run}")
            del parameters["tokenizer"]
        for name in ("vocabulary", "chat") if self.pipeline.conversations or self.pipeline.layout else ():
            parameters.pop(name, None)  # which follow from the others
        held_out: dict[str, Any] = {key: parameters.pop(key) for key in ("val_fraction", "test_fraction") if key in parameters}
        _compare(_flat({"tokenize": parameters, "build-dataset": held_out}), step.parameters)
        if (texts := manifest.texts) != self.pipeline.hashes:
            raise _Stale(f"text was {_short(texts)}, is {_short(self.pipeline.hashes)}")
        self._check_outputs(step, manifest)

    def _check_dataset(self, step: Step) -> None:
        manifest = _manifest(step.target.parent)
        parameters = dict(manifest.parameters)
        before = _flat({"model": {"context_length": parameters.pop("context_length", None)}, "build-dataset": parameters})
        _compare(before, step.parameters)
        tokens = self.pipeline.step("tokenize").target.parent
        if manifest.sources[0] != identity_of(_manifest(tokens)):
            raise _Stale(f"it was built from other tokens than {tokens} holds now")
        self._check_outputs(step, manifest)

    def _check_run(self, step: Step) -> None:
        manifest = _manifest(step.target.parent)
        if manifest.stage != step.stage:
            raise _Stale(f"{step.target.parent} was made by {manifest.stage}")
        sections = manifest.parameters
        before = _flat({name: sections.get(name, {}) for name in ("model", "train")})
        for key in ("model.vocab_size", "model.n_classes"):
            if step.parameters.get(key) is None:  # the tokenizer's, the dataset's
                before[key] = None
        _compare({key: value for key, value in before.items() if key in step.parameters}, step.parameters)
        windows = self.pipeline.step("build-dataset").target.parent
        if manifest.metadata["dataset"] != identity_of(_manifest(windows)):
            raise _Stale(f"it was trained on another dataset than {windows} holds now")
        base = self.pipeline.base
        if manifest.metadata.get("init_from") != (self._weights(base.run) if base else None):
            raise _Stale(
                f"it began with other weights than those of {base.run}" if base else "it began with the weights of another run"
            )
        if _MODEL not in manifest.outputs:
            raise _Stale(f"{step.target} is not of the training that {MANIFEST} records")
        self._check_outputs(step, manifest)

    def _check_evaluation(self, step: Step) -> None:
        evaluation = read_json(step.target)
        if "parameters" not in evaluation:
            raise _Stale("it is not known with what it was made")
        _compare(_flat(evaluation["parameters"]), step.parameters)
        if evaluation["model_sha256"] != self._weights(step.target.parent) or evaluation["weights"] != _PUBLISHED:
            raise _Stale(f"it is of other weights than {step.target.with_name(_MODEL)}")
        windows = self.pipeline.step("build-dataset").target.parent
        if evaluation.get("dataset") != identity_of(_manifest(windows)):
            raise _Stale(f"it is of another text than {windows}")

    def _check_note(self, step: Step) -> None:
        path = self._note(step)
        if not path.is_file():
            raise _Stale("it is not known with what it was made")
        note = read_json(path)
        _compare(note["parameters"], step.parameters)
        for name, sha256 in self._inputs(step).items():
            if note["inputs"].get(name) != sha256:
                raise _Stale(f"{name} has changed since")
        if note["output"] != self.sha256(step.target):
            raise _Stale(f"{step.target} has changed since make made it")

    def _check_outputs(self, step: Step, manifest: Manifest) -> None:
        for name, file in manifest.outputs.items():
            path = step.target.parent / name
            if not path.is_file():
                raise _Stale(f"{path} is missing")
            if path.stat().st_size != file.bytes or self.sha256(path) != file.sha256:
                raise _Stale(f"{path} is not the file that {MANIFEST} records")

    def _inputs(self, step: Step) -> dict[str, str]:
        """The hashes of what a stage without a manifest reads: a sample the weights, the others all of the run."""
        if step.stage == "generate":
            return {_MODEL: self._weights(self.pipeline.run)}
        names = [self.pipeline.step(before).target.name for before in step.after]
        run = {str(self.pipeline.run): identity_of(_manifest(self.pipeline.run))}
        return run | {name: self.sha256(self.pipeline.run / name) for name in names}

    def _weights(self, run: Path) -> str:
        return str(_manifest(run).outputs[_MODEL].sha256)

    def _note(self, step: Step) -> Path:
        return STAMPS / f"{step.target.parent.name}.{step.stage}.json"

    def _texts_of_run(self) -> list[str] | None:
        """The SHA-256 of each document that the run was trained on; None if that is not known any more."""
        folders = [self.pipeline.step(stage).target.parent for stage in ("tokenize", "build-dataset")]
        try:
            metadata = _manifest(self.pipeline.run).metadata
            if isinstance(metadata.get("texts"), list) and metadata["texts"]:
                return list(map(str, metadata["texts"]))
            tokens, windows = map(_manifest, folders)
            same = metadata["dataset"] == identity_of(windows) and windows.sources[0] == identity_of(tokens)
            return (tokens.texts or None) if same else None
        except (_Stale, OSError, AttributeError, KeyError, IndexError, TypeError, ValueError):
            return None


def _manifest(folder: Path) -> Manifest:
    """The manifest in `folder`, of any kind; _Stale if there is none, or none that can be read."""
    try:
        return read_manifest(folder, None)
    except OtherFormat:
        raise _Stale(f"{folder / MANIFEST} is of another version's format") from None
    except (MakegptError, RecursionError):
        raise _Stale(f"{folder / MANIFEST} is missing or damaged") from None


def _flat(sections: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()}


def _compare(before: dict[str, Any], now: dict[str, Any]) -> None:
    """_Stale with every parameter that has changed."""
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    if changed:
        raise _Stale("; ".join(f"{key} was {before.get(key)}, is {now.get(key)}" for key in changed))


def _short(hashes: list[str]) -> str:
    return " ".join(sha256[:8] for sha256 in hashes[:2]) + (" …" if len(hashes) > 2 else "")
