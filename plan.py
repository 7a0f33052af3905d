"""What make asks before it begins: which artifacts a config and a text come to, and whether their parameters changed.

    python3 plan.py variables CONFIG DATASET TEXT SET    words for $(eval): NAME:=value, blanks in values as '|'
    python3 plan.py why CONFIG DATASET TEXT SET          what `make all` would run, and why
    python3 plan.py runs CONFIGS DATASET TEXT SET        the run folders of several configs
    python3 plan.py configs                              the configs and inputs of params.yaml

It runs on the standard library alone, so that a fresh clone, where nothing is installed, has named targets.

Each stage's parameters and input texts stand, in a canonical form, in a stamp below artifacts/stamps/, and beside it, in
STAMP.made, what the target was made with; make copies it there. Where both are the same the stamp is given the age of
the epoch, else it is new: so make compares contents, and touching params.yaml or asking `make -n` changes nothing.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib import artifact, inputs, params, provenance
from lib import config as schema
from lib.artifact import MANIFEST
from lib.config import Config
from lib.errors import MakegptError, UsageError, nearest

STAMPS = Path("artifacts/stamps")
FIGURES = Path("artifacts/plots")

#: The Makefile's own DATASET, which a figure's name need not tell.
USUAL_DATASET = "hamlet"


@dataclass(frozen=True)
class Step:
    """One stage in this pipeline: its name, the file whose presence means it is done, what that depends on."""

    stage: str
    target: Path
    content: dict[str, Any]  # parameters, by section.key, and input texts
    after: tuple[str, ...] = ()  # stages whose output it reads
    copy: Path | None = None  # where the target stands once more

    @property
    def stamp(self) -> Path:
        return STAMPS / f"{self.target.parent.name}.{self.stage}.json"

    def differences(self) -> list[str]:
        """In which parameters or texts the target differs from what is asked now; empty where in none."""
        made = self.stamp.with_name(self.stamp.name + ".made")
        if not made.is_file():
            return ["it is not known with what it was made"]
        before = artifact.read_json(made)
        return [
            f"{key} was {_short(before.get(key))}, is {_short(self.content.get(key))}"
            for key in sorted(before.keys() | self.content.keys())
            if before.get(key) != self.content.get(key)
        ]

    def text(self) -> str:
        return artifact.canonical(self.content) + "\n"


@dataclass(frozen=True)
class Pipeline:
    """All steps from a text to a figure, and the files that must be fetched first."""

    texts: list[Path]  # to be fetched where they are missing; none where the text is the user's own
    vocabulary: list[Path]
    steps: list[Step]

    def step(self, stage: str) -> Step:
        return next(step for step in self.steps if step.stage == stage)


def pipeline(config_name: str, dataset: str, text: str, changes: str) -> Pipeline:
    """The pipeline of a config over the input `dataset`, or over the file `text` where one is named."""
    tree = params.load()
    config = params.resolve(tree, config_name, changes.split())
    known = inputs.load(tree)
    if text:
        dataset, texts = _dataset_name(text), []
        hashes = [artifact.sha256(_existing(text))]
    elif dataset in known and known[dataset].is_text:
        texts = [inputs.data_folder() / name for name in known[dataset].files]
        pins = known[dataset].files.values()
        hashes = [artifact.sha256(path) if path.is_file() else pin for path, pin in zip(texts, pins, strict=True)]
    else:
        names = [name for name in known if known[name].is_text]
        raise UsageError(f"DATASET={dataset} is unknown; {nearest(dataset, names)}; TEXT=my.txt takes a text of yours")
    needs_vocabulary = config.tokenize.tokenizer == "gpt2"
    vocabulary = [inputs.data_folder() / name for name in known["gpt2"].files] if needs_vocabulary else []
    return Pipeline(texts, vocabulary, _steps(config, config_name, dataset, hashes))


def _existing(text: str) -> Path:
    if not Path(text).is_file():
        raise MakegptError(f"TEXT={text} does not exist, or is no file")
    return Path(text)


def _dataset_name(text: str) -> str:
    """A dataset's name after its file: the stem, with _ for what a target's name could not hold."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in Path(text).stem).strip(".") or "text"


def _steps(config: Config, config_name: str, dataset: str, hashes: list[str]) -> list[Step]:
    context = config.model.context_length
    name = f"{dataset}.{config.tokenize.tokenizer}"
    tokens = Path("artifacts/tokens") / name / MANIFEST
    windows = Path("artifacts/datasets") / f"{name}.{context}" / MANIFEST
    folder = Path("artifacts/runs") / f"{config_name}-{dataset}"

    def of(*sections: str) -> dict[str, Any]:
        tree = schema.as_tree(config)
        values = {f"{section}.{key}": value for section in sections for key, value in tree[section].items()}
        return {key: value for key, value in values.items() if key not in schema.WITHOUT_EFFECT}

    return [
        Step("tokenize", tokens, of("tokenize") | {"text": hashes}),
        Step("build-dataset", windows, of("build-dataset") | {"model.context_length": context}, ("tokenize",)),
        Step("train", folder / "model.safetensors", of("model", "train"), ("build-dataset",)),
        Step("evaluate", folder / "evaluation.json", of("evaluate", "generate"), ("train",)),
        Step("generate", folder / "sample.txt", of("generate"), ("train",)),
        Step("plot", folder / "loss.png", of("plot"), ("evaluate",), FIGURES / f"{_figure_name(config_name, dataset)}.png"),
    ]


def _figure_name(config_name: str, dataset: str) -> str:
    """GPT_BALANCED, and GPT_BALANCED-moby_dick where the dataset is not the usual one."""
    return config_name.upper() + ("" if dataset == USUAL_DATASET else f"-{dataset}")


def _short(value: Any) -> str:
    """A value in at most a few words; hashes are cut."""
    text = " ".join(item[:8] for item in value[:2]) if isinstance(value, list) else str(value)
    return text + (" …" if isinstance(value, list) and len(value) > 2 else "")


def refresh(steps: list[Step]) -> None:
    """Bring every stamp up to date: its content, and its age."""
    for step in steps:
        if not step.stamp.is_file() or step.stamp.read_text(encoding="utf-8") != step.text():
            artifact.write_text(step.stamp, step.text())
        if not step.differences():
            os.utime(step.stamp, (0, 0))
        elif step.stamp.stat().st_mtime == 0:
            os.utime(step.stamp)


def variables(made: Pipeline) -> dict[str, str]:
    """What the Makefile is told: folders, stamps, inputs."""
    values = {
        "TEXTS": " ".join(map(str, made.texts)),
        "VOCABULARY": " ".join(map(str, made.vocabulary)),
        "TOKENS": str(made.step("tokenize").target.parent),
        "WINDOWS": str(made.step("build-dataset").target.parent),
        "RUN": str(made.step("train").target.parent),
        "FIGURE": str(made.step("plot").copy),
    }
    return values | {f"STAMP.{step.stage}": str(step.stamp) for step in made.steps}


def why(made: Pipeline) -> list[str]:
    """For every step: up to date, or what makes it run; and where the code has changed since it was made."""
    lines = []
    stale: set[str] = set()
    for step in made.steps:
        if reason := _reason(step, made, stale):
            stale.add(step.stage)
            lines.append(f"{step.stage:14} runs: {reason}")
        else:
            lines.append(f"{step.stage:14} is up to date{_other_code(step)}")
    return lines


def _reason(step: Step, made: Pipeline, stale: set[str]) -> str | None:
    if not step.target.is_file():
        return f"{step.target} is not there"
    if differences := step.differences():
        return "; ".join(differences)
    for before in step.after:
        if before in stale:
            return f"{before} runs before it"
        if made.step(before).target.stat().st_mtime > step.target.stat().st_mtime:
            return f"{made.step(before).target} is newer than {step.target}"
    if step.copy and (not step.copy.is_file() or step.target.stat().st_mtime > step.copy.stat().st_mtime):
        return f"{step.copy} is not {step.target}, which is copied there"
    return None


def _other_code(step: Step) -> str:
    """A remark where the step's manifest was written by another commit than the present one, or by changed code."""
    manifest = step.target.with_name(MANIFEST)
    if not manifest.is_file():
        return ""
    then, now = artifact.read_json(manifest).get("versions", {}), provenance.versions()
    if (then.get("commit"), then.get("dirty")) == (now["commit"], now["dirty"]) or now["commit"] is None:
        return ""
    code = f"{'changed code on ' if then.get('dirty') else ''}commit {str(then.get('commit'))[:10]}"
    return f" (made by other code: {code}; remove it to make it again)"


def main(words: list[str]) -> int:
    """Answer one question of the Makefile's on stdout; errors are one line there too, after `error:`."""
    try:
        match words:
            case ["configs"]:
                tree = params.load()
                print("configs: ", " ".join(params.config_names(tree)))
                print("datasets:", " ".join(name for name, entry in inputs.load(tree).items() if entry.is_text))
            case ["why", config, dataset, text, changes]:
                print("\n".join(why(pipeline(config, dataset, text, changes))))
            case ["runs", names, dataset, text, changes]:
                targets = [pipeline(name, dataset, text, changes).step("train").target for name in names.split()]
                print(" ".join(str(target.parent) for target in targets))
            case ["variables", config, dataset, text, changes]:
                made = pipeline(config, dataset, text, changes)
                refresh(made.steps)
                print(" ".join(f"{name}:={value.replace(' ', '|')}" for name, value in variables(made).items()))
            case _:
                print(__doc__)
                return 2
    except MakegptError as error:
        print(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
